# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""An embedding and the head that shares its table: stored once, computed right.

The table is read by Gather and, transposed, by MatMul. The expected numbers come from
the codes and scales in the file, unpacked here; ONNX Runtime computes both outputs.
Widths that are no multiple of the group make the rows of MatMulNBits longer than those
of the table.
"""

import pathlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import support

ROWS = 37


def write_model(path, width, rng):
    table = rng.standard_normal((ROWS, width)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"], name="embed"),
            helper.make_node("Transpose", ["table"], ["columns"], perm=[1, 0]),
            helper.make_node("MatMul", ["rows", "columns"], ["logits"], name="head"),
        ],
        "tied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "sequence", width]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", ROWS]),
        ],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return table


def unpack(packed, bits, count):
    """Codes along the last axis, low bits first."""
    per_byte = 8 // bits
    shifts = np.arange(per_byte) * bits
    codes = (packed[..., None].astype(np.int64) >> shifts) & ((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]


def read_table(model, width):
    initializers = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    node = next(n for n in model.graph.node if n.op_type == "MatMulNBits")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    bits, group = attributes["bits"], attributes["block_size"]
    codes = initializers[node.input[1]]
    scales = initializers[node.input[2]].reshape(ROWS, -1)
    zeros = np.full(scales.shape, 1 << (bits - 1))
    if len(node.input) > 3 and node.input[3]:
        zeros = unpack(initializers[node.input[3]].reshape(ROWS, -1), bits, scales.shape[1])
    flat = unpack(codes.reshape(ROWS, -1), bits, width)
    index = np.arange(width) // group
    return (flat - zeros[:, index]) * scales[:, index].astype(np.float64), codes.nbytes


def check_scheme(scheme, width, folder, checks):
    rng = np.random.default_rng(width)
    source, output = folder / "tied.onnx", folder / "tied.q.onnx"
    table = write_model(source, width, rng)
    schemes = ("--scheme", "keep", "--embedding", scheme, "--scale", "minmax")
    support.must_run(support.tool("nibble"), "quantize", source, "-o", output, *schemes)
    model = onnx.load(output)
    label = f"{scheme}, width {width}"
    expected, code_bytes = read_table(model, width)
    large = [t.name for t in model.graph.initializer if len(t.raw_data) >= code_bytes]
    checks.check(len(large) == 1, f"{label}: the codes are stored as {large}")
    ids = rng.integers(0, ROWS, (2, 5))
    session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
    rows, logits = session.run(["rows", "logits"], {"ids": ids})
    wanted_rows = expected[ids]
    wanted_logits = wanted_rows @ expected.T
    for name, got, wanted in (("rows", rows, wanted_rows), ("logits", logits, wanted_logits)):
        error = np.abs(got - wanted).max() / np.abs(wanted).max()
        checks.check(error <= 1e-5, f"{label}: {name} are off by {error:.2g}")
    # Never more than one step of the coarsest grid that the range asks for.
    step = 2 * np.abs(table).max() / (2 ** int(scheme[1]) - 1)
    noise = np.abs(expected - table).max()
    checks.check(noise <= step, f"{label}: the table is off by {noise:.2g}, a step is {step:.2g}")


checks = support.Checks()
with support.scratch() as scratch:
    for scheme in ("w4g16", "w4g32s", "w8g32", "w8g128", "w4g128", "w4c", "w8ts"):
        for width in (64, 80, 144):
            check_scheme(scheme, width, pathlib.Path(scratch), checks)
checks.finish()
