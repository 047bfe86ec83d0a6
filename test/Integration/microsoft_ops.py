# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime, ml_dtypes
"""Runs ops of ONNX Runtime's own domain through the reference lowering, against ONNX
Runtime: attention with caches and masks, and products with quantized matrices. Sizes are
dynamic: each model's dimensions are names."""

import dataclasses
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import support

RNG = np.random.default_rng(7)


def normal(*shape, kind=np.float32):
    return RNG.standard_normal(shape).astype(kind)


@dataclasses.dataclass
class Case:
    """One node. `inputs`: name to array (None where it is left out), in order."""

    name: str
    op: str
    inputs: dict
    outputs: list
    attributes: dict
    # Inputs that are initializers.
    constants: tuple = ()
    rtol: float = 1e-3
    atol: float = 1e-4
    domain: str = "com.microsoft"
    # Inputs whose sizes are known.
    known: tuple = ()
    # output name to a function that takes what is defined of it
    defined: dict = dataclasses.field(default_factory=dict)


CASES = []


def add(name, op, inputs, outputs, constants=(), rtol=1e-3, atol=1e-4, defined=None,
        **attributes):
    CASES.append(Case(name, op, inputs, outputs, attributes, tuple(constants), rtol, atol,
                      defined=defined or {}))


# ===--- Attention ---===


def rotary_cache(rows, half, kind=np.float32):
    angles = np.outer(np.arange(rows), 1 / 100 ** (np.arange(half) / half))
    return np.cos(angles).astype(kind), np.sin(angles).astype(kind)


