# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime, ml_dtypes
"""Runs whole models through the reference lowering, against ONNX Runtime and NumPy in
double precision: products with dequantized weights of every integer storage that ONNX
has, a small network with dynamic sizes, bad input, and the demo's language model."""

import pathlib

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import support

# Storage: (NumPy type, smallest and largest code).
STORAGES = {
    "int2": (ml_dtypes.int2, -2, 1),
    "uint2": (ml_dtypes.uint2, 0, 3),
    "int4": (ml_dtypes.int4, -8, 7),
    "uint4": (ml_dtypes.uint4, 0, 15),
    "int8": (np.int8, -128, 127),
    "uint8": (np.uint8, 0, 255),
}


def execute(folder, model, inputs):
    """The outputs of the reference lowering, or (None, what it said)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    if isinstance(model, onnx.ModelProto):
        path.write_bytes(model.SerializeToString())
    else:
        path = model
    given, made = folder / "in", folder / "out"
    given.mkdir(exist_ok=True)
    for index, array in enumerate(inputs):
        (given / f"input_{index}.pb").write_bytes(
            numpy_helper.from_array(array).SerializeToString())
    done = support.run(support.tool("nibble-run-reference"), path, "--inputs", given,
                       "--outputs", made, timeout=900)
    if done.code:
        return None, done
    return [numpy_helper.to_array(onnx.load_tensor(str(file)))
            for file in sorted(made.glob("output_*.pb"))], done


def run_onnxruntime(model, inputs):
    """ONNX Runtime as the model stands: without its own fusions of dequantize and
    matmul, which compute in int8 by default."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = onnxruntime.InferenceSession(source, options,
                                           providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs)))


def make_model(nodes, inputs, outputs, initializers, opset=25):
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)],
                             ir_version=12)


def check_products(checks, folder, rng):
    """x · dequantize(w): per tensor, per column and in blocks with a short last one."""
    for name, (kind, low, high) in STORAGES.items():
        for block, symmetric, (k, n) in [
            (0, True, (64, 24)), (None, False, (33, 7)), (16, True, (64, 24)),
            (32, False, (96, 5)), (16, False, (37, 3)), (32, True, (17, 9)),
        ]:
            codes = rng.integers(low, high + 1, (k, n))
            grid = {0: (), None: (n,)}.get(block, (-(-k // (block or 1)), n))
            scales = (rng.random(grid) + 0.1).astype(np.float32)
            zeros = np.zeros(grid, int) if symmetric else rng.integers(low, high + 1, grid)
            attributes = {"axis": 1 if block is None else 0}
            if block:
                attributes["block_size"] = block
            initializers = [numpy_helper.from_array(codes.astype(kind), "w"),
                            numpy_helper.from_array(np.asarray(scales), "s")]
            names = ["w", "s"]
            if not symmetric:
                initializers.append(
                    numpy_helper.from_array(np.asarray(zeros).astype(kind), "z"))
                names.append("z")
            model = make_model(
                [helper.make_node("DequantizeLinear", names, ["d"], **attributes),
                 helper.make_node("MatMul", ["x", "d"], ["y"])],
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", k])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", n])],
                initializers)
            x = rng.standard_normal((3, k)).astype(np.float32)
            row = np.arange(k) // block if block else np.zeros(k, int)
            if block:
                scales, zeros = scales[row], zeros[row]
            weight = (codes - zeros) * scales.astype(np.float64)
            exact = x.astype(np.float64) @ weight
            # Spec S12: every order of summation stays within this of the exact sum.
            gamma = k * 2.0**-23 / (1 - k * 2.0**-23)
            bound = gamma * (np.abs(x).astype(np.float64) @ np.abs(weight))
            # (q - z) · s is rounded to f32 before it is multiplied.
            bound += 2.0**-24 * (np.abs(x).astype(np.float64) @ np.abs(weight))
            label = f"{name} block {block} symmetric {symmetric} {k}x{n}"
            results, said = execute(folder / label.replace(" ", "_"), model, [x])
            if not checks.check(results is not None, lambda: f"{label}: {said}"):
                continue
            error = np.abs(results[0] - exact)
            checks.check((error <= bound).all(),
                         lambda: f"{label}: {error.max()} beside NumPy in f64")
            if block is None or block == 0 or k % block == 0:
                try:
                    peer = run_onnxruntime(model, [x])[0]
                except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
                    continue  # ONNX Runtime has no kernel for 2 bits
                error = np.abs(results[0].astype(np.float64) - peer)
                checks.check((error <= 2 * bound).all(),
                             lambda: f"{label}: {error.max()} beside ONNX Runtime")


