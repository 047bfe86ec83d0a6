"""What calibration would see of a model's activations, measured in ONNX Runtime. Not a
test itself."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper


def open_session(model, optimized=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    data = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def measure_ranges(path, samples):
    """The file of ranges that passes read: of what every product reads and of what every
    convolution gives. Each sample is the model's input `x`."""
    model = onnx.load(path)
    axes = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            axes[node.input[0]] = axes[node.output[0]] = 1
        elif node.op_type in ("MatMul", "Gemm"):
            axes[node.input[0]] = -1
    known = {value.name for value in model.graph.output} | {"x"}
    for name in axes:
        if name not in known:
            model.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    session = open_session(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    seen = {name: [] for name in axes}
    for x in samples:
        values = dict(zip(names, session.run(None, {"x": x})), x=x)
        for name, axis in axes.items():
            moved = np.moveaxis(values[name], axis, 0)
            seen[name].append(moved.reshape(len(moved), -1))
    ranges = {}
    for name, parts in seen.items():
        whole = np.concatenate(parts, axis=1)
        ranges[name] = {"min": whole.min(1).tolist(), "max": whole.max(1).tolist(),
                        "mean": whole.mean(1).tolist(),
                        "variance": whole.var(1).tolist(),
                        "magnitude": np.abs(whole).mean(1).tolist()}
    return {"values": ranges}


def ratio(expected, found):
    """Signal to noise, in decibels."""
    noise = float(((expected - found) ** 2).sum())
    return 10 * np.log10(float((expected ** 2).sum()) / max(noise, 1e-30))
