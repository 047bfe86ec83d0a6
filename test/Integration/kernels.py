# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Kernels of every format and target row that this machine can run, over odd sizes.

Float compute is compared with ONNX Runtime's MatMulNBits and MatMulBnb4 in f32, integer
compute with what docs/Spec.md S13 says, written in NumPy in double precision. The result's place is filled
with NaN before, and memory behind it must stay as it was.
"""

import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import compiled
import support

ROWS = ("x86-64", "x86-64-v3", "x86-64-v3+avxvnni", "x86-64-v4", "x86-64-v4+vnni")
# Rows of activations: each size of a block, with and without a rest, and each regime.
SIZES = (1, 2, 3, 4, 5, 8, 15, 17, 33, 65, 131)
# Inputs, outputs, bits, group, asymmetric.
FORMATS = [(256, 70, 4, 128, True), (200, 64, 4, 32, True), (130, 1, 4, 32, False),
           (96, 129, 4, 16, True), (33, 63, 8, 32, True), (256, 65, 8, 128, False),
           (260, 66, 2, 64, True), (128, 127, 2, 128, False), (384, 190, 4, 256, True)]

# Inputs, outputs, code book, block.
BOOKS = [(256, 70, "nf4", 64), (128, 33, "fp4", 32), (96, 129, "nf4", 16)]
# docs/Spec.md S5.
ENTRIES = {
    "nf4": [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
            -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
            0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
            0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
    "fp4": [sign * value / 12 for sign in (1, -1) for value in (0, 0.0625, 8, 12, 4, 6, 2, 3)],
}


def make_weight(random, format):
    inputs, outputs, bits, group, asymmetric = format
    groups = -(-inputs // group)
    weight = {"codes": random.integers(0, 256, (outputs, groups, group * bits // 8), np.uint8),
              "scales": (random.random((outputs, groups), np.float32) + 0.5) / 16}
    if asymmetric:
        weight["zeros"] = random.integers(
            0, 256, (outputs, -(-groups * bits // 8)), np.uint8)
    return weight


def unpack(packed, bits, count):
    """Codes in the low bits first, the last axis unpacked."""
    shifts = np.arange(0, 8, bits)
    codes = (packed[..., None] >> shifts) & ((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count].astype(np.int64)


def make_book_weight(random, format):
    inputs, outputs, _, block = format
    return {"codes": random.integers(0, 256, outputs * inputs // 2, np.uint8),
            "absmax": random.random(outputs * inputs // block, np.float32) + 0.5}


def round_rows(x, group):
    """S13: rows of activations to i8 by groups, [rows, groups, group], in double precision."""
    padded = np.zeros((len(x), -(-x.shape[1] // group) * group), np.float32)
    padded[:, :x.shape[1]] = x
    padded = padded.reshape(len(x), -1, group)
    largest = np.abs(padded).max(axis=2, keepdims=True)
    scales = np.where(largest == 0, np.float32(1), largest / np.float32(127))
    rounded = np.clip(np.rint(padded / scales), -128, 127)
    return rounded * scales.astype(np.float64)


def expected_book(x, weight, format):
    """S13 for a code book: its entries are rounded to integers, too."""
    inputs, outputs, book, block = format
    entries = np.array(ENTRIES[book], np.float32)
    step = np.abs(entries).max() / np.float32(127)
    entries = np.rint(entries / step) * np.float64(step)
    codes = np.stack([weight["codes"] >> 4, weight["codes"] & 15], axis=-1)
    w = entries[codes].reshape(outputs, -1, block)
    w = w * weight["absmax"].reshape(outputs, -1, 1).astype(np.float64)
    return np.einsum("mgk,ngk->mn", round_rows(x, block), w)


def expected_integer(x, weight, format):
    """S13: rows of activations to i8 by groups of inputs, then the product."""
    if isinstance(format[2], str):
        return expected_book(x, weight, format)
    inputs, outputs, bits, group, asymmetric = format
    groups = -(-inputs // group)
    codes = unpack(weight["codes"], bits, group)
    zeros = unpack(weight["zeros"], bits, groups) if asymmetric else 1 << (bits - 1)
    zeros = np.broadcast_to(zeros, (outputs, groups))[..., None]
    w = (codes - zeros) * weight["scales"][..., None].astype(np.float64)
    w.reshape(outputs, -1)[:, inputs:] = 0
    return np.einsum("mgk,ngk->mn", round_rows(x, group), w)


def make_node(i, names, format):
    if isinstance(format[2], str):
        return helper.make_node(
            "MatMulBnb4", [f"x{i}", *names], [f"y{i}"], domain="com.microsoft", K=format[0],
            N=format[1], quant_type=1 if format[2] == "nf4" else 0, block_size=format[3])
    return helper.make_node(
        "MatMulNBits", [f"x{i}", *names], [f"y{i}"], domain="com.microsoft", K=format[0],
        N=format[1], bits=format[2], block_size=format[3], accuracy_level=1)


def make_model(random):
    """One product for each format, each of an input of its own."""
    nodes, initializers, inputs, outputs, weights = [], [], [], [], []
    for i, format in enumerate(FORMATS + BOOKS):
        is_book = isinstance(format[2], str)
        weight = (make_book_weight if is_book else make_weight)(random, format)
        weights.append(weight)
        names = [f"{part}{i}" for part in weight]
        initializers += [numpy_helper.from_array(value.reshape(value.shape if part == "codes"
                                                               else -1), name)
                         for name, (part, value) in zip(names, weight.items())]
        nodes.append(make_node(i, names, format))
        inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT,
                                                    ["m", format[0]]))
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT,
                                                     ["m", format[1]]))
    graph = helper.make_graph(nodes, "kernels", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), weights


def run_guarded(model, arrays, shapes):
    """Runs into arrays of NaN of `shapes` with a margin behind them."""
    margin, guard = 64, np.float32(1e30)
    tensors = (compiled.Tensor * len(arrays))(*map(compiled.to_tensor, arrays))
    places = [np.full(np.prod(shape) + margin, np.nan, np.float32) for shape in shapes]
    results = []
    for place, shape in zip(places, shapes):
        place[-margin:] = guard
        results.append(place[:-margin].reshape(shape))
    outputs = (compiled.Tensor * len(results))(*map(compiled.to_tensor, results))
    model.run_tensors(tensors, outputs)
    untouched = all((place[-margin:] == guard).all() for place in places)
    return results, untouched


def distance(actual, expected):
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)


def load_row(checks, row, folder, path, name, compute="i8"):
    """The model at `path` compiled for `row`; None where this machine cannot run that."""
    library = folder / f"{name}_{ROWS.index(row)}_{compute}.so"
    support.must_run(support.tool("nibble"), "compile", path, "-o", library, "--target", row,
                     "--compute", compute, "--name", name, "--quiet", timeout=300)
    try:
        return compiled.Model(library, name)
    except compiled.ModelError as error:
        checks.check(error.status == compiled.NO_CPU, f"{row}: {error.message}")
        print(f"skipped: this machine has not all of {row}")
        return None


def check_row(checks, row, folder, path, weights, session):
    for compute in ("f32", "i8"):
        model = load_row(checks, row, folder, path, "kernels", compute)
        if not model:
            return
        random = np.random.default_rng(7)
        for rows in SIZES:
            formats = FORMATS + BOOKS
            arrays = [random.standard_normal((rows, f[0]), np.float32) for f in formats]
            # A row of zeros has no largest number.
            arrays[0][rows // 2] = 0
            results, untouched = run_guarded(model, arrays,
                                             [(rows, f[1]) for f in formats])
            checks.check(untouched, f"{row} {compute} {rows} rows: writes behind a result")
            exact = session.run(None, {f"x{i}": x for i, x in enumerate(arrays)})
            for i, (x, result) in enumerate(zip(arrays, results)):
                expected = (expected_integer(x, weights[i], formats[i])
                            if compute == "i8" else exact[i])
                error = distance(result, expected)
                checks.check(error <= 1e-5,
                             f"{row} {compute} {formats[i]} {rows} rows: error {error:.1e}")
        model.close()


def main():
    checks = support.Checks()
    model, weights = make_model(np.random.default_rng(3))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    with support.scratch() as name:
        folder = pathlib.Path(name)
        path = folder / "kernels.onnx"
        onnx.save(model, path)
        for row in ROWS:
            check_row(checks, row, folder, path, weights, session)
    checks.finish()


if __name__ == "__main__":
    main()
