# RUN: %python %s
# REQUIRES: numpy, onnx, ml_dtypes
"""Products with weights of f16 and bf16 on every target row that this machine can run, over
odd sizes.

Sums are f32 and rounded once to the narrow type, so results are within half of its last
place of the exact product, computed in NumPy in double precision.
"""

import pathlib

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

import kernels
import support

# Half of the last of 11 and of 8 bits, the first of which is not stored.
KINDS = {"f16": (np.float16, TensorProto.FLOAT16, 2.0 ** -11),
         "bf16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16, 2.0 ** -8)}
# Inputs, outputs.
SHAPES = [(200, 70), (33, 65), (300, 1)]
SIZES = (1, 2, 5, 17, 131)


def make_weight(random, shape, kind):
    """Ordinary numbers, and what conversions treat apart: denormals, zeros, large ones."""
    weight = random.standard_normal(shape).astype(kind)
    flat = weight.reshape(-1)
    flat[:4] = [0, -0.0, 3e-6, -5e-7]
    flat[4:6] = [4000, -6e-8]
    return weight


def make_model(random):
    """Each product of an input of its own, which is cast before and after."""
    nodes, initializers, inputs, outputs, cases = [], [], [], [], []
    for name, (kind, number, _) in KINDS.items():
        for shape in SHAPES:
            i = len(cases)
            weight = make_weight(random, shape, kind)
            cases.append((name, weight))
            initializers.append(helper.make_tensor(f"w{i}", number, shape, weight.tobytes(),
                                                   raw=True))
            nodes += [helper.make_node("Cast", [f"x{i}"], [f"n{i}"], to=number),
                      helper.make_node("MatMul", [f"n{i}", f"w{i}"], [f"m{i}"]),
                      helper.make_node("Cast", [f"m{i}"], [f"y{i}"], to=TensorProto.FLOAT)]
            inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT,
                                                        ["m", shape[0]]))
            outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT,
                                                         ["m", shape[1]]))
    graph = helper.make_graph(nodes, "narrow", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)],
                             ir_version=8), cases


def check_row(checks, row, folder, path, cases):
    model = kernels.load_row(checks, row, folder, path, "narrow")
    if not model:
        return
    random = np.random.default_rng(5)
    for rows in SIZES:
        arrays = [random.standard_normal((rows, len(weight)), np.float32) for _, weight in cases]
        results, untouched = kernels.run_guarded(
            model, arrays, [(rows, weight.shape[1]) for _, weight in cases])
        checks.check(untouched, f"{row} {rows} rows: writes behind a result")
        for x, result, (name, weight) in zip(arrays, results, cases):
            kind, _, half = KINDS[name]
            expected = x.astype(kind).astype(np.float64) @ weight.astype(np.float64)
            error = kernels.distance(result, expected)
            checks.check(error <= half + 1e-6,
                         f"{row} {name} {weight.shape} {rows} rows: error {error:.1e}")
    model.close()


def check_packed(checks, path, cases):
    done = support.must_run(support.tool("nibble"), "compile", path, "--emit", "nibble")
    for name in KINDS:
        count = sum(1 for line in done.stdout.splitlines()
                    if "nibble.packed_matmul" in line and f"x{name}> compute" in line)
        checks.check(count == len(SHAPES), f"{count} products with packed weights of {name}")


def main():
    checks = support.Checks()
    model, cases = make_model(np.random.default_rng(3))
    with support.scratch() as name:
        folder = pathlib.Path(name)
        path = folder / "narrow.onnx"
        onnx.save(model, path)
        check_packed(checks, path, cases)
        for row in kernels.ROWS:
            check_row(checks, row, folder, path, cases)
    checks.finish()


if __name__ == "__main__":
    main()