def check_network(checks, folder, rng):
    """Two layers with an activation and a softmax, for any number of rows, also none."""
    arrays = {"w1": rng.standard_normal((20, 32)), "b1": rng.standard_normal(32),
              "w2": rng.standard_normal((7, 32)), "b2": rng.standard_normal(7)}
    model = make_model(
        [helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
         helper.make_node("Gelu", ["h"], ["g"]),
         helper.make_node("Gemm", ["g", "w2", "b2"], ["l"], transB=1, alpha=0.5),
         helper.make_node("Softmax", ["l"], ["p"]),
         helper.make_node("ArgMax", ["p"], ["c"], axis=1, keepdims=0)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 20])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", 7]),
         helper.make_tensor_value_info("c", TensorProto.INT64, ["rows"])],
        [numpy_helper.from_array(array.astype(np.float32), name)
         for name, array in arrays.items()], opset=21)
    for rows in (1, 5, 0):
        x = rng.standard_normal((rows, 20)).astype(np.float32)
        results, said = execute(folder / f"network_{rows}", model, [x])
        if not checks.check(results is not None, said):
            continue
        peers = run_onnxruntime(model, [x])
        checks.check(np.allclose(results[0], peers[0], rtol=1e-4, atol=1e-6),
                     f"network of {rows} rows: {results[0]} for {peers[0]}")
        checks.check(np.array_equal(results[1], peers[1]), f"classes of {rows} rows")


def check_bad_input(checks, folder):
    """What does not fit is an error that says why; nothing is written."""
    model = make_model(
        [helper.make_node("Add", ["x", "y"], ["z"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
         helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3])], [], opset=21)
    ones = np.ones((2, 3), np.float32)
    for label, inputs, reason in [
        ("names", [ones, np.ones((4, 3), np.float32)], "size 4 in dimension 0, not 2"),
        ("sizes", [ones[:, :2], ones[:, :2]], "size 2 in dimension 1, not 3"),
        ("rank", [ones[0], ones], "has 1 dimensions, not 2"),
        ("type", [ones.astype(np.float64), ones], "elements of type f64, not f32"),
        ("missing", [ones], "input_1.pb"),
    ]:
        results, said = execute(folder / label, model, inputs)
        checks.check(results is None and said.code == 1 and reason in said.stderr,
                     f"{label}: expected '{reason}': {said}")
        checks.check(not (folder / label / "out").exists(), f"{label}: wrote something")
    unknown = make_model([helper.make_node("Frobnicate", ["x"], ["z"], name="odd")],
                         model.graph.input[:1], model.graph.output, [], opset=21)
    _, said = execute(folder / "unknown", unknown, [ones])
    checks.check(said.code == 1 and "Frobnicate ('odd')" in said.stderr, said)


def check_demo(checks, folder):
    """Logits of the demo's model beside ONNX Runtime's."""
    path, reason = support.demo_model()
    if path is None:
        print(f"without the demo's model: {reason}")
        return
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 49152, (1, 24))
    results, said = execute(folder / "demo", path, [ids])
    if not checks.check(results is not None, said):
        return
    peer = run_onnxruntime(path, [ids])[0]
    error = np.abs(results[0] - peer).max()
    print(f"demo model: logits to {np.abs(peer).max():.1f}, at most {error:.1e} apart, "
          f"{said.seconds:.0f} s")
    checks.check(np.allclose(results[0], peer, rtol=1e-4, atol=1e-3),
                 f"demo model: {error} beside ONNX Runtime")
    checks.check((results[0].argmax(-1) == peer.argmax(-1)).all(), "the demo's next tokens")


def main():
    checks = support.Checks()
    rng = np.random.default_rng(7)
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        check_products(checks, folder, rng)
        check_network(checks, folder, rng)
        check_bad_input(checks, folder)
        check_demo(checks, folder)
    checks.finish()


if __name__ == "__main__":
    main()
