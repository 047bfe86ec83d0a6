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
    source, exported = folder / "in.onnx", folder / "out.onnx"
    onnx.save(model, source)
    steps = [folder / f"step{index}.{form}" for index in range(len(passes) + 1)]
    bytecode = ["--emit-bytecode"] if form == "mlirbc" else []
    commands = [[TRANSLATE, "--import-onnx", source, "-o", steps[0]]]
    # One process a pass, so that nothing is left out of the text or the bytecode.
    for step, flags in enumerate(passes):
        commands.append([OPT, steps[step], *flags.split(), *bytecode, "-o", steps[step + 1]])
    commands.append([TRANSLATE, "--export-onnx", steps[-1], "-o", exported])
    for command in commands:
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
    """What a model says, apart from the order of its initializers. The nodes of an
    integer product, which may stand apart, come back side by side."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    del rest.graph.node[:], rest.graph.initializer[:]
    nodes = [canonical(node) for node in model.graph.node]
    if any(node.op_type in ("MatMulInteger", "ConvInteger") for node in model.graph.node):
        nodes.sort()
    return {
        "node": nodes,
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


def session(model, optimized=True):
    options = onnxruntime.SessionOptions()
    # ONNX Runtime 1.32 fuses 2-bit Q/DQ wrongly (and not reproducibly) where N is no
    # multiple of 4.
    two_bits = (TensorProto.INT2, TensorProto.UINT2)
    if not optimized or any(t.data_type in two_bits for t in model.graph.initializer):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
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


def check_round_trip(name, model, folder, raises=None):
    """raises: texts that the nibble form must contain."""
    after, complaint = convert(model, folder, IN, OUT)
    if not checks.check(after is not None, f"{name}: {complaint}"):
        return
    counts["models"] += 1
    text = (folder / "step1.mlir").read_text()
    for wanted in raises or []:
        checks.check(wanted in text, lambda: f"{name}: no {wanted!r} in\n{text[:1500]}")
    problem = difference(model, after)
    checks.check(not problem, f"{name}: {problem}")
    onnx.checker.check_model(after)
    check_outputs(name, model, after)
    # What passes between do to ops that they do not know must not matter.
    if counts["models"] % 3:
        return
    after, complaint = convert(model, folder, IN, f"--canonicalize --cse {OUT}", form="mlirbc")
    if checks.check(after is not None, f"{name}, canonicalized: {complaint}"):
        problem = difference(model, after)
        checks.check(not problem, f"{name}, canonicalized: {problem}")


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


def test_order(folder):
    """Inputs in any order: GPTQ with act-order, as g_idx says it."""
    generator = np.random.default_rng(51)
    for bits in (2, 4, 8):
        for k, n, block in ((128, 8, 32), (67, 5, 16)):
            for order in ("identity", "permuted"):
                bias = k == 67
                model = nbits_model(bits, block, "none", k, n, bias=bias,
                                    extra={"accuracy_level": 1})
                groups = np.arange(k, dtype=np.int32) // block
                if order == "permuted":
                    groups = generator.permutation(groups)
                model.graph.initializer.append(numpy_helper.from_array(groups, "g_idx"))
                inputs = model.graph.node[0].input
                inputs.extend([""] * (5 - len(inputs)))
                inputs[4] = "g_idx"
                check_order(f"MatMulNBits {bits} bits, {k}x{n}, {order} g_idx", model, groups,
                            folder)


def check_order(name, model, groups, folder):
    after, complaint = convert(model, folder, IN, OUT)
    if not checks.check(after is not None, f"{name}: {complaint}"):
        return
    problem = difference(model, after)
    checks.check(not problem, f"{name}: {problem}")
    text = (folder / "step1.mlir").read_text()
    reorders = not np.array_equal(groups, np.sort(groups))
    checks.check("nibble.assemble" in text and ('node "Gather"(' in text) == reorders,
                 lambda: f"{name}: {text[:1500]}")
    # By the words of the documentation: ONNX Runtime 1.32 takes g_idx with 4 bits alone.
    codes, scales, zeros = weight_numbers(model)
    weight = (codes - zeros[:, groups].astype(np.float32)) * scales[:, groups]
    feeds = feeds_of(model)
    expected = feeds["x"] @ weight.T
    for tensor in model.graph.initializer:
        if tensor.name == "bias":
            expected = expected + numpy_helper.to_array(tensor)
    # Another format of it, which every runtime takes.
    source, target = folder / "order.onnx", folder / "order_qdq.onnx"
    onnx.save(model, source)
    support.must_run(support.tool("nibble"), "convert", source, "-o", target, "--format", "qdq")
    converted = onnx.load(target)
    kinds = [node.op_type for node in converted.graph.node]
    checks.check("MatMulNBits" not in kinds, f"{name}: {kinds}")
    found = {"qdq": session(converted, optimized=False).run(None, feeds)[0]}
    if "4 bits" in name:
        found["ONNX Runtime"] = session(model, optimized=False).run(None, feeds)[0]
    for who, values in found.items():
        error = np.abs(values - expected).max() / np.abs(expected).max()
        checks.check(error <= 1e-5, f"{name}, {who}: off by {error:.3g}")


def check_kept(name, model, folder, reason):
    """The node stays, with the reason, and the file comes back the same."""
    check_round_trip(name, model, folder, ["nibble.kept", reason])


def test_kept(folder):
    model = nbits_model(4, 32, "none", 64, 8)
    indices = numpy_helper.from_array(np.arange(64, dtype=np.int32), "g_idx")
    model.graph.initializer.append(indices)
    model.graph.node[0].input.extend(["", "g_idx"])
    check_kept("g_idx", model, folder, "g_idx")
    prepacked = nbits_model(4, 32, "none", 64, 8, extra={"weight_prepacked": 1})
    check_kept("prepacked", prepacked, folder, "weight_prepacked")
    short = nbits_model(4, 32, "packed", 64, 8)
    del short.graph.initializer[1:]
    short.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "scales"))
    del short.graph.node[0].input[3:]
    check_kept("short scales", short, folder, "do not have the shape")
    model = dequantize_model(TensorProto.INT8, "tensor", True, 8, 4)
    model.graph.initializer.pop(1)
    model.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, []))
    check_kept("computed scale", model, folder, "is computed")
    model = dequantize_model(TensorProto.FLOAT8E4M3FN, "tensor", False, 8, 4)
    model.graph.initializer[0].data_type = TensorProto.FLOAT8E4M3FNUZ
    check_kept("FNUZ", model, folder, "without a storage")


def gather_model(bits, storage, zeros, rows, columns, block, head=False):
    """GatherBlockQuantized of a table, and with `head` a MatMulNBits of the same."""
    generator = np.random.default_rng([bits, rows, columns])
    blocks = -(-columns // block)
    packed = storage == TensorProto.UINT8
    width = columns * bits // 8 if packed else columns
    table = packed_codes(generator, bits, rows * columns)
    scales = scales_of(generator, TensorProto.FLOAT, [rows, blocks])
    initializers = [
        raw_tensor("table", storage, [rows, width], table),
        numpy_helper.from_array(scales, "scales"),
    ]
    inputs = ["table", "ids", "scales"]
    if zeros:
        row = -(-blocks * bits // 8) if packed else blocks
        data = (random_bytes(generator, rows * row).tobytes() if packed
                else packed_codes(generator, bits, rows * blocks))
        initializers.append(raw_tensor("zeros", storage, [rows, row], data))
        inputs.append("zeros")
    attributes = {"block_size": block, "gather_axis": 0, "quantize_axis": 1}
    if packed:
        attributes["bits"] = bits
    nodes = [helper.make_node("GatherBlockQuantized", inputs, ["y"], name="embed",
                              domain="com.microsoft", **attributes)]
    outputs = [("y", TensorProto.FLOAT, [3, columns])]
    if head:
        weights = ["table", "scales"] + (["zeros"] if zeros else [])
        nodes.append(helper.make_node("MatMulNBits", ["y", *weights], ["logits"], name="head",
                                      domain="com.microsoft", K=columns, N=rows, bits=bits,
                                      block_size=block, accuracy_level=1))
        outputs = [("logits", TensorProto.FLOAT, [3, rows])]
    return model_of(nodes, [("ids", TensorProto.INT64, [3])], outputs, initializers)


def test_gather(folder):
    for zeros in (False, True):
        for rows, columns, block in ((7, 32, 16), (9, 48, 16), (16, 128, 32)):
            for bits, storage in ((4, TensorProto.UINT8), (8, TensorProto.UINT8),
                                  (4, TensorProto.UINT4), (4, TensorProto.INT4)):
                sign = "i" if storage == TensorProto.INT4 else "u"
                zero = f", zero = {sign}{bits}" if zeros or storage == TensorProto.UINT8 else ""
                encoding = f"<{sign}{bits}, block = [1, {block}], scale = f32{zero}>"
                model = gather_model(bits, storage, zeros, rows, columns, block)
                name = f"GatherBlockQuantized {encoding} {rows}x{columns}"
                check_round_trip(name, model, folder, [encoding, 'node "Gather"('])
    # A tied weight is one assembly.
    model = gather_model(8, TensorProto.UINT8, False, 16, 128, 32, head=True)
    check_round_trip("tied", model, folder, ['node "Gather"(', 'node "MatMul"('])
    text, _ = raised_text(model, folder)
    checks.check(text.count("nibble.assemble") == 1, "tied: not one assembly")


def bnb4_model(kind, k, n, block):
    generator = np.random.default_rng([kind, k, n])
    absmax = scales_of(generator, TensorProto.FLOAT, [-(-k * n // block)])
    codes = random_bytes(generator, (k * n + 1) // 2).tobytes()
    initializers = [raw_tensor("weight", TensorProto.UINT8, [(k * n + 1) // 2, 1], codes),
                    numpy_helper.from_array(absmax, "absmax")]
    node = helper.make_node("MatMulBnb4", ["x", "weight", "absmax"], ["y"], K=k, N=n,
                            block_size=block, quant_type=kind, domain="com.microsoft")
    return model_of([node], [("x", TensorProto.FLOAT, [2, k])], [("y", TensorProto.FLOAT, [2, n])],
                    initializers)


def test_bnb4(folder):
    for kind, book in enumerate(("fp4", "nf4")):
        for k, n, block in ((64, 4, 16), (96, 5, 32), (67, 5, 16), (33, 3, 64)):
            blocks = f"[1, {block}]" if k % block == 0 else f"flat [{block}]"
            check_round_trip(f"MatMulBnb4 {book} {k}x{n}", bnb4_model(kind, k, n, block), folder,
                             [f"<{book}, block = {blocks}, scale = f32>"])


# --------------------------------------------------------------------------------------
# Sums of integers
# --------------------------------------------------------------------------------------

BYTES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


def sums_model(kind, x, w, zeros, constant, attributes):
    """One MatMulInteger or ConvInteger of arrays; `zeros` are arrays or None.
    `constant` says which of the four inputs are initializers, the others come from
    outside."""
    arrays = [x, w, *zeros]
    names = [name if array is not None else ""
             for name, array in zip(("x", "w", "xz", "wz"), arrays)]
    initializers, inputs, feeds = [], [], {}
    for name, array, is_constant in zip(names, arrays, constant):
        if is_constant and name:
            initializers.append(numpy_helper.from_array(array, name))
        elif name:
            inputs.append((name, BYTES[array.dtype.type], array.shape))
            feeds[name] = array
    while not names[-1]:
        names.pop()
    node = helper.make_node(kind, names, ["y"], name="sums", **attributes)
    rank = x.ndim if kind == "ConvInteger" else (x.astype(int) @ w.astype(int)).ndim
    output = ("y", TensorProto.INT32, [f"size{i}" for i in range(rank)])
    return model_of([node], inputs, [output], initializers), feeds


def sums_oracle(model, feeds, arrays):
    """(What ONNX Runtime computes, who). Where it lacks the zero points, of rows or of
    channels, they are subtracted before, and NumPy or ONNX Runtime's Conv in f32, which
    is exact for so few products, computes the sums."""
    try:
        return session(model, optimized=False).run(None, feeds)[0], "ONNX Runtime"
    except Exception as error:
        assert "zero point" in str(error).lower() or "per-tensor" in str(error), error
    x, w, xz, wz = (0 if array is None else array.astype(np.int32) for array in arrays)
    node = model.graph.node[0]
    if node.op_type == "MatMulInteger":
        if np.ndim(xz) == 1 and xz.size > 1:
            xz = xz[:, None]
        return np.matmul(x - xz, w - wz), "NumPy"
    wz = np.reshape(wz, [-1] + [1] * (w.ndim - 1))
    product = helper.make_node("Conv", ["x", "w"], ["y"])
    product.attribute.extend(node.attribute)
    centered = {"x": (x - xz).astype(np.float32), "w": (w - wz).astype(np.float32)}
    floats = model_of([product], [(name, TensorProto.FLOAT, value.shape)
                                  for name, value in centered.items()],
                      [("y", TensorProto.FLOAT, None)], [])
    return session(floats).run(None, centered)[0].astype(np.int32), "ONNX Runtime's Conv"


def check_sums(name, folder, kind, x, w, zeros, constant, attributes=None):
    model, feeds = sums_model(kind, x, w, zeros, constant, attributes or {})
    expected, who = sums_oracle(model, feeds, [x, w, *zeros])
    counts[f"{kind} by {who}"] += 1
    check_round_trip(name, model, folder, ["nibble.integers"])
    text, _ = raised_text(model, folder)
    checks.check("Integer\"(" not in text, f"{name}: stays a node: {text[:1500]}")
    # The reference, and native code.
    source, raised = folder / "sums.onnx", folder / "sums.mlir"
    onnx.save(model, source)
    support.must_run(OPT, source, IN, "-o", raised)
    for index, value in enumerate(feeds.values()):
        tensor = numpy_helper.from_array(value)
        (folder / f"input_{index}.pb").write_bytes(tensor.SerializeToString())
    support.must_run(support.tool("nibble-run-reference"), raised, "--inputs", folder,
                     "--outputs", folder)
    found = {"reference": numpy_helper.to_array(onnx.load_tensor(folder / "output_0.pb"))}
    np.savez(folder / "sums.npz", **feeds)
    support.must_run(support.tool("nibble"), "run", source, "--inputs", folder / "sums.npz",
                     "--outputs", folder / "sums_out.npz", "--no-cache", "--quiet")
    found["native"] = np.load(folder / "sums_out.npz")["y"]
    for road, values in found.items():
        same = values.dtype == np.int32 and np.array_equal(values, expected)
        checks.check(same, lambda: f"{name}, {road}: {values} is not {expected} ({who})")


def any_bytes(generator, kind, *shape):
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max + 1, shape).astype(kind)


def test_matmul_integer(folder):
    generator = np.random.default_rng(31)
    shapes = [((5, 7), (7, 3)), ((2, 3, 7), (7, 4)), ((2, 3, 7), (2, 7, 4)),
              ((2, 1, 3, 7), (4, 7, 2)), ((7,), (7, 3)), ((3, 7), (7,))]
    for index, (left, right) in enumerate(shapes):
        forms = {"none": (None, None), "numbers": ((), ()), "vector of one": ((1,), (1,))}
        if len(left) == 2:
            forms["rows and columns"] = ((left[0],), right[1:] or (1,))
        if len(right) == 2:
            forms["columns"] = (None, (right[1],))
        if len(left) > 2:
            forms["each matrix"] = ((*left[:-1], 1), (*right[:-2], 1, right[-1]))
        for turn, (form, (xz, wz)) in enumerate(forms.items(), index):
            a, b = ((np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8))[turn % 3]
            x, w = any_bytes(generator, a, *left), any_bytes(generator, b, *right)
            zeros = (None if xz is None else any_bytes(generator, a, *xz),
                     None if wz is None else any_bytes(generator, b, *wz))
            constant = [(0, 1, 1, 1), (0, 0, 0, 0), (0, 1, 0, 1)][(turn + index) % 3]
            check_sums(f"MatMulInteger {left} {right} {a.__name__} {b.__name__} {form}",
                       folder, "MatMulInteger", x, w, zeros, constant)
    # More than 32 bits hold.
    x, w = np.full((2, 70000), 255, np.uint8), np.full((70000, 1), -128, np.int8)
    check_sums("MatMulInteger that wraps", folder, "MatMulInteger", x, w, (None, None),
               (0, 1, 1, 1))


def test_conv_integer(folder):
    generator = np.random.default_rng(32)
    cases = [
        ((1, 3, 6, 5), (4, 3, 3, 3), {}),
        ((2, 3, 6, 5), (4, 3, 3, 3), {"pads": [1, 2, 0, 1], "strides": [2, 1]}),
        ((1, 4, 7, 7), (6, 2, 3, 2), {"group": 2, "dilations": [2, 3], "pads": [1, 1, 1, 1]}),
        ((1, 4, 6, 6), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER"}),
        ((2, 2, 9), (3, 2, 4), {"pads": [3, 1], "kernel_shape": [4]}),
    ]
    for data, weight, attributes in cases:
        for kind in (np.uint8, np.int8):
            x = any_bytes(generator, np.uint8, *data)
            w = any_bytes(generator, kind, *weight)
            for xz, wz in ((None, None), ((), ()), ((1,), (weight[0],)), (None, (weight[0],))):
                zeros = (None if xz is None else any_bytes(generator, np.uint8, *xz),
                         None if wz is None else any_bytes(generator, kind, *wz))
                constant = [(0, 1, 1, 1), (0, 1, 0, 1)][len(data) % 2]
                check_sums(f"ConvInteger {data} {weight} {kind.__name__} {xz} {wz}", folder,
                           "ConvInteger", x, w, zeros, constant, attributes)


# --------------------------------------------------------------------------------------
# Functions and subgraphs
# --------------------------------------------------------------------------------------


def with_constant_nodes(model):
    """(nodes, initializers that became Constant nodes among them)."""
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor)
             for tensor in model.graph.initializer]
    return nodes + list(model.graph.node)


def inner_models():
    """One model of each kind of node, with one input and one result."""
    yield dequantize_model(TensorProto.INT4, "blocked", True, 32, 8)
    yield dequantize_model(TensorProto.INT8, "axis", False, 32, 8, axis=1)
    yield nbits_model(4, 32, "packed", 64, 8, extra={"accuracy_level": 1})
    yield nbits_model(8, 16, "none", 33, 3, bias=True, extra={"accuracy_level": 1})
    yield bnb4_model(1, 64, 4, 16)
    yield gather_model(4, TensorProto.UINT8, True, 9, 48, 16)


def as_function(model):
    """`model` as a call of a function that holds all of it."""
    imports = list(model.opset_import)
    inner = helper.make_function(
        "local", "Whole", [i.name for i in model.graph.input],
        [o.name for o in model.graph.output], with_constant_nodes(model), imports)
    call = helper.make_node("Whole", list(inner.input), list(inner.output), domain="local")
    graph = helper.make_graph([call], "graph", model.graph.input, model.graph.output)
    return helper.make_model(graph, opset_imports=[*imports, helper.make_opsetid("local", 1)],
                             ir_version=RUNTIME_IR, functions=[inner])


def as_branch(model, constants):
    """`model` in a branch of an If."""
    output = model.graph.output[0]
    sizes = [f"size{i}" for i in range(len(output.type.tensor_type.shape.dim))]
    result = helper.make_tensor_value_info("result", output.type.tensor_type.elem_type, sizes)
    nodes = with_constant_nodes(model) if constants else list(model.graph.node)
    tensors = [] if constants else list(model.graph.initializer)
    then = helper.make_graph(nodes, "then", [], [output], tensors)
    zero = helper.make_tensor("zero", output.type.tensor_type.elem_type, [1] * len(sizes), [0])
    other = helper.make_graph([helper.make_node("Constant", [], ["none"], value=zero)], "else",
                              [], [helper.make_tensor_value_info(
                                  "none", output.type.tensor_type.elem_type, sizes)])
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    node = helper.make_node("If", ["flag"], ["result"], then_branch=then, else_branch=other)
    graph = helper.make_graph([node], "graph", [*model.graph.input, flag], [result])
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=RUNTIME_IR)


def test_nested(folder):
    for index, model in enumerate(inner_models()):
        kinds = " and ".join(node.op_type for node in model.graph.node)
        check_round_trip(f"{kinds} in a function", as_function(model), folder,
                         ["nibble.assemble"])
        text, _ = raised_text(as_function(model), folder)
        checks.check("nibble.kept" not in text, f"{kinds} in a function: {text[:3000]}")
        check_round_trip(f"{kinds} in a branch", as_branch(model, index % 2 == 0), folder,
                         ["nibble.assemble"])


# --------------------------------------------------------------------------------------
# ONNX Runtime's own quantizers
# --------------------------------------------------------------------------------------


def float_model():
    """A small network: two convolutions and two linear layers."""
    generator = np.random.default_rng(11)

    def constant(name, *shape):
        values = generator.standard_normal(shape).astype(np.float32) * 0.2
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[2, 2],
                         strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], name="conv2"),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("Flatten", ["r2"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["g"], name="fc1", transB=1),
        helper.make_node("Relu", ["g"], ["r3"], name="relu3"),
        helper.make_node("MatMul", ["r3", "w4"], ["m"], name="fc2"),
        helper.make_node("Add", ["m", "b4"], ["y"], name="fc2_bias"),
    ]
    initializers = [
        constant("w1", 8, 3, 3, 3), constant("b1", 8), constant("w2", 6, 8, 3, 3),
        constant("b2", 6), constant("w3", 32, 24), constant("b3", 32), constant("w4", 32, 10),
        constant("b4", 10),
    ]
    model = model_of(nodes, [("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
                     [("y", TensorProto.FLOAT, ["batch", 10])], initializers)
    model.ir_version = 10
    return onnx.shape_inference.infer_shapes(model)


class Calibration:
    def __init__(self):
        generator = np.random.default_rng(12)
        self.data = [{"x": generator.standard_normal((2, 3, 8, 8)).astype(np.float32)}
                     for _ in range(3)]

    def get_next(self):
        return self.data.pop() if self.data else None


def check_dynamic(name, path, folder):
    """All four products of a model are read as products of quantized tensors, come back
    as they were, and mean what ONNX Runtime computes."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    text, complaint = raised_text(model, folder)
    if not checks.check(text is not None, f"{name}: {complaint}"):
        return
    checks.check("nibble.kept" not in text, f"{name}: {text[:1500]}")
    products = [line for line in text.splitlines()
                if 'onnx.node "MatMul"' in line or 'onnx.node "Conv"' in line]
    checks.check(len(products) == 4, f"{name}: {len(products)} products")
    check_round_trip(name, model, folder, ["nibble.quantize_dynamic"])
    check_meaning(name, model, folder, 1e-5)
    # Native code must not quantize the activations a second time.
    feeds = feeds_of(model)
    np.savez(folder / "inputs.npz", **feeds)
    support.must_run(support.tool("nibble"), "run", path, "--inputs", folder / "inputs.npz",
                     "--outputs", folder / "outputs.npz", "--no-cache", "--quiet")
    expected = session(model, optimized=False).run(None, feeds)[0]
    found = np.load(folder / "outputs.npz")["y"]
    error = np.abs(found - expected).max() / np.abs(expected).max()
    checks.check(error <= 1e-5, f"{name}: native code is off by {error:.3g}")


