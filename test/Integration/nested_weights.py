# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""`nibble quantize` on weights that do not stand in the graph itself: in the bodies of
If, Loop and Scan, as Constant nodes or as initializers, in local functions, as
PyTorch's exporters write them, and among the inputs of the graph. The file must hold the quantized weights and compute
what the original does, within the error of 8 bits; ONNX Runtime runs both.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import support

NIBBLE = support.tool("nibble")
SIZE = 32
FLOAT = TensorProto.FLOAT

checks = support.Checks()
generator = np.random.default_rng(41)


def weight():
    return (generator.standard_normal((SIZE, SIZE)) / 6).astype(np.float32)


def info(name, shape=(3, SIZE), kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, values=None):
    values = weight() if values is None else np.asarray(values)
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))


def body(name, nodes, outputs, inputs=(), initializers=()):
    return helper.make_graph(nodes, name, list(inputs), list(outputs), list(initializers))


def model_of(nodes, initializers=(), functions=(), inputs=(), opset=18):
    graph = helper.make_graph(nodes, "main", [info("x"), *inputs], [info("y", ["rows", "columns"])],
                              list(initializers))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9,
                             functions=list(functions))


def function(name, inputs, outputs, nodes, attributes=(), opset=18):
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, inputs, outputs, nodes, imports, attributes)


def run(path, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options,
                                           providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def all_nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from all_nodes(inner)


def check_quantized(name, model, folder, products, feeds=None, flags=(), functions=()):
    """`products` weights are quantized, and `functions` are left in the file."""
    source, target = folder / "m.onnx", folder / "q.onnx"
    onnx.checker.check_model(model)
    onnx.save(model, source)
    feeds = feeds or {}
    feeds["x"] = generator.standard_normal((3, SIZE)).astype(np.float32)
    expected = run(source, feeds)
    for form, op_type in (("matmulnbits", "MatMulNBits"), ("qdq", "DequantizeLinear")):
        done = support.run(NIBBLE, "quantize", source, "-o", target, "--scheme", "w8g32",
                           "--format", form, "--json", "--quiet", *flags)
        if not checks.check(done.code == 0, f"{name}, {form}: {done}"):
            continue
        report = json.loads(done.stdout)
        quantized = onnx.load(target)
        onnx.checker.check_model(quantized)
        found = sum(node.op_type == op_type for node in all_nodes(quantized.graph))
        checks.check(found == products, f"{name}: {found} {op_type}, not {products}: {report}")
        checks.check(len(report["weights"]) == products, f"{name}: {report['weights']}")
        left = [f.name for f in quantized.functions]
        checks.check(left == list(functions), f"{name}: functions {left}")
        gone = {f.name for f in model.functions} - set(functions)
        checks.check(set(report.get("inlined_functions", [])) == gone, f"{name}: {report}")
        error = np.abs(run(target, feeds) - expected).max() / np.abs(expected).max()
        checks.check(0 < error < 0.02, f"{name}, {form}: outputs differ by {error:.3g}")


def test_branches(folder):
    for stored in ("constants", "initializers"):
        def branch(name, stored=stored):
            w = weight()
            tensors = [numpy_helper.from_array(w, name + "_w")]
            nodes = [helper.make_node("MatMul", ["x", name + "_w"], [name + "_y"], name=name)]
            if stored == "constants":
                nodes.insert(0, constant(name + "_w", w))
                tensors = []
            return body(name, nodes, [info(name + "_y")], initializers=tensors)

        model = model_of([helper.make_node("If", ["flag"], ["y"], then_branch=branch("a"),
                                           else_branch=branch("b"))],
                         inputs=[info("flag", [], TensorProto.BOOL)])
        for flag in (False, True):
            check_quantized(f"If of {stored}", model, folder, 2, {"flag": np.array(flag)})


def test_loops(folder):
    step = body("step", [
        constant("w"),
        helper.make_node("MatMul", ["state", "w"], ["product"], name="product"),
        helper.make_node("Tanh", ["product"], ["next"]),
        helper.make_node("Identity", ["go"], ["go_on"]),
    ], [info("go_on", [], TensorProto.BOOL), info("next")],
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("state")])
    model = model_of([constant("count", np.int64(3)), constant("true", np.array(True)),
                      helper.make_node("Loop", ["count", "true", "x"], ["y"], body=step)])
    check_quantized("Loop", model, folder, 1)
    step = body("step", [
        constant("w"),
        helper.make_node("MatMul", ["row", "w"], ["product"], name="product"),
        helper.make_node("Add", ["sum", "product"], ["next"]),
        helper.make_node("Identity", ["next"], ["out"]),
    ], [info("next", [1, SIZE]), info("out", [1, SIZE])],
        [info("sum", [1, SIZE]), info("row", [1, SIZE])])
    model = model_of([
        constant("zeros", np.zeros((1, SIZE), np.float32)), constant("axis", np.array([1])),
        helper.make_node("Unsqueeze", ["x", "axis"], ["rows"]),
        helper.make_node("Scan", ["zeros", "rows"], ["last", "sums"], body=step,
                         num_scan_inputs=1),
        helper.make_node("Squeeze", ["sums", "axis"], ["y"]),
    ])
    check_quantized("Scan", model, folder, 1)


LINEAR = function("Linear", ["x", "w", "b"], ["y"], [
    helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
    helper.make_node("MatMul", ["x", "t"], ["p"], name="product"),
    helper.make_node("Add", ["p", "b"], ["y"], name="sum"),
])