def add_group_query(name, batch, sequence, past, heads, key_heads, size, *, rotary=False,
                    packed=False, capacity=None, lengths=None, bias=False, kind=np.float32,
                    sink=False, **attributes):
    """lengths: keys in front of the new ones, for each sequence."""
    lengths = np.full(batch, past) if lengths is None else np.asarray(lengths)
    total = int(lengths.max()) + sequence
    capacity = past if capacity is None else capacity
    inputs = {}
    if packed:
        inputs["query"] = normal(batch, sequence, (heads + 2 * key_heads) * size, kind=kind)
        inputs["key"] = inputs["value"] = None
    else:
        inputs["query"] = normal(batch, sequence, heads * size, kind=kind)
        inputs["key"] = normal(batch, sequence, key_heads * size, kind=kind)
        inputs["value"] = normal(batch, sequence, key_heads * size, kind=kind)
    for part in ("past_key", "past_value"):
        cache = np.zeros((batch, key_heads, capacity, size), kind)
        cache[:, :, :past] = normal(batch, key_heads, past, size, kind=kind)
        inputs[part] = cache
    inputs["seqlens_k"] = (lengths + sequence - 1).astype(np.int32)
    inputs["total_sequence_length"] = np.array(total, np.int32)
    if rotary:
        inputs["cos_cache"], inputs["sin_cache"] = rotary_cache(64, size // 2, kind)
        attributes["do_rotary"] = 1
    if bias or sink:
        for left_out in ("cos_cache", "sin_cache", "position_ids"):
            inputs.setdefault(left_out, None)
    if bias:
        inputs["attention_bias"] = normal(batch, heads, sequence, total, kind=kind)
    if sink:
        inputs.setdefault("attention_bias", None)
        inputs["head_sink"] = normal(heads, kind=kind)

    def of_sequences(present):
        # Behind a sequence's last key nothing is said of the cache.
        return np.concatenate([present[b, :, :lengths[b] + sequence].ravel()
                               for b in range(batch)])

    tolerance = {"rtol": 5e-3, "atol": 5e-3} if kind == np.float16 else {}
    add(f"group query attention: {name}", "GroupQueryAttention", inputs,
        ["output", "present_key", "present_value"],
        constants=("cos_cache", "sin_cache"), num_heads=heads, kv_num_heads=key_heads,
        defined={"present_key": of_sequences, "present_value": of_sequences}, **tolerance,
        **attributes)


add_group_query("prompt", 2, 5, 0, 4, 2, 16)
add_group_query("prompt, rotary", 1, 7, 0, 6, 2, 16, rotary=True)
add_group_query("prompt, packed", 2, 3, 0, 4, 2, 16, packed=True)
add_group_query("prompt, packed, rotary interleaved", 2, 3, 0, 4, 4, 16, packed=True,
                rotary=True, rotary_interleaved=1)
add_group_query("decode", 1, 1, 6, 4, 2, 16)
add_group_query("decode, two sequences, rotary", 2, 1, 6, 4, 2, 16, rotary=True)
add_group_query("decode, sequences of different length", 3, 1, 6, 4, 2, 16, lengths=[6, 2, 4],
                rotary=True)
add_group_query("decode into a cache with room", 2, 1, 6, 4, 2, 16, capacity=12, rotary=True)
add_group_query("several tokens behind a past", 1, 3, 5, 4, 2, 16, rotary=True)
add_group_query("window", 1, 9, 0, 4, 2, 16, local_window_size=3)
add_group_query("window, decode", 1, 1, 9, 4, 2, 16, local_window_size=3)
add_group_query("softcap and scale", 1, 4, 0, 4, 2, 16, softcap=2.0, scale=0.5)
add_group_query("bias", 2, 4, 0, 4, 2, 16, bias=True)
add_group_query("sink", 1, 4, 0, 4, 2, 16, sink=True)
add_group_query("smooth softmax", 1, 4, 0, 4, 2, 16, smooth_softmax=1)
add_group_query("one key head", 1, 4, 0, 4, 1, 16)
add_group_query("half precision", 1, 4, 0, 4, 2, 16, rotary=True, kind=np.float16)


def add_multi_head(name, inputs, outputs=("output",), **attributes):
    add(f"multi-head attention: {name}", "MultiHeadAttention", inputs, list(outputs),
        **{"num_heads": 4, **attributes})


def self_attention(batch=2, sequence=5, keys=None, hidden=32, values=32):
    keys = sequence if keys is None else keys
    return {"query": normal(batch, sequence, hidden), "key": normal(batch, keys, hidden),
            "value": normal(batch, keys, values)}


add_multi_head("plain", self_attention())
add_multi_head("cross, other size of values", self_attention(keys=7, values=48))
add_multi_head("bias", {**self_attention(), "bias": normal(96)})
add_multi_head("scale, causal", self_attention(), scale=0.3, unidirectional=1)
add_multi_head("keys with heads", {"query": normal(2, 5, 32), "key": normal(2, 4, 6, 8),
                                   "value": normal(2, 4, 6, 8)})
add_multi_head("lengths", {**self_attention(), "bias": None,
                           "key_padding_mask": np.array([5, 3], np.int32)})
add_multi_head("padding", {**self_attention(), "bias": None, "key_padding_mask":
                           RNG.integers(0, 2, (2, 5)).astype(np.int32)})
add_multi_head("padding for each query", {
    **self_attention(), "bias": None,
    "key_padding_mask": RNG.integers(0, 2, (2, 5, 5)).astype(np.int32)})
add_multi_head("attention bias", {**self_attention(), "bias": None, "key_padding_mask": None,
                                  "attention_bias": normal(1, 4, 5, 5)})
add_multi_head("past", {**self_attention(), "bias": normal(96), "key_padding_mask": None,
                        "attention_bias": None, "past_key": normal(2, 4, 3, 8),
                        "past_value": normal(2, 4, 3, 8)},
               ["output", "present_key", "present_value"])


def add_packed_attention(name, more=None, outputs=("output",), batch=2, sequence=5,
                         width=(32, 32, 32), **attributes):
    inputs = {"input": normal(batch, sequence, 24), "weights": normal(24, sum(width)) * 0.2,
              "bias": normal(sum(width)), **(more or {})}
    if width != (32, 32, 32):
        attributes["qkv_hidden_sizes"] = list(width)
    add(f"attention: {name}", "Attention", inputs, list(outputs),
        constants=("weights", "bias"), **{"num_heads": 4, **attributes})


add_packed_attention("plain")
add_packed_attention("causal", unidirectional=1, scale=0.4)
add_packed_attention("other size of values", width=(32, 32, 48))
add_packed_attention("lengths", {"mask_index": np.array([4, 5], np.int32)})
add_packed_attention("ends and starts", {"mask_index": np.array([4, 5, 1, 0], np.int32)})
add_packed_attention("padding",
                     {"mask_index": np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], np.int32)})
add_packed_attention("padding for each query", {
    "mask_index": np.maximum(RNG.integers(0, 2, (2, 5, 5)), np.eye(5, dtype=int)).astype(np.int32)})
add_packed_attention("attention bias", {"mask_index": None, "past": None,
                                        "attention_bias": normal(2, 4, 5, 5)})
add_packed_attention("past", {"mask_index": None, "past": normal(2, 2, 4, 3, 8)},
                     ["output", "present"], unidirectional=1)
add_packed_attention("past and padding", {
    "mask_index": np.array([[1] * 7 + [0], [0] + [1] * 7], np.int32),
    "past": normal(2, 2, 4, 3, 8)}, ["output", "present"])


def add_rotary(name, x, positions, **attributes):
    half = attributes.pop("half")
    cosines, sines = rotary_cache(32, half)
    add(f"rotary embedding: {name}", "RotaryEmbedding",
        {"input": x, "position_ids": positions, "cos_cache": cosines, "sin_cache": sines},
        ["output"], constants=("cos_cache", "sin_cache"), **attributes)


