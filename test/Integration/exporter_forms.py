# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Runs what exporters write and no specification asks for, as native code against ONNX
Runtime: shapes that are computed or stated wrongly, dimensions called "?", initializers
shared by Identity, products whose depth only the weight tells, ops of old opsets, and
LSTMs as ONNX Runtime's quantizer leaves them."""

import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

import compiled
import support

RNG = np.random.default_rng(11)
NIBBLE = support.tool("nibble")
node = helper.make_node


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, outputs, constants, opset=17):
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, [
        numpy_helper.from_array(array, name) for name, array in constants.items()])
    onnx.save(helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)],
        ir_version=onnx.helper.find_min_ir_version_for(
            [helper.make_opsetid("", opset)], True)), path)
    return path


def run_onnxruntime(path, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    return dict(zip([output.name for output in session.get_outputs()],
                    session.run(None, inputs)))


def run_nibble(path, inputs):
    given, made = path.with_suffix(".x.npz"), path.with_suffix(".y.npz")
    np.savez(given, **inputs)
    support.must_run(NIBBLE, "run", path, "--inputs", given, "--outputs", made)
    return dict(np.load(made))


def compare(checks, path, inputs, tolerance=1e-5, expected=None):
    expected = expected or run_onnxruntime(path, inputs)
    made = run_nibble(path, inputs)
    for name, wanted in expected.items():
        if not checks.check(made[name].shape == wanted.shape,
                            f"{path.stem}: {name} is {made[name].shape}, not {wanted.shape}"):
            continue
        error = np.linalg.norm(made[name] - wanted) / np.linalg.norm(wanted)
        checks.check(error <= tolerance, f"{path.stem}: {name} is off by {error}")


def check_swapped_reshape(checks, folder):
    """The relative shift of Transformer-XL and Conformers: rows and columns change places,
    and no type says so."""
    path = save(folder / "swapped.onnx", [
        node("Shape", ["x"], ["sizes"]),
        node("Gather", ["sizes", "order"], ["swapped"]),
        node("Reshape", ["x", "swapped"], ["y"]),
    ], [value("x", ["a", "b", "c"])], [value("y", None)], {"order": ints(0, 2, 1)})
    for shape in ((2, 3, 5), (1, 4, 4)):
        compare(checks, path, {"x": normal(*shape)})


def check_wrong_output(checks, folder):
    """The stated output has another rank than what is computed."""
    path = save(folder / "stated.onnx", [node("Reshape", ["x", "shape"], ["y"])],
                [value("x", ["n", 6])], [value("y", [1, "n"])], {"shape": ints(-1, 1, 2)})
    inputs = {"x": normal(5, 6)}
    compare(checks, path, inputs)
    result = support.run(NIBBLE, "inspect", path)
    checks.check(result.code == 0, result)


def check_question_marks(checks, folder):
    """Several dimensions called "?" need not be equal."""
    path = save(folder / "unknown.onnx", [node("Relu", ["x"], ["y"])],
                [value("x", ["?", 3, "?", "?"])], [value("y", ["?", 3, "?", "?"])], {})
    compare(checks, path, {"x": normal(1, 3, 4, 7)})


def check_late_shape(checks, folder):
    """A shape whose length is known only once constants are folded (Mod)."""
    path = save(folder / "late.onnx", [
        node("Mod", ["two", "three"], ["axis"]),
        node("Reshape", ["axis", "one"], ["end"]),
        node("Shape", ["x"], ["sizes"]),
        node("Slice", ["sizes", "zero", "end"], ["outer"]),
        node("Concat", ["outer", "parts"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"]),
    ], [value("x", ["a", "b", 12])], [value("y", ["a", "b", 3, 4])],
        {"two": np.int64(2), "three": np.int64(3), "one": ints(1), "zero": ints(0),
         "parts": ints(3, 4)})
    compare(checks, path, {"x": normal(2, 5, 12)})


def check_shared_weights(checks, folder):
    """Two layers share an initializer by an Identity: it is quantized and stored once."""
    path = save(folder / "shared.onnx", [
        node("Identity", ["w"], ["again"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("MatMul", ["h", "again"], ["y"]),
    ], [value("x", ["n", 64])], [value("y", ["n", 64])], {"w": normal(64, 64) / 8})
    quantized = folder / "shared.q.onnx"
    support.must_run(NIBBLE, "quantize", path, "-o", quantized, "--scheme", "w8c",
                     "--format", "qdq")
    model = onnx.load(quantized)
    codes = [t for t in model.graph.initializer if t.data_type in
             (TensorProto.INT8, TensorProto.UINT8) and list(t.dims) == [64, 64]]
    checks.check(len(codes) == 1 and not any(
        t.data_type == TensorProto.FLOAT and list(t.dims) == [64, 64]
        for t in model.graph.initializer), "the shared weight is not stored once, as codes")
    inputs = {"x": normal(3, 64)}
    compare(checks, quantized, inputs, tolerance=2e-2,
            expected=run_onnxruntime(path, inputs))


def check_depth_of_weight(checks, folder):
    """Attention's output is reshaped to -1: only the weight tells how many inputs its
    product has, and its activations are quantized by the range of each call."""
    path = save(folder / "depth.onnx", [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1, 3]),
        node("Shape", ["t"], ["sizes"]),
        node("Slice", ["sizes", "zero", "two"], ["outer"]),
        node("Concat", ["outer", "rest"], ["shape"], axis=0),
        node("Reshape", ["t", "shape"], ["r"]),
        node("MatMul", ["r", "w"], ["y"]),
    ], [value("x", ["b", "h", "s", "d"])], [value("y", ["b", "s", 48])],
        {"zero": ints(0), "two": ints(2), "rest": ints(-1), "w": normal(64, 48) / 8})
    quantized = folder / "depth.q.onnx"
    support.must_run(NIBBLE, "quantize", path, "-o", quantized, "--scheme", "w8cs",
                     "--activations", "dynamic")
    checks.check(any(n.op_type == "MatMulInteger" for n in onnx.load(quantized).graph.node),
                 "no product in integers")
    for batch, length in ((1, 5), (2, 3)):
        compare(checks, quantized, {"x": normal(batch, 4, length, 16)})


def check_cache(checks, folder):
    """A cache whose heads the new keys get from a Reshape to -1, as GPT-2's do: written in
    place, and read by what follows."""
    path = save(folder / "cache.onnx", [
        node("Reshape", ["x", "heads"], ["split"]),
        node("Transpose", ["split"], ["key"], perm=[0, 2, 1, 3]),
        node("Concat", ["past", "key"], ["present"], axis=-2),
        node("ReduceSum", ["present", "axis"], ["y"], keepdims=0),
    ], [value("x", ["b", "s", 32]), value("past", ["b", 4, "p", 8])],
        [value("y", ["b", 4, 8]), value("present", ["b", 4, "t", 8])],
        {"heads": ints(0, 0, -1, 8), "axis": ints(2)})
    library = folder / "cache.so"
    support.must_run(NIBBLE, "compile", path, "-o", library, "--update-caches")
    inputs = {"x": normal(2, 3, 32), "past": normal(2, 4, 5, 8)}
    expected = run_onnxruntime(path, inputs)
    buffer = np.zeros((2, 4, 9, 8), np.float32)
    buffer[:, :, :5] = inputs["past"]
    model = compiled.Model(library, "cache")
    y, = model.run(inputs["x"], buffer, ints(5))
    model.close()
    for name, made in (("y", y), ("present", buffer[:, :, :8])):
        checks.check(np.allclose(made, expected[name], rtol=1e-5, atol=1e-5),
                     f"cache: {name} differs")


def check_node_names(checks, folder):
    """Nodes called like their outputs, one of which makes way for nodes of the quantizer:
    ONNX Runtime wants every node to have a name of its own."""
    path = save(folder / "names.onnx", [
        node("Conv", ["x", "v"], ["first"], name="first", kernel_shape=[3, 3]),
        node("Relu", ["first"], ["middle"], name="middle"),
        node("Conv", ["middle", "w"], ["y"], name="y", kernel_shape=[1, 1]),
    ], [value("x", ["n", 4, 8, 8])], [value("y", ["n", 4, 6, 6])],
        {"v": normal(8, 4, 3, 3) / 6, "w": normal(4, 8, 1, 1) / 3})
    quantized = folder / "names.q.onnx"
    support.must_run(NIBBLE, "quantize", path, "-o", quantized, "--scheme", "w8cs",
                     "--activations", "u8", "--calib", "random")
    names = [n.name for n in onnx.load(quantized).graph.node]
    checks.check(len(set(names)) == len(names), f"names come twice: {sorted(names)}")
    compare(checks, quantized, {"x": normal(2, 4, 8, 8)}, tolerance=2e-2)


def check_stacks(checks, folder):
    """Weights of three dimensions: experts, and recurrent layers in both directions."""
    experts = save(folder / "experts.onnx", [
        node("MatMul", ["x", "up"], ["a"]), node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "down"], ["y"]),
    ], [value("x", ["n", 64])], [value("y", [3, "n", 64])],
        {"up": normal(3, 64, 96) / 8, "down": normal(3, 96, 64) / 10})
    hidden = 40
    recurrent = save(folder / "recurrent.onnx", [
        node("LSTM", ["x", "w", "r"], ["h"], hidden_size=hidden, direction="bidirectional"),
        node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "shape"], ["joined"]),
        node("GRU", ["joined", "gw", "gr"], ["y"], hidden_size=hidden),
    ], [value("x", ["s", "n", 64])], [value("y", ["s", 1, "n", hidden])],
        {"w": normal(2, 4 * hidden, 64) / 8, "r": normal(2, 4 * hidden, hidden) / 8,
         "gw": normal(1, 3 * hidden, 2 * hidden) / 9, "gr": normal(1, 3 * hidden, hidden) / 7,
         "shape": ints(0, 0, 2 * hidden)})
    for path, shape in ((experts, (5, 64)), (recurrent, (6, 2, 64))):
        for scheme, loss in {"w8c": 1e-2, "w8cs": 2e-2, "w4g32": 0.15, "w8t": 2e-2}.items():
            quantized = folder / f"{path.stem}.{scheme}.onnx"
            support.must_run(NIBBLE, "quantize", path, "-o", quantized, "--scheme", scheme)
            onnx.checker.check_model(onnx.load(quantized), full_check=True)
            left = [t.name for t in onnx.load(quantized).graph.initializer
                    if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 2000]
            checks.check(not left, f"{quantized.name}: {left} stay in float")
            inputs = {"x": normal(*shape)}
            exact, rounded = (run_onnxruntime(p, inputs)["y"] for p in (path, quantized))
            error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
            checks.check(0 < error < loss, f"{quantized.name}: off by {error}")
            compare(checks, quantized, inputs)