def test_runtime_quantizers(folder):
    from onnxruntime import quantization
    from onnxruntime.quantization import QuantFormat, QuantType
    from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer

    source, target = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(float_model(), source)

    def check(name, raises):
        check_round_trip(name, onnx.load(target), folder, raises)

    for per_channel in (False, True):
        quantization.quantize_dynamic(source, target, per_channel=per_channel)
        check(f"quantize_dynamic {per_channel}", ["nibble.quantize_dynamic"])
        for weight in (QuantType.QInt8, QuantType.QUInt8):
            quantization.quantize_dynamic(
                source, target, per_channel=per_channel, weight_type=weight)
            check_dynamic(f"quantize_dynamic {weight} {per_channel}", target, folder)
        for quantizer_format in (QuantFormat.QDQ, QuantFormat.QOperator):
            for activation, weight in ((QuantType.QUInt8, QuantType.QInt8),
                                       (QuantType.QInt8, QuantType.QInt8),
                                       (QuantType.QUInt16, QuantType.QInt16)):
                is_qdq = quantizer_format == QuantFormat.QDQ
                if not is_qdq and activation == QuantType.QUInt16:
                    continue
                quantization.quantize_static(
                    source, target, Calibration(), quant_format=quantizer_format,
                    per_channel=per_channel, activation_type=activation, weight_type=weight)
                raises = ["nibble.quantize "]
                raises += ["nibble.assemble", "nibble.dequantize" if is_qdq else "QLinearConv"]
                check(f"quantize_static {quantizer_format} {activation} {per_channel}", raises)
    for kind in (0, 1):
        quantizer = MatMulBnb4Quantizer(onnx.load(source), kind, 16)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))
        check(f"MatMulBnb4Quantizer {kind}", [("fp4", "nf4")[kind]])


