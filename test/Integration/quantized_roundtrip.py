# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime, ml_dtypes
"""Quantized models come into the nibble dialect and go back as they were.

Each model goes through --convert-onnx-to-nibble and --convert-nibble-to-onnx. The
nodes, initializers (codes, scales and zero points, byte for byte) and all else that
the file says must be the same afterwards, and ONNX Runtime must give the same bits.
Models come from onnx.helper over every kind of block and storage, from ONNX Runtime's
own quantizers, and from ONNX's backend cases of the quantization ops.
"""

import collections
import io
import logging
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import support

OPT = support.tool("nibble-opt")
TRANSLATE = support.tool("nibble-translate")
IN, OUT = "--convert-onnx-to-nibble", "--convert-nibble-to-onnx"
# The newest that every runtime of our list takes.
RUNTIME_IR = 11

checks = support.Checks()
counts = collections.Counter()


# --------------------------------------------------------------------------------------
# In and out
# --------------------------------------------------------------------------------------


def convert(model, folder, *passes, form="mlir"):
    """Returns (the model after import, passes and export or None, IR or complaint)."""
    source, imported = folder / "in.onnx", folder / f"in.{form}"
    raised, exported = folder / f"out.{form}", folder / "out.onnx"
    onnx.save(model, source)
    bytecode = ["--emit-bytecode"] if form == "mlirbc" else []
    for command in (
        [TRANSLATE, "--import-onnx", source, "-o", imported],
        [OPT, imported, *passes, *bytecode, "-o", raised],
        [TRANSLATE, "--export-onnx", raised, "-o", exported],
    ):
        done = support.run(*command)
        if done.code or done.timed_out:
            return None, str(done)[:2000]
    return onnx.load(exported), ""


def raised_text(model, folder):
    """The IR after the pass that reads quantized nodes, verified."""
    source = folder / "raise.onnx"
    onnx.save(model, source)
    done = support.run(OPT, source, IN)
    return (done.stdout, "") if done.code == 0 else (None, str(done)[:2000])


def canonical(message):
    return message.SerializeToString(deterministic=True)