def check_branches(checks, folder):
    """Weights inside a branch and behind it, with activations in 8 bits."""
    def branch(name, weights):
        return helper.make_graph(
            [node("MatMul", ["x", name], [f"{name}y"])], name, [], [value(f"{name}y", None)],
            [numpy_helper.from_array(array, key) for key, array in weights.items()])

    path = save(folder / "branches.onnx", [
        node("If", ["c"], ["h"], then_branch=branch("inner", {"inner": normal(32, 32) / 6}),
             else_branch=branch("outer", {})),
        node("MatMul", ["h", "outer"], ["y"]),
    ], [value("x", ["n", 32]), value("c", [], TensorProto.BOOL)], [value("y", ["n", 32])],
        {"outer": normal(32, 32) / 6})
    quantized = folder / "branches.q.onnx"
    support.must_run(NIBBLE, "quantize", path, "-o", quantized, "--scheme", "w8cs",
                     "--activations", "u8", "--calib", "random")
    for taken in (True, False):
        # What a branch reads stays in float; native code rounds it (Spec S13).
        compare(checks, quantized, {"x": normal(3, 32), "c": np.array(taken)}, tolerance=2e-2)


def old_network(folder, opset):
    """A model of opset 9 or 7: Clip, Pad, Slice, Upsample, TopK and a Softmax over three
    dimensions, all with attributes."""
    upsample = node("Upsample", ["r"], ["u"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]) \
        if opset < 9 else node("Upsample", ["r", "scales"], ["u"], mode="nearest")
    return save(folder / f"old{opset}.onnx", [
        node("Conv", ["x", "filter", "bias"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "factor", "bias", "mean", "variance"], ["n"],
             **({"spatial": 1} if opset < 9 else {})),
        node("Clip", ["n"], ["r"], min=0.0, max=6.0),
        upsample,
        node("Pad", ["u"], ["p"], pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5),
        node("Slice", ["p"], ["s"], axes=[2, 3], starts=[1, 0], ends=[9, 8]),
        node("Softmax", ["s"], ["soft"], axis=1),
        node("Dropout", ["soft"], ["d"], ratio=0.4),
        node("ReduceSum", ["d"], ["sum"], axes=[2, 3], keepdims=0),
        node("Gemm", ["sum", "w", "b"], ["y"], transB=1),
        node("TopK", ["y"], ["top", "which"], k=3),
    ], [value("x", ["n", 3, 8, 8])],
        [value("y", ["n", 10]), value("top", ["n", 3]),
         value("which", ["n", 3], TensorProto.INT64)],
        {"filter": normal(8, 3, 3, 3), "bias": normal(8), "factor": normal(8),
         "mean": normal(8), "variance": np.abs(normal(8)) + 1, "w": normal(10, 8),
         "b": normal(10), **({} if opset < 9 else
                             {"scales": np.array([1, 1, 2, 2], np.float32)})},
        opset=opset)