def test_runtime_block_quantizer(folder):
    try:
        from onnxruntime.quantization.matmul_nbits_quantizer import (
            DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer)
    except ImportError as error:
        print(f"not checked: ONNX Runtime's MatMulNBitsQuantizer: {error}")
        return
    from onnxruntime.quantization import QuantFormat

    source, target = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(float_model(), source)
    for quantizer_format in (QuantFormat.QDQ, QuantFormat.QOperator):
        for symmetric in (False, True):
            for bits in (4, 8):
                config = DefaultWeightOnlyQuantConfig(
                    block_size=16, is_symmetric=symmetric, accuracy_level=1, bits=bits,
                    quant_format=quantizer_format)
                name = f"MatMulNBitsQuantizer {quantizer_format} {symmetric} {bits}"
                if bits == 8 and quantizer_format == QuantFormat.QDQ:
                    continue  # ONNX Runtime has no such pair
                quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
                quantizer.process()
                quantizer.model.save_model_to_file(str(target))
                check_round_trip(name, onnx.load(target), folder, [f"{bits}, block = ["])


# --------------------------------------------------------------------------------------
# ONNX's backend cases
# --------------------------------------------------------------------------------------

CASES = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger",
         "ConvInteger", "QLinearMatMul", "QLinearConv")