POSITIONS = RNG.integers(0, 32, (2, 5)).astype(np.int64)
add_rotary("rank 3", normal(2, 5, 32), POSITIONS, half=4)
add_rotary("rank 4", normal(2, 3, 5, 8), POSITIONS, half=4)
add_rotary("interleaved", normal(2, 3, 5, 8), POSITIONS, half=4, interleaved=1)
add_rotary("offset", normal(2, 5, 32), np.array([3], np.int64), half=4)
add_rotary("part of a head", normal(2, 5, 32), POSITIONS, half=2, num_heads=4,
           rotary_embedding_dim=4)


# ===--- Products with quantized matrices ---===


def pack(codes, bits):
    """Codes packed along the last dimension, the first in the lowest bits."""
    per_byte = 8 // bits
    padded = np.zeros((*codes.shape[:-1], -(-codes.shape[-1] // per_byte) * per_byte), np.uint8)
    padded[..., :codes.shape[-1]] = codes
    parts = padded.reshape(*padded.shape[:-1], -1, per_byte)
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    return np.bitwise_or.reduce(parts << shifts, axis=-1).astype(np.uint8)


def add_bits(name, rows, k, n, block, bits=4, zeros=None, groups=False, bias=False,
             constant=True, kind=np.float32):
    blocks = -(-k // block)
    limit = 1 << bits
    inputs = {"A": normal(2, rows, k, kind=kind),
              "B": pack(RNG.integers(0, limit, (n, blocks, block)).astype(np.uint8), bits),
              "scales": (RNG.random((n, blocks)) * 0.1 + 0.01).astype(kind)}
    if zeros == "packed":
        inputs["zero_points"] = pack(RNG.integers(0, limit, (n, blocks)).astype(np.uint8), bits)
    elif zeros == "float":
        inputs["zero_points"] = (RNG.random((n, blocks)) * limit).astype(kind)
    elif groups or bias:
        inputs["zero_points"] = None
    if groups:
        inputs["g_idx"] = RNG.integers(0, blocks, k).astype(np.int32)
    elif bias:
        inputs["g_idx"] = None
    if bias:
        inputs["bias"] = normal(n, kind=kind)
    add(f"matmul of {bits} bits: {name}", "MatMulNBits", inputs, ["Y"], rtol=2e-3, atol=2e-3,
        constants=("B", "scales", "zero_points", "g_idx") if constant else (),
        K=k, N=n, bits=bits, block_size=block)


for constant in (True, False):
    what = "constant" if constant else "computed"
    add_bits(what, 3, 64, 8, 32, constant=constant)
    add_bits(f"{what}, last block short", 3, 50, 5, 16, zeros="packed", constant=constant)
    add_bits(f"{what}, 8 bits", 1, 64, 8, 32, bits=8, zeros="packed", constant=constant)
    add_bits(f"{what}, zero points of floats", 1, 64, 8, 32, zeros="float", constant=constant)
    add_bits(f"{what}, bias", 1, 64, 8, 32, bias=True, constant=constant)
    add_bits(f"{what}, permuted", 3, 64, 8, 16, groups=True, constant=constant)
    add_bits(f"{what}, 2 bits", 1, 64, 8, 32, bits=2, zeros="packed", constant=constant)

for constant in (True, False):
    for kind in (0, 1):
        add(f"matmul of four-bit floats {kind} {constant}", "MatMulBnb4",
            {"A": normal(3, 64), "B": RNG.integers(0, 256, 64 * 7 // 2).astype(np.uint8),
             "absmax": RNG.random(-(-64 * 7 // 32)).astype(np.float32)}, ["Y"],
            constants=("B", "absmax") if constant else (), K=64, N=7, block_size=32,
            quant_type=kind)
    for bits in (4, 8):
        for zeros in (True, False):
            inputs = {"data": pack(RNG.integers(0, 1 << bits, (9, 64)).astype(np.uint8), bits),
                      "indices": np.array([[0, 8, 3], [-1, 2, -9]], np.int64),
                      "scales": RNG.random((9, 4)).astype(np.float32)}
            if zeros:
                inputs["zero_points"] = pack(
                    RNG.integers(0, 1 << bits, (9, 4)).astype(np.uint8), bits)
            add(f"rows of a table of {bits} bits {zeros} {constant}", "GatherBlockQuantized",
                inputs, ["output"], bits=bits, block_size=16, gather_axis=0, quantize_axis=1,
                constants=("data", "scales", "zero_points") if constant else ())

for columns in (False, True):
    per_column = (6,) if columns else ()
    scale = np.asarray(RNG.random(per_column) * 0.1 + 0.01, np.float32)
    weight = RNG.integers(0, 256, (16, 6)).astype(np.uint8)
    zero = np.asarray(RNG.integers(100, 150, per_column), np.uint8)
    add(f"dynamically quantized product {columns}", "DynamicQuantizeMatMul",
        {"A": normal(2, 3, 16), "B": weight, "b_scale": scale, "b_zero_point": zero,
         "bias": normal(6)}, ["Y"], constants=("B",))
    add(f"dynamically quantized product, signed {columns}", "DynamicQuantizeMatMul",
        {"A": normal(3, 16), "B": (weight.astype(int) - 128).astype(np.int8),
         "b_scale": scale}, ["Y"])
    add(f"product of integers to floats {columns}", "MatMulIntegerToFloat",
        {"A": RNG.integers(0, 256, (2, 3, 16)).astype(np.uint8), "B": weight,
         "a_scale": np.float32(0.03), "b_scale": scale,
         "a_zero_point": np.uint8(120), "b_zero_point": zero, "bias": normal(6)}, ["Y"])


# ===--- Running ---===


def make_model(case):
    inputs, initializers, names = [], [], []
    for name, array in case.inputs.items():
        names.append("" if array is None else name)
        if array is None:
            continue
        if name in case.constants:
            initializers.append(numpy_helper.from_array(np.asarray(array), name))
            continue
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        shape = [f"{name}_{axis}" for axis in range(array.ndim)]
        # What a head's size follows from is never dynamic.
        if name in case.known:
            shape = array.shape
        elif case.domain == "":
            pass
        elif "MatMul" in case.op:
            shape = [*shape[:-1], array.shape[-1]] if name == "A" else array.shape
        elif case.op == "GatherBlockQuantized" and name != "indices":
            shape = array.shape
        elif array.dtype.kind == "f" and array.ndim >= 3:
            shape[-1] = array.shape[-1]
            if array.ndim > 3:
                shape[1:-2] = array.shape[1:-2]
        inputs.append(helper.make_tensor_value_info(name, kind, shape))
    while names and not names[-1]:
        names.pop()
    node = helper.make_node(case.op, names, case.outputs, domain=case.domain,
                            **case.attributes)
    session = [helper.make_empty_tensor_value_info(name) for name in case.outputs]
    graph = helper.make_graph([node], "graph", inputs, session, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21),
                                                    helper.make_opsetid("com.microsoft", 1)],
                              ir_version=10)
    return model


def run_onnxruntime(case, model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    given = {value.name: np.asarray(case.inputs[value.name]) for value in session.get_inputs()}
    return session.run(None, given)


def compare(case, expected, folder):
    for index, (name, wanted) in enumerate(zip(case.outputs, expected)):
        path = folder / f"output_{index}.pb"
        if not path.exists():
            return f"no output {name}"
        actual = numpy_helper.to_array(onnx.load_tensor(str(path)))
        if actual.shape != wanted.shape or actual.dtype != wanted.dtype:
            return f"{name}: {actual.dtype}{actual.shape}, not {wanted.dtype}{wanted.shape}"
        take = case.defined.get(name, lambda array: array)
        try:
            np.testing.assert_allclose(take(actual).astype(float), take(wanted).astype(float),
                                       case.rtol, case.atol)
        except AssertionError as error:
            return f"{name}: {' '.join(str(error).split())[:200]}"
    return ""


def main(cases=None):
    checks = support.Checks()
    with support.scratch() as scratch:
        scratch = pathlib.Path(scratch)
        todo = []
        for index, case in enumerate(cases or CASES):
            model = make_model(case)
            expected = run_onnxruntime(case, model)
            # The outputs' types, which the op's own rule of shapes gave ONNX Runtime.
            for value, array in zip(model.graph.output, expected):
                value.CopyFrom(helper.make_tensor_value_info(
                    value.name, helper.np_dtype_to_tensor_dtype(array.dtype),
                    [None] * array.ndim))
            folder = scratch / f"case_{index}"
            data = folder / "test_data_set_0"
            data.mkdir(parents=True)
            (folder / "model.onnx").write_bytes(model.SerializeToString())
            for position, value in enumerate(model.graph.input):
                (data / f"input_{position}.pb").write_bytes(
                    numpy_helper.from_array(np.asarray(case.inputs[value.name])).SerializeToString())
            todo.append((case, expected, folder))
        for start in range(0, len(todo), 16):
            chunk = todo[start:start + 16]
            done = support.run(support.tool("nibble-run-reference"),
                               *[folder for _, _, folder in chunk], timeout=600)
            checks.check(done.code in (0, 1), done)
            for case, expected, folder in chunk:
                problem = compare(case, expected, folder / "test_data_set_0/actual")
                said = [line for line in done.stderr.splitlines() if f"{folder}/" in line]
                checks.check(not problem, f"{case.name}: {problem} {' '.join(said)[-300:]}")
    checks.finish("cases")


if __name__ == "__main__":
    main()