def check_old_opsets(checks, folder):
    """Quantizing to QDQ raises the opset, and nodes keep their meaning."""
    for opset in (7, 9):
        path = old_network(folder, opset)
        inputs = {"x": normal(2, 3, 8, 8)}
        compare(checks, path, inputs)
        for name, options in {"channel": ["--scheme", "w8c", "--format", "qdq"],
                              "group": ["--scheme", "w8g4", "--format", "qdq"]}.items():
            quantized = folder / f"old{opset}.{name}.onnx"
            support.must_run(NIBBLE, "quantize", path, "-o", quantized, *options)
            onnx.checker.check_model(onnx.load(quantized), full_check=True)
            # Native code rounds what it multiplies with codes, too (Spec S13).
            compare(checks, quantized, inputs, tolerance=2e-2)
            # The filter stays in float, so that only the Gemm rounds.
            exact, rounded = (run_onnxruntime(p, inputs)["y"] for p in (path, quantized))
            error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
            checks.check(0 < error < 3e-2, f"{quantized.name}: off by {error}")


def check_quantized_lstm(checks, folder):
    """DynamicQuantizeLSTM: ONNX Runtime also rounds what is multiplied to 8 bits, so that
    the two differ by that."""
    for direction, count in (("forward", 1), ("bidirectional", 2)):
        for per_channel in (False, True):
            hidden, size = 24, 16
            path = save(folder / f"{direction}{per_channel}.onnx", [
                node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "last", "cell"],
                     hidden_size=hidden, direction=direction),
            ], [value("x", ["s", "n", size]), value("h", [count, "n", hidden]),
                value("c", [count, "n", hidden])],
                [value("y", ["s", count, "n", hidden]), value("last", [count, "n", hidden]),
                 value("cell", [count, "n", hidden])],
                {"w": normal(count, 4 * hidden, size) / 4,
                 "r": normal(count, 4 * hidden, hidden) / 5,
                 "b": normal(count, 8 * hidden) / 4})
            quantized = folder / f"{direction}{per_channel}.q.onnx"
            quantize_dynamic(path, quantized, per_channel=per_channel,
                             weight_type=QuantType.QInt8)
            checks.check("DynamicQuantizeLSTM" in
                         [n.op_type for n in onnx.load(quantized).graph.node],
                         "ONNX Runtime wrote no DynamicQuantizeLSTM")
            inputs = {"x": normal(7, 3, size), "h": normal(count, 3, hidden),
                      "c": normal(count, 3, hidden)}
            compare(checks, quantized, inputs, tolerance=2e-2)


def main():
    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        for check in (check_swapped_reshape, check_wrong_output, check_question_marks,
                      check_late_shape, check_shared_weights, check_depth_of_weight,
                      check_cache, check_node_names, check_stacks, check_branches,
                      check_old_opsets, check_quantized_lstm):
            check(checks, folder)
    checks.finish()


if __name__ == "__main__":
    main()