def with_constants(case, kept_inputs):
    """The case with its inputs as initializers, but for the first `kept_inputs`."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    values = case.data_sets[0][0]
    inputs = list(model.graph.input)
    for value, data in list(zip(inputs, values))[kept_inputs:]:
        tensor = data if isinstance(data, TensorProto) else numpy_helper.from_array(data)
        tensor = onnx.TensorProto.FromString(tensor.SerializeToString())
        tensor.name = value.name
        model.graph.initializer.append(tensor)
        model.graph.input.remove(value)
    return model


def test_backend_cases(folder):
    from onnx.backend.test.loader import load_model_tests  # noqa: F401
    from onnx.backend.test.case.node import collect_testcases

    held = collections.Counter()
    for case in collect_testcases(None):
        model = case.model
        kinds = {node.op_type for node in model.graph.node}
        if model.graph.node and not kinds & set(CASES):
            continue
        for kept in range(3):
            variant = model if kept == 2 else with_constants(case, kept)
            text, complaint = raised_text(variant, folder)
            if not checks.check(text is not None, f"{case.name}: {complaint}"):
                continue
            held[f"{'kept' if 'nibble.kept' in text else 'read'} with {kept} inputs"] += 1
            check_round_trip(f"{case.name}, {kept} inputs", variant, folder)
    print(dict(sorted(held.items())))
    checks.check(held["read with 1 inputs"] > 20, f"too few backend cases are read: {held}")


# --------------------------------------------------------------------------------------
# Between formats
# --------------------------------------------------------------------------------------


def weight_numbers(model):
    """(codes [N, K], scales, zero points) of the only weight, by the specifications."""
    stored = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "MatMulNBits":
            bits, k, n = attributes["bits"], attributes["K"], attributes["N"]
            blocks = -(-k // attributes["block_size"])

            def unpack(name, count):
                data = np.frombuffer(stored[name].raw_data, np.uint8).reshape(n, -1, 1)
                shifts = np.arange(0, 8, bits, dtype=np.uint8)
                return ((data >> shifts) & (2**bits - 1)).reshape(n, -1)[:, :count]

            scales = numpy_helper.to_array(stored[node.input[2]]).reshape(n, -1)
            zeros = (unpack(node.input[3], blocks) if len(node.input) > 3 and node.input[3]
                     else np.full((n, blocks), 2 ** (bits - 1)))
            return unpack(node.input[1], k), scales, zeros
        if node.op_type == "DequantizeLinear":
            parts = [numpy_helper.to_array(stored[name]) for name in node.input]
            axis = attributes["axis"]
            parts = [part if axis == 1 else part.T for part in parts]
            n = len(parts[0])
            return [part.astype(np.float32).reshape(n, -1) for part in parts]
    return None


def test_between_formats(folder):
    for bits in (2, 4, 8):
        for zeros in ("none", "packed"):
            for k, n, block in ((128, 8, 32), (67, 5, 16), (33, 4, 32)):
                name = f"{bits} bits, zeros {zeros}, {k}x{n} in blocks of {block}"
                model = nbits_model(bits, block, zeros, k, n, True, extra={"accuracy_level": 1})
                qdq, complaint = convert(model, folder, IN, f"{OUT}=format=qdq")
                if not checks.check(qdq is not None, f"{name}: {complaint}"):
                    continue
                kinds = [node.op_type for node in qdq.graph.node]
                checks.check("MatMulNBits" not in kinds, f"{name}: to qdq gives {kinds}")
                onnx.checker.check_model(qdq)
                back, complaint = convert(
                    qdq, folder, IN, f"{OUT}=format=matmulnbits", form="mlirbc")
                if not checks.check(back is not None, f"{name}: {complaint}"):
                    continue
                kinds = [node.op_type for node in back.graph.node]
                checks.check("MatMulNBits" in kinds, f"{name}: back gives {kinds}")
                numbers = [weight_numbers(m) for m in (model, qdq, back)]
                for part, *values in zip(("codes", "scales", "zeros"), *numbers):
                    for value in values[1:]:
                        same = np.array_equal(values[0].astype(np.float32),
                                              value.astype(np.float32))
                        checks.check(same, f"{name}: {part} changed")
                check_product(name, model, back)


def check_product(name, model, other):
    feeds = feeds_of(model)
    expected = session(model).run(None, feeds)[0]
    found = session(other).run(None, feeds)[0]
    error = np.abs(expected - found).max() / np.abs(expected).max()
    checks.check(error <= 1e-6, f"{name}: outputs differ by {error:.2g}")


# --------------------------------------------------------------------------------------
# The meaning of the nibble form
# --------------------------------------------------------------------------------------


def check_meaning(name, model, folder, tolerance):
    """What was read computes what the file says: the reference lowering of the nibble
    form gives ONNX Runtime's outputs. `tolerance` is relative; for codes, a step."""
    source, raised = folder / "meaning.onnx", folder / "meaning.mlir"
    onnx.save(model, source)
    support.must_run(OPT, source, IN, "-o", raised)
    feeds = feeds_of(model)
    for index, value in enumerate(feeds.values()):
        tensor = numpy_helper.from_array(value)
        (folder / f"input_{index}.pb").write_bytes(tensor.SerializeToString())
    done = support.run(support.tool("nibble-run-reference"), raised, "--inputs", folder,
                       "--outputs", folder)
    if not checks.check(done.code == 0, f"{name}: {str(done)[:1500]}"):
        return
    # Optimized, it computes Q/DQ with activations in 8 bits.
    expected = session(model, optimized=False).run(None, feeds)
    for index, values in enumerate(expected):
        tensor = onnx.load_tensor(folder / f"output_{index}.pb")
        found = numpy_helper.to_array(tensor).astype(np.float64)
        values = values.astype(np.float64)
        error = np.abs(found - values).max()
        if np.issubdtype(expected[index].dtype, np.floating):
            error /= np.abs(values).max()
        checks.check(error <= tolerance, f"{name}: output {index} is off by {error:.3g}")


