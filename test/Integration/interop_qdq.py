# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Q/DQ pairs as Nibble writes them: blocked, per channel and per tensor, in 2, 4 and 8
bits. ONNX Runtime and an independent reading agree, and the opset is raised only when
needed, by rules that keep the meaning of every node."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import linear_layers
import oracle
import support

BITS = (2, 4, 8)
FORMAT = ["--format", "qdq"]


def needed_opset(bits, blocked):
    """The first opset with the storage type and the kind of blocks."""
    if bits == 2:
        return 25
    return 21 if bits == 4 or blocked else 18


def check_scheme(scheme, bits, blocked, symmetric, model, weights, folder, checks):
    quantized, done = linear_layers.quantize(
        model, folder, "--scheme", scheme, "--scale", "minmax", *FORMAT
    )
    if not checks.check(quantized, f"{scheme}: {done}"):
        return
    opset = next(o.version for o in quantized.opset_import if o.domain == "")
    wanted = needed_opset(bits, blocked)
    checks.check(opset == wanted, f"{scheme}: opset became {opset}, {wanted} is needed")
    onnx.checker.check_model(quantized)
    stored = {t.name: t.data_type for t in quantized.graph.initializer}
    shapes = {t.name: t.dims for t in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type == "DequantizeLinear":
            width, _ = oracle.INTEGERS[stored[node.input[0]]]
            # ONNX Runtime 1.32 fuses 2-bit weights wrongly where rows do not fill their bytes.
            padded = bits == 2 and shapes[node.input[0]][-1] % 4 != 0
            checks.check(width == (4 if padded else bits),
                         f"{scheme}: {node.input[0]} is stored in {width} bits")
            # Without one, the zero point would be the reader's default.
            checks.check(symmetric or len(node.input) > 2, f"{scheme}: no zero point")
    found = linear_layers.check_results(scheme, quantized, weights, checks, bits)
    bound = 1.0 if symmetric else 0.5
    linear_layers.check_rounding(scheme, found, weights, checks, bound, "DequantizeLinear")


def old_model():
    """Opset 11, where Softmax flattens its input, Squeeze has its axes as an attribute
    and ReduceMean too: all of them mean something else, or nothing, from 13 or 18 on."""
    generator = np.random.default_rng(3)
    weight = generator.standard_normal((24, 16)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["input", "weight"], ["product"], name="linear"),
        helper.make_node("Softmax", ["product"], ["share"], axis=1),
        helper.make_node("ReduceMean", ["share"], ["mean"], axes=[2], keepdims=1),
        helper.make_node("Squeeze", ["mean"], ["flat"], axes=[2]),
        helper.make_node("Unsqueeze", ["flat"], ["tall"], axes=[2]),
        helper.make_node("Mul", ["share", "tall"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes, "old",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [2, 3, 24])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [2, 3, 16])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def check_old_opset(folder, checks):
    """A raised opset keeps every node's meaning, or the tool refuses."""
    model = old_model()
    quantized, done = linear_layers.quantize(model, folder, "--scheme", "w4g16", *FORMAT)
    if quantized is None:
        checks.check(
            done.code == 1 and "opset" in done.stderr, f"opset 11: neither done nor refused: {done}"
        )
        print(f"opset 11: refused: {done.stderr.strip()}")
        return
    onnx.checker.check_model(quantized)
    codes = {t.name: t for t in quantized.graph.initializer}
    node = next(n for n in quantized.graph.node if n.op_type == "DequantizeLinear")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    weight = oracle.dequantize_linear(
        attributes, [oracle.read_tensor(codes[name]) for name in node.input],
        oracle.INTEGERS[codes[node.input[0]].data_type],
    )
    # The old model with the same weight says what the new one must give.
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(weight.values.astype(np.float32), "weight")
    )
    value = np.random.default_rng(4).standard_normal((2, 3, 24)).astype(np.float32)
    expected = linear_layers.session(model).run(None, {"input": value})[0]
    found = linear_layers.session(quantized).run(None, {"input": value})[0]
    error = np.abs(found - expected).max() / np.abs(expected).max()
    checks.check(error <= 1e-5, f"opset 11: outputs differ by {error:.2g}")


checks = support.Checks()
model, weights = linear_layers.layers()
with support.scratch() as folder:
    for bits in BITS:
        for symmetric in (False, True):
            end = "s" if symmetric else ""
            for block in linear_layers.BLOCKS:
                check_scheme(f"w{bits}g{block}{end}", bits, True, symmetric,
                             model, weights, folder, checks)
            for granularity in "ct":
                check_scheme(f"w{bits}{granularity}{end}", bits, False, symmetric,
                             model, weights, folder, checks)
    check_old_opset(folder, checks)
checks.finish()