def pieces(model):
    """What a model says, apart from the order of its initializers."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    del rest.graph.node[:], rest.graph.initializer[:]
    return {
        "node": [canonical(node) for node in model.graph.node],
        "initializer": sorted(canonical(tensor) for tensor in model.graph.initializer),
        "rest": [canonical(rest)],
    }


def difference(before, after):
    old, new = pieces(before), pieces(after)
    for kind in old:
        if old[kind] == new[kind]:
            continue
        names = [
            [getattr(x, "op_type", "") + " " + x.name for x in getattr(m.graph, kind)]
            if kind != "rest" else [] for m in (before, after)
        ]
        changed = [i for i, (a, b) in enumerate(zip(old[kind], new[kind])) if a != b]
        return f"{kind}s differ at {changed[:5]}: {names[0][:30]} became {names[1][:30]}"
    return ""


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def feeds_of(model):
    generator = np.random.default_rng(5)
    constants = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else 3 for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if np.issubdtype(dtype, np.integer):
            feeds[value.name] = generator.integers(0, 5, shape).astype(dtype)
        else:
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
    return feeds


def check_outputs(name, before, after):
    """Bit-equal outputs, where the runtime takes the model at all."""
    try:
        runtime = session(before)
        feeds = feeds_of(before)
        expected = runtime.run(None, feeds)
    except Exception:  # the runtime lacks the op or the type
        counts["not run by ONNX Runtime"] += 1
        return
    found = session(after).run(None, feeds)
    counts["run"] += 1
    for value, a, b in zip(before.graph.output, expected, found):
        same = np.asarray(a).tobytes() == np.asarray(b).tobytes()
        checks.check(same, f"{name}: output {value.name} differs in ONNX Runtime")


def check_round_trip(name, model, folder, raises=None, form="mlir"):
    """raises: texts that the nibble form must contain."""
    text, complaint = raised_text(model, folder)
    if not checks.check(text is not None, f"{name}: {complaint}"):
        return
    for wanted in raises or []:
        checks.check(wanted in text, lambda: f"{name}: no {wanted!r} in\n{text[:1500]}")
    after, complaint = convert(model, folder, IN, OUT, form=form)
    if not checks.check(after is not None, f"{name}: {complaint}"):
        return
    counts["models"] += 1
    problem = difference(model, after)
    checks.check(not problem, f"{name}: {problem}")
    check_outputs(name, model, after)


# --------------------------------------------------------------------------------------
# Models
# --------------------------------------------------------------------------------------


def raw_tensor(name, data_type, shape, data):
    tensor = TensorProto(name=name, data_type=data_type, dims=shape)
    tensor.raw_data = data
    return tensor


def random_bytes(generator, count):
    return generator.integers(0, 256, count, dtype=np.uint8)


def packed_codes(generator, bits, count, values=None):
    """`count` random codes as ONNX packs them, low bits first; the tail is 0."""
    codes = generator.integers(0, 2**bits, count, dtype=np.uint8) if values is None else values
    width = 8 // bits
    padded = np.zeros(-(-count // width) * width, np.uint8)
    padded[:count] = codes
    shifts = np.arange(width, dtype=np.uint8) * bits
    return (padded.reshape(-1, width) << shifts).sum(1, dtype=np.uint8).tobytes()


def model_of(nodes, inputs, outputs, initializers, opset=21, value_info=()):
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        initializers, value_info=list(value_info),
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=RUNTIME_IR)


FLOATS = {
    TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16,
}


def scales_of(generator, data_type, shape):
    values = generator.uniform(0.001, 0.1, shape).astype(FLOATS[data_type])
    return values


def nbits_model(bits, block, zeros, k, n, bias=False, scale_type=TensorProto.FLOAT,
                padding=True, flat=False, extra=None):
    """One MatMulNBits. `padding`: bits beyond K and the last zero point are not 0."""
    generator = np.random.default_rng([bits, block, k, n])
    blocks, blob = -(-k // block), block * bits // 8
    data = random_bytes(generator, n * blocks * blob)
    if not padding and k % block:
        rows = np.zeros((n, blocks * block), np.uint8)
        rows[:, :k] = generator.integers(0, 2**bits, (n, k))
        data = np.frombuffer(packed_codes(generator, bits, rows.size, rows.ravel()), np.uint8)
    scales = scales_of(generator, scale_type, [n * blocks] if flat else [n, blocks])
    initializers = [
        raw_tensor("weight", TensorProto.UINT8, [n, blocks, blob], data.tobytes()),
        numpy_helper.from_array(scales, "scales"),
    ]
    inputs = ["x", "weight", "scales"]
    if zeros == "packed":
        row = -(-blocks * bits // 8)
        initializers.append(raw_tensor("zeros", TensorProto.UINT8, [n, row],
                                       random_bytes(generator, n * row).tobytes()))
        inputs.append("zeros")
    elif zeros == "float":
        values = generator.uniform(0, 2**bits, (n, blocks)).astype(FLOATS[scale_type])
        initializers.append(numpy_helper.from_array(values, "zeros"))
        inputs.append("zeros")
    if bias:
        inputs += [""] * (5 - len(inputs)) + ["bias"]
        values = generator.standard_normal(n).astype(FLOATS[scale_type])
        initializers.append(numpy_helper.from_array(values, "bias"))
    attributes = {"K": k, "N": n, "bits": bits, "block_size": block, **(extra or {})}
    node = helper.make_node("MatMulNBits", inputs, ["y"], name="product",
                            domain="com.microsoft", **attributes)
    return model_of([node], [("x", scale_type, ["rows", k])], [("y", scale_type, ["rows", n])],
                    initializers)


STORAGES = {
    TensorProto.INT2: ("i2", 2, 25), TensorProto.UINT2: ("u2", 2, 25),
    TensorProto.INT4: ("i4", 4, 21), TensorProto.UINT4: ("u4", 4, 21),
    TensorProto.INT8: ("i8", 8, 13), TensorProto.UINT8: ("u8", 8, 13),
    TensorProto.INT16: ("i16", 16, 21), TensorProto.UINT16: ("u16", 16, 21),
    TensorProto.INT32: ("i32", 32, 13),
    TensorProto.FLOAT8E4M3FN: ("f8E4M3FN", 8, 19), TensorProto.FLOAT8E5M2: ("f8E5M2", 8, 19),
    TensorProto.FLOAT4E2M1: ("f4E2M1FN", 4, 23),
}


def storage_bytes(generator, data_type, count, zero=False):
    _, bits, _ = STORAGES[data_type]
    if zero:
        return bytes(-(-count * bits // 8))
    if bits < 8:
        return packed_codes(generator, bits, count)
    if data_type in (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2):
        return generator.integers(0, 0x78, count, dtype=np.uint8).tobytes()
    return random_bytes(generator, count * bits // 8).tobytes()


def dequantize_model(data_type, granularity, zero, k, n, scale_type=TensorProto.FLOAT,
                     axis=0, block=16):
    """x @ DequantizeLinear(weight) with one constant weight [k, n]."""
    generator = np.random.default_rng([data_type, k, n])
    _, bits, opset = STORAGES[data_type]
    shape = {"tensor": [], "vector": [1], "axis": [(k, n)[axis]],
             "blocked": [-(-k // block) if axis == 0 else k, -(-n // block) if axis == 1 else n]
             }[granularity]
    opset = max(opset, 21 if granularity == "blocked" else 19)
    attributes = {} if granularity in ("tensor", "vector") else {"axis": axis}
    if granularity == "blocked":
        attributes["block_size"] = block
    initializers = [
        raw_tensor("codes", data_type, [k, n], storage_bytes(generator, data_type, k * n)),
        numpy_helper.from_array(scales_of(generator, scale_type, shape), "scale"),
    ]
    inputs = ["codes", "scale"]
    if zero:
        must_be_zero = STORAGES[data_type][0] == "i32" or STORAGES[data_type][0][0] == "f"
        count = int(np.prod(shape, dtype=np.int64))
        data = storage_bytes(generator, data_type, count, must_be_zero)
        initializers.append(raw_tensor("zero", data_type, shape, data))
        inputs.append("zero")
    nodes = [
        helper.make_node("DequantizeLinear", inputs, ["weight"], name="dq", **attributes),
        helper.make_node("MatMul", ["x", "weight"], ["y"], name="product"),
    ]
    return model_of(nodes, [("x", scale_type, ["rows", k])], [("y", scale_type, ["rows", n])],
                    initializers, opset)


# --------------------------------------------------------------------------------------
# Tests
# --------------------------------------------------------------------------------------


def test_dequantize(folder):
    for data_type, (storage, _, _) in STORAGES.items():
        for granularity in ("tensor", "vector", "axis", "blocked"):
            for zero in (False, True):
                for k, n in ((32, 8), (37, 5)):
                    name = f"DequantizeLinear {storage} {granularity} {zero} {k}x{n}"
                    axis = (k + n) % 2
                    model = dequantize_model(data_type, granularity, zero, k, n, axis=axis)
                    check_round_trip(name, model, folder,
                                     ["nibble.assemble", f"#nibble.quantized<{storage},"])


def test_nbits(folder):
    for bits in (2, 4, 8):
        for block in (16, 32, 128):
            for zeros in ("none", "packed", "float"):
                for k, n in ((128, 8), (67, 5), (33, 3)):
                    name = f"MatMulNBits {bits} bits, block {block}, zeros {zeros}, {k}x{n}"
                    bias = (k + bits) % 2 == 0
                    model = nbits_model(bits, block, zeros, k, n, bias, flat=n == 5,
                                        extra={"accuracy_level": 1, "weight_prepacked": 0})
                    zero = "f32" if zeros == "float" else f"u{bits}"
                    encoding = f"<u{bits}, block = [1, {block}], scale = f32, zero = {zero}>"
                    check_round_trip(name, model, folder, [encoding, 'node "MatMul"('])


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        tests = [value for name, value in globals().items() if name.startswith("test_")]
        for test in tests:
            if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
                continue
            before = checks.done
            test(folder)
            print(f"{test.__name__}: {checks.done - before} checks", flush=True)
    print(dict(counts))
    checks.finish()


if __name__ == "__main__":
    main()