def test_functions(folder):
    # Weights are inputs of functions in functions, which other functions share.
    scale = helper.make_node("Constant", [], ["c"])
    scale.attribute.add(name="value_float", type=onnx.AttributeProto.FLOAT, ref_attr_name="by")
    functions = [
        LINEAR,
        function("Scaled", ["x"], ["y"], [scale, helper.make_node("Mul", ["x", "c"], ["y"])],
                 ["by"]),
        function("Block", ["x", "w1", "b1", "w2", "b2"], ["y"], [
            helper.make_node("Linear", ["x", "w1", "b1"], ["h"], domain="local", name="up"),
            helper.make_node("Scaled", ["h"], ["s"], domain="local", by=0.5),
            helper.make_node("Linear", ["s", "w2", "b2"], ["y"], domain="local", name="down"),
        ]),
    ]
    names = ["w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4"]
    tensors = [numpy_helper.from_array(weight() if n[0] == "w" else weight()[0], n)
               for n in names]
    model = model_of([
        helper.make_node("Block", ["x", *names[:4]], ["h"], domain="local", name="first"),
        helper.make_node("Block", ["h", *names[4:]], ["y"], domain="local", name="second"),
    ], tensors, functions)
    check_quantized("functions of functions", model, folder, 4, functions=["Scaled"])

    # Weights inside, and in a branch.
    chosen = body("then", [constant("tw"), helper.make_node("MatMul", ["v", "tw"], ["ty"])],
                  [info("ty", None)])
    other = body("else", [helper.make_node("Neg", ["v"], ["ey"])], [info("ey", None)])
    inner = function("Inner", ["v", "flag"], ["r", "same"], [
        constant("w"), helper.make_node("MatMul", ["v", "w"], ["p"]),
        helper.make_node("If", ["flag"], ["q"], then_branch=chosen, else_branch=other),
        helper.make_node("Add", ["p", "q"], ["r"]),
        helper.make_node("Identity", ["r"], ["same"]),
    ])
    model = model_of([
        helper.make_node("Inner", ["x", "flag"], ["a", "b"], domain="local"),
        helper.make_node("Inner", ["b", "flag"], ["c", "d"], domain="local"),
        helper.make_node("Sum", ["a", "c", "d"], ["y"]),
    ], functions=[inner], inputs=[info("flag", [], TensorProto.BOOL)])
    for flag in (False, True):
        check_quantized("weights inside functions", model, folder, 4, {"flag": np.array(flag)})


def test_inputs(folder):
    """Before IR version 4 every initializer is an input of the graph too, and some
    exporters still write them so. A weight that is quantized is none any more."""
    for ir_version, opset in ((3, 9), (8, 18)):
        for stored in ("initializer", "constant"):
            w = weight()
            nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
                     helper.make_node("Add", ["p", "b"], ["y"])]
            tensors = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(w[0], "b")]
            if stored == "constant":
                nodes.insert(0, constant("w", w))
                tensors.pop(0)
            model = model_of(nodes, tensors, opset=opset)
            model.ir_version = ir_version
            model.graph.input.extend(info(t.name, t.dims) for t in tensors)
            check_quantized(f"{stored}, IR {ir_version}", model, folder, 1)
            left = [value.name for value in onnx.load(folder / "q.onnx").graph.input]
            checks.check(left == ["x", "b"], f"{stored}, IR {ir_version}: inputs {left}")


    # The same for codes and scales that another format holds.
    codes = generator.integers(-128, 128, (SIZE, SIZE)).astype(np.int8)
    scales = generator.uniform(0.001, 0.01, SIZE).astype(np.float32)
    tensors = [numpy_helper.from_array(codes, "c"), numpy_helper.from_array(scales, "s")]
    model = model_of([helper.make_node("DequantizeLinear", ["c", "s"], ["w"], axis=1),
                      helper.make_node("MatMul", ["x", "w"], ["y"])], tensors)
    model.graph.input.extend(info(t.name, t.dims, t.data_type) for t in tensors)
    source, target = folder / "m.onnx", folder / "q.onnx"
    onnx.save(model, source)
    support.must_run(NIBBLE, "convert", source, "-o", target, "--format", "matmulnbits")
    left = [value.name for value in onnx.load(target).graph.input]
    checks.check(left == ["x"], f"convert: inputs {left}")
    feeds = {"x": generator.standard_normal((3, SIZE)).astype(np.float32)}
    error = np.abs(run(target, feeds) - run(source, feeds)).max()
    checks.check(error < 1e-5, f"convert: outputs differ by {error:.3g}")


def test_other_version(folder):
    """A function that means other ops by the same names cannot become part of the graph."""
    old = function("Linear", LINEAR.input, LINEAR.output, LINEAR.node, opset=13)
    tensors = [numpy_helper.from_array(weight(), "w"), numpy_helper.from_array(weight()[0], "b")]
    model = model_of([helper.make_node("Linear", ["x", "w", "b"], ["y"], domain="local")],
                     tensors, [old])
    source, target = folder / "m.onnx", folder / "other.onnx"
    onnx.save(model, source)
    done = support.run(NIBBLE, "quantize", source, "-o", target, "--scheme", "w8g32")
    checks.check(done.code == 3 and not target.exists(), f"other version: {done}")
    checks.check("the local function 'Linear' stays as it is: it imports version 13" in
                 done.stderr, f"other version: {done}")


with support.scratch() as scratch:
    for test in (test_branches, test_loops, test_functions, test_inputs, test_other_version):
        test(pathlib.Path(scratch))
        print(f"{test.__name__}: {checks.done} checks so far", flush=True)
checks.finish()