def qlinear_model(kind, per_channel):
    """QLinearConv or QLinearMatMul, with one scale or one for each channel."""
    generator = np.random.default_rng(21)
    conv = kind == "QLinearConv"
    shape = [4, 3, 3, 3] if conv else [27, 4]
    scales = scales_of(generator, TensorProto.FLOAT, [4])
    data = random_bytes(generator, 108).tobytes()
    initializers = [
        numpy_helper.from_array(np.float32(0.02), "xs"),
        numpy_helper.from_array(np.uint8(120), "xz"),
        raw_tensor("w", TensorProto.INT8, shape, data),
        numpy_helper.from_array(scales if per_channel else scales[0], "ws"),
        numpy_helper.from_array(np.zeros([4] if per_channel else [], np.int8), "wz"),
        numpy_helper.from_array(np.float32(0.5), "ys"),
        numpy_helper.from_array(np.uint8(100), "yz"),
    ]
    inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    if conv:
        bias = generator.integers(-999, 999, 4).astype(np.int32)
        initializers.append(numpy_helper.from_array(bias, "bias"))
        node = helper.make_node(kind, [*inputs, "bias"], ["y"], pads=[1, 1, 1, 1])
        x, y = [1, 3, 6, 6], [1, 4, 6, 6]
    else:
        node = helper.make_node(kind, inputs, ["y"])
        x, y = [5, 27], [5, 4]
    return model_of([node], [("x", TensorProto.UINT8, x)], [("y", TensorProto.UINT8, y)],
                    initializers)


