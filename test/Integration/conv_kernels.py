# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Convolutions on every target row that this machine can run, over odd sizes.

The results are ONNX Runtime's. Their place is filled with NaN before, and memory behind it
must stay as it was.
"""

import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import kernels
import support

# Input channels, output channels, groups, kernel, strides, dilations, pads, with a bias.
CASES = [
    # Panels: several passes of channels and of taps, rows that are one, gaps of every width.
    (3, 16, 1, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), False),
    (17, 33, 1, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), True),
    (5, 7, 1, (1, 1), (2, 2), (1, 1), (0, 0, 0, 0), True),
    (4, 130, 1, (5, 3), (1, 1), (2, 1), (2, 1, 0, 1), True),
    (40, 5, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), False),
    (6, 18, 3, (3, 3), (1, 3), (1, 2), (1, 1, 1, 2), True),
    (9, 20, 1, (7,), (1,), (1,), (3, 3), True),
    (5, 6, 1, (3,), (4,), (2,), (0, 0), False),
    (2, 5, 1, (2, 3, 2), (1, 2, 1), (1, 1, 2), (0, 1, 0, 1, 1, 0), True),
    # One or two channels for each input.
    (6, 6, 6, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), True),
    (6, 12, 6, (5, 5), (2, 2), (1, 1), (2, 2, 2, 2), False),
    (4, 8, 4, (3, 3), (1, 3), (2, 1), (1, 0, 1, 0), True),
    (8, 8, 8, (3,), (2,), (1,), (1, 1), True),
    (7, 1, 1, (3, 3), (1, 1), (1, 1), (0, 0, 0, 0), True),
    (3, 3, 3, (2, 2, 2), (1, 1, 1), (1, 1, 1), (0, 0, 0, 0, 0, 0), False),
]
# Items and sizes of the last dimensions.
SIZES = [(1, (5, 7, 9)), (2, (6, 20, 70)), (1, (5, 9, 131))]


def make_model(random):
    """One convolution for each case, each of an input of its own."""
    nodes, initializers, inputs, outputs = [], [], [], []
    for i, (channels, results, groups, kernel, strides, dilations, pads, bias) in enumerate(CASES):
        weight = random.standard_normal((results, channels // groups, *kernel), np.float32)
        names = [f"x{i}", f"w{i}"]
        initializers.append(numpy_helper.from_array(weight, f"w{i}"))
        if bias:
            names.append(f"b{i}")
            initializers.append(numpy_helper.from_array(
                random.standard_normal(results, np.float32), f"b{i}"))
        nodes.append(helper.make_node(
            "Conv", names, [f"y{i}"], group=groups, kernel_shape=kernel, strides=strides,
            dilations=dilations, pads=pads))
        sizes = [f"d{axis}" for axis in range(3 - len(kernel), 3)]
        inputs.append(helper.make_tensor_value_info(
            f"x{i}", TensorProto.FLOAT, ["n", channels, *sizes]))
        outputs.append(helper.make_tensor_value_info(
            f"y{i}", TensorProto.FLOAT, [None, results, *[None] * len(kernel)]))
    graph = helper.make_graph(nodes, "convolutions", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def check_row(checks, row, folder, path, session):
    model = kernels.load_row(checks, row, folder, path, "convolutions")
    if not model:
        return
    random = np.random.default_rng(5)
    for items, sizes in SIZES:
        arrays = [random.standard_normal((items, case[0], *sizes[3 - len(case[3]):]), np.float32)
                  for case in CASES]
        exact = session.run(None, {f"x{i}": x for i, x in enumerate(arrays)})
        results, untouched = kernels.run_guarded(model, arrays, [y.shape for y in exact])
        checks.check(untouched, f"{row} {sizes}: writes behind a result")
        for case, result, expected in zip(CASES, results, exact):
            error = kernels.distance(result, expected)
            checks.check(error <= 1e-5, f"{row} {case} of {sizes}: error {error:.1e}")
    model.close()


def main():
    checks = support.Checks()
    model = make_model(np.random.default_rng(3))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    with support.scratch() as name:
        folder = pathlib.Path(name)
        path = folder / "convolutions.onnx"
        onnx.save(model, path)
        for row in kernels.ROWS:
            check_row(checks, row, folder, path, session)
    checks.finish()


if __name__ == "__main__":
    main()
