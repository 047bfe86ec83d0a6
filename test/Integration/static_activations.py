# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Convolutions and matrix products in integers, with activations quantized from what
calibration saw. Folding and equalizing keep the function in ONNX Runtime; the quantized
model is loaded with every product in integers, and its outputs are nearer to the float
model's than those of ONNX Runtime's own static quantizer on the same data."""

import json
import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime import quantization

import support
from activations import measure_ranges, open_session, ratio

FOLD = ["--onnx-infer-shapes", "--onnx-fold-constants", "--onnx-fold-affine",
        "--onnx-infer-shapes"]
QUANTIZE = ["--nibble-assign-schemes=scheme=w8cs", "--nibble-round=scale=minmax",
            "--nibble-quantize-activations", "--convert-nibble-to-onnx=format=qdq"]
CHANNELS = 16


def small_network(generator):
    """Opset 11 with all weights in Constant nodes: blocks of a convolution, a
    normalization, hard-swish in five nodes and a product and a sum with numbers, as
    exporters write them, then a gate over the mean, and a matrix product. The channels'
    sizes span three orders of magnitude."""
    nodes, counter = [], [0]

    def constant(array):
        counter[0] += 1
        name = f"constant.{counter[0]}"
        value = numpy_helper.from_array(np.asarray(array, np.float32), name)
        nodes.append(helper.make_node("Constant", [], [name], value=value))
        return name

    def node(op_type, *inputs, **attributes):
        counter[0] += 1
        names = [x if isinstance(x, str) else constant(x) for x in inputs]
        output = f"value.{counter[0]}"
        nodes.append(helper.make_node(op_type, names, [output], **attributes))
        return output

    def conv(x, inputs, outputs, size, group=1):
        shape = (outputs, inputs // group, size, size)
        weight = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return node("Conv", x, weight, generator.standard_normal(outputs) * 0.1,
                    kernel_shape=[size, size], pads=[size // 2] * 4, group=group)

    def block(x, inputs, outputs, size, group=1):
        x = conv(x, inputs, outputs, size, group)
        gain = np.exp(generator.standard_normal(outputs) * 1.5)
        x = node("BatchNormalization", x, gain, generator.standard_normal(outputs),
                 np.zeros(outputs), np.ones(outputs))
        moved = node("Add", x, [3.0])
        gate = node("Clip", moved, np.float32(0), np.float32(6))
        x = node("Div", node("Mul", x, gate), [6.0])
        return node("Add", node("Mul", [0.7], x), [0.2])

    x = block("x", 3, CHANNELS, 3)
    x = block(x, CHANNELS, CHANNELS, 5, group=CHANNELS)
    x = block(x, CHANNELS, 2 * CHANNELS, 1)
    mean = node("GlobalAveragePool", x)
    gate = node("HardSigmoid", conv(mean, 2 * CHANNELS, 2 * CHANNELS, 1))
    x = node("Mul", x, gate)
    x = node("Relu", conv(x, 2 * CHANNELS, CHANNELS, 3))
    x = node("Transpose", x, perm=[0, 2, 3, 1])
    weight = generator.standard_normal((CHANNELS, 8)) / 4
    nodes.append(helper.make_node("MatMul", [x, constant(weight)], ["y"]))
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", 1, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("y", 1, ["batch", "height", "width", 8])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)],
                             ir_version=8)


def run_all(model, samples):
    session = open_session(model)
    return np.stack([session.run(None, {"x": x})[0] for x in samples])


class Reader(quantization.CalibrationDataReader):
    def __init__(self, samples):
        self.samples = iter(samples)

    def get_next(self):
        sample = next(self.samples, None)
        return None if sample is None else {"x": sample}


def check_network(seed, folder, checks):
    generator = np.random.default_rng(seed)
    original, folded, equal, quantized, peer, fused = (
        folder / f"{name}{seed}.onnx" for name in
        ("original", "folded", "equal", "quantized", "peer", "fused"))
    onnx.save(small_network(generator), original)
    samples = generator.standard_normal((24, 1, 3, 24, 24)).astype(np.float32)
    calibration, evaluation = samples[:16], samples[16:]
    expected = run_all(original, evaluation)
    opt = support.tool("nibble-opt")

    support.must_run(opt, original, *FOLD, "-o", folded)
    kinds = [node.op_type for node in onnx.load(folded).graph.node]
    checks.check("BatchNormalization" not in kinds and kinds.count("Clip") == 0,
                 f"seed {seed}: not all was folded: {kinds}")
    found = ratio(expected, run_all(folded, evaluation))
    checks.check(found > 100, f"seed {seed}: folding changed the function ({found:.1f} dB)")

    ranges = folder / f"ranges{seed}.json"
    ranges.write_text(json.dumps(measure_ranges(folded, calibration)))
    equalize = [f"--nibble-smooth=ranges={ranges}",
                f"--nibble-equalize-activations=ranges={ranges}"]
    support.must_run(opt, original, *FOLD, *equalize, "-o", equal)
    found = ratio(expected, run_all(equal, evaluation))
    checks.check(found > 100, f"seed {seed}: equalizing changed the function ({found:.1f} dB)")

    support.must_run(opt, original, *FOLD, *equalize, *QUANTIZE, "-o", quantized)
    onnx.checker.check_model(onnx.load(quantized))
    open_session(quantized, fused)
    kinds = [node.op_type for node in onnx.load(fused).graph.node]
    # The convolution behind the mean has single positions and stays in float.
    checks.check(kinds.count("QLinearConv") == 4 and "MatMulIntegerToFloat" in kinds,
                 f"seed {seed}: ONNX Runtime runs {sorted(set(kinds))}")
    ours = ratio(expected, run_all(quantized, evaluation))
    # It writes per-channel weights into files of every opset, and 13 is the first that
    # has them; no node here means something else there.
    raised = onnx.load(folded)
    raised.opset_import[0].version = 13
    onnx.save(raised, peer)
    quantization.quantize_static(
        peer, peer, Reader(calibration), per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul"])
    theirs = ratio(expected, run_all(peer, evaluation))
    print(f"seed {seed}: {ours:.1f} dB, ONNX Runtime's quantizer {theirs:.1f} dB")
    checks.check(ours > theirs, f"seed {seed}: {ours:.1f} dB, the peer has {theirs:.1f} dB")


def check_errors(folder, checks):
    opt = support.tool("nibble-opt")
    path = folder / "original0.onnx"
    bad = folder / "bad.json"
    for text, reason in (
            ("{", "bad.json"),
            ("{}", "has no object 'values'"),
            ('{"values": {"x": {"min": [1], "max": [0], "mean": [0]}}}', "value 'x'"),
            ('{"values": {"x": {"min": [0], "max": [1, 2], "mean": [0]}}}', "value 'x'")):
        bad.write_text(text)
        result = support.run(opt, path, f"--nibble-equalize-activations=ranges={bad}")
        checks.check(result.code == 1 and reason in result.stderr, f"{text}: {result}")
    result = support.run(opt, path, "--nibble-equalize-activations=ranges=none.json")
    checks.check(result.code == 1 and "none.json" in result.stderr, f"no file: {result}")


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        for seed in range(3):
            check_network(seed, folder, checks)
        check_errors(folder, checks)
    checks.finish()


main()