def test_qlinear(folder):
    """All mixes of bytes, scales for rows, columns and channels, and batches: read, written
    back, and within a code of what ONNX Runtime computes, where it takes the form."""
    generator = np.random.default_rng(22)

    def tensor(kind, scales, *shape):
        codes = any_bytes(generator, kind, *shape)
        scale = generator.uniform(0.01, 0.02, scales).astype(np.float32)
        return [codes, scale, any_bytes(generator, kind, *scales)]

    forms = [(left, right, a, b) for left, right in (
        ((5, 8), (8, 3)), ((2, 5, 8), (8, 3)), ((2, 5, 8), (2, 8, 3)))
        for a, b in ((np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8))]
    for index, (left, right, a, b) in enumerate(forms):
        for rows, columns in (((), ()), ((1,), (right[-1],)), ((left[-2],), ())):
            y = (np.uint8, np.int8)[index % 2]
            arrays = [*tensor(a, rows, *left), *tensor(b, columns, *right), *tensor(y, ())[1:]]
            name = f"QLinearMatMul {left} {right} {a.__name__} {b.__name__} {rows} {columns}"
            check_qlinear(name, folder, "QLinearMatMul", arrays, len(left), {})
    for group in (1, 2):
        for channels in ((), (4,)):
            for a, b in ((np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)):
                bias = generator.integers(-999, 999, 4).astype(np.int32)
                arrays = [*tensor(a, (), 1, 4, 6, 5), *tensor(b, channels, 4, 4 // group, 3, 2),
                          *tensor(a, ())[1:], *([bias] if group == 2 else [])]
                if len(channels):  # ONNX Runtime takes no others
                    arrays[5][:] = arrays[5][0]
                name = f"QLinearConv {group} {channels} {a.__name__} {b.__name__}"
                attributes = {"group": group, "pads": [1, 0, 2, 1], "strides": [2, 1]}
                check_qlinear(name, folder, "QLinearConv", arrays, 4, attributes)


def check_qlinear(name, folder, kind, arrays, rank, attributes):
    names = ["a", "as", "az", "b", "bs", "bz", "ys", "yz", "bias"][:len(arrays)]
    tensors = [numpy_helper.from_array(array, n) for array, n in zip(arrays, names)][1:]
    node = helper.make_node(kind, names, ["y"], name="product", **attributes)
    model = model_of([node], [("a", BYTES[arrays[0].dtype.type], arrays[0].shape)],
                     [("y", BYTES[arrays[7].dtype.type], [f"size{i}" for i in range(rank)])],
                     tensors)
    check_round_trip(name, model, folder, ["nibble.quantize "])
    text, _ = raised_text(model, folder)
    checks.check("nibble.kept" not in text, f"{name}: {text[:1500]}")
    try:
        session(model, optimized=False).run(None, feeds_of(model))
    except Exception:
        counts[f"{kind} not run by ONNX Runtime"] += 1
    else:
        check_meaning(name, model, folder, 1)


def test_meaning(folder):
    for bits in (2, 4, 8):
        for zeros in ("none", "packed") + (() if bits == 8 else ("float",)):
            for k, n, block in ((64, 6, 32), (67, 5, 16)):
                model = nbits_model(bits, block, zeros, k, n, True, extra={"accuracy_level": 1})
                name = f"meaning of MatMulNBits, {bits} bits, zeros {zeros}, {k}x{n}"
                check_meaning(name, model, folder, 1e-5)
    for zeros in (False, True):
        for bits, storage in ((4, TensorProto.UINT8), (8, TensorProto.UINT8),
                              (4, TensorProto.UINT4), (4, TensorProto.INT4)):
            model = gather_model(bits, storage, zeros, 9, 48, 16)
            check_meaning(f"meaning of GatherBlockQuantized {storage} {zeros}", model, folder, 1e-6)
    for kind in (0, 1):
        for k, n, block in ((96, 5, 32), (64, 3, 16)):
            check_meaning(f"meaning of MatMulBnb4 {kind}", bnb4_model(kind, k, n, block), folder,
                          1e-5)
    for data_type in (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4):
        for granularity in ("tensor", "axis", "blocked"):
            model = dequantize_model(data_type, granularity, True, 37, 5, axis=1)
            name = f"meaning of DequantizeLinear {data_type} {granularity}"
            check_meaning(name, model, folder, 1e-5)
    for per_channel in (False, True):
        for kind in ("QLinearConv", "QLinearMatMul"):
            model = qlinear_model(kind, per_channel)
            check_round_trip(f"{kind} {per_channel}", model, folder, ["nibble.quantize"])
        check_meaning(f"meaning of QLinearMatMul {per_channel}", model, folder, 1)


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
