# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""If, Loop, Scan, LSTM, GRU, RNN and local functions, against ONNX Runtime and, where that
lacks a case, against ONNX's reference evaluator, at dynamic shapes."""

import itertools
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import support

F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def untyped(name):
    return helper.make_empty_tensor_value_info(name)


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def node(text, outputs, *inputs, **attributes):
    return helper.make_node(text, list(inputs), list(outputs), **attributes)


def run_onnxruntime(model, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def run_evaluator(model, inputs):
    return ReferenceEvaluator(model).run(None, inputs)


class Cases:
    """Collects models with their inputs and outputs as backend tests."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def add(self, name, graph, data, opset=21, functions=(), imports=(), oracle=run_onnxruntime,
            rtol=1e-4):
        """data: a list of data sets, each a list of arrays."""
        model = helper.make_model(
            graph, ir_version=10, functions=list(functions),
            opset_imports=[helper.make_opsetid("", opset), *imports])
        folder = self.folder / name
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        (folder / "tol.json").write_text(json.dumps({"rtol": rtol, "atol": 1e-6}))
        names = [entry.name for entry in graph.input]
        for number, arrays in enumerate(data):
            data_set = folder / f"test_data_set_{number}"
            data_set.mkdir()
            outputs = oracle(model, dict(zip(names, arrays)))
            for kind, written in (("input", arrays), ("output", outputs)):
                for index, array in enumerate(written):
                    tensor = numpy_helper.from_array(np.asarray(array))
                    (data_set / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())


def add_branches(cases, rng):
    """A choice whose branches use outer values, nest, and give different sizes."""
    inner = helper.make_graph(
        [node("Concat", ["long"], "x", "x", axis=0)], "inner", [], [untyped("long")])
    other = helper.make_graph(
        [node("Add", ["shifted"], "x", "w")], "other", [], [untyped("shifted")])
    first = helper.make_graph(
        [node("If", ["nested"], "b", then_branch=inner, else_branch=other)],
        "first", [], [untyped("nested")])
    second = helper.make_graph(
        [node("Slice", ["part"], "x", "one", "end")], "second", [], [untyped("part")])
    graph = helper.make_graph(
        [node("If", ["y"], "a", then_branch=first, else_branch=second)], "if",
        [value("a", BOOL, []), value("b", BOOL, [1]), value("x", F32, ["n", 3])],
        [value("y", F32, ["m", 3])],
        [constant("w", np.array([1, 2, 3], np.float32)), constant("one", [1]),
         constant("end", [np.iinfo(np.int64).max])])
    data = [[np.array(a), np.array([b]), rng.standard_normal((n, 3)).astype(np.float32)]
            for a, b, n in itertools.product([True, False], [True, False], [1, 4])]
    cases.add("if_nested", graph, data)
    # An outer value and the same value twice.
    same = helper.make_graph([], "same", [], [untyped("x"), untyped("x")])
    twice = helper.make_graph([node("Neg", ["minus"], "x")], "twice", [],
                              [untyped("minus"), untyped("x")])
    graph = helper.make_graph(
        [node("Identity", ["x"], "given"),
         node("If", ["y", "z"], "a", then_branch=same, else_branch=twice)], "if",
        [value("a", BOOL, []), value("given", F32, ["n"])],
        [value("y", F32, ["n"]), value("z", F32, ["n"])])
    x = rng.standard_normal(5).astype(np.float32)
    cases.add("if_outer", graph, [[np.array(True), x], [np.array(False), x]],
              oracle=run_evaluator)


def add_loops(cases, rng):
    # Sums until the sum is large; collects what it sees.
    body = helper.make_graph(
        [node("Add", ["sum"], "before", "x"), node("ReduceMax", ["largest"], "sum", keepdims=0),
         node("Less", ["on"], "largest", "limit"), node("Mul", ["row"], "sum", "sum")],
        "body", [value("i", I64, []), value("c", BOOL, []), value("before", F32, [None])],
        [value("on", BOOL, []), value("sum", F32, [None]), untyped("row"), untyped("largest")])
    graph = helper.make_graph(
        [node("Loop", ["last", "rows", "maxima"], "m", "go", "start", body=body)], "loop",
        [value("m", I64, []), value("go", BOOL, []), value("start", F32, ["n"]),
         value("x", F32, ["n"])],
        [value("last", F32, ["n"]), value("rows", F32, ["t", "n"]), value("maxima", F32, ["t"])],
        [constant("limit", np.float32(6))])
    data = []
    for count, n, go in [(0, 3, True), (1, 1, True), (5, 4, True), (100, 2, True), (3, 2, False)]:
        data.append([np.array(count), np.array(go), np.zeros(n, np.float32),
                     (rng.random(n) + 0.5).astype(np.float32)])
    # What a loop without iterations collects has sizes that ONNX does not fix.
    cases.add("loop_condition", graph, [sets for sets in data if sets[0] and sets[1]])
    no_rows = helper.make_graph(
        [node("Loop", ["last"], "m", "go", "start", body=helper.make_graph(
            [node("Add", ["sum"], "before", "x"), node("Identity", ["on"], "c")], "body",
            [value("i", I64, []), value("c", BOOL, []), value("before", F32, [None])],
            [value("on", BOOL, []), value("sum", F32, [None])]))], "loop",
        [value("m", I64, []), value("go", BOOL, []), value("start", F32, ["n"]),
         value("x", F32, ["n"])], [value("last", F32, ["n"])])
    cases.add("loop_without_rows", no_rows, data)

    # What is carried grows; there is no trip count, and the scalars are [1].
    body = helper.make_graph(
        [node("Concat", ["longer"], "so_far", "i", axis=0), node("Size", ["size"], "longer"),
         node("Less", ["on"], "size", "limit")],
        "body", [value("i", I64, [1]), value("c", BOOL, [1]), value("so_far", I64, ["k"])],
        [value("on", BOOL, []), value("longer", I64, ["l"])])
    graph = helper.make_graph(
        [node("Loop", ["y"], "", "", "x", body=body)], "loop",
        [value("x", I64, ["n"]), value("limit", I64, [])], [value("y", I64, ["m"])])
    cases.add("loop_grows", graph,
              [[np.arange(n), np.array(limit)] for n, limit in [(1, 4), (0, 9), (3, 2)]])

    # A loop in a loop, with outer values of both.
    inner = helper.make_graph(
        [node("Cast", ["j_float"], "j", to=F32), node("Mul", ["step"], "j_float", "outer_sum"),
         node("Add", ["next"], "acc", "step"), node("Identity", ["on"], "d")],
        "inner", [value("j", I64, []), value("d", BOOL, []), value("acc", F32, [None])],
        [value("on", BOOL, []), value("next", F32, [None]), untyped("step")])
    outer = helper.make_graph(
        [node("Add", ["outer_sum"], "before", "x"),
         node("Add", ["times"], "i", "one"),
         node("Loop", ["total", "steps"], "times", "c", "outer_sum", body=inner),
         node("ReduceSum", ["row"], "steps", "zero", keepdims=0),
         node("Identity", ["go_on"], "c")],
        "outer", [value("i", I64, []), value("c", BOOL, []), value("before", F32, [None])],
        [value("go_on", BOOL, []), value("total", F32, [None]), untyped("row")])
    graph = helper.make_graph(
        [node("Loop", ["y", "rows"], "m", "", "x", body=outer)], "loop",
        [value("m", I64, []), value("x", F32, ["n"])],
        [value("y", F32, ["n"]), value("rows", F32, ["m", "n"])],
        [constant("one", 1), constant("zero", [0])])
    cases.add("loop_in_loop", graph,
              [[np.array(m), rng.standard_normal(n).astype(np.float32)]
               for m, n in [(1, 2), (3, 4), (5, 1)]])


def add_scans(cases, rng):
    for backward, axis in itertools.product([0, 1], [0, 1, -1]):
        body = helper.make_graph(
            [node("Add", ["after"], "before", "element"), node("Mul", ["row"], "after", "element")],
            "body", [untyped("before"), untyped("element")], [untyped("after"), untyped("row")])
        graph = helper.make_graph(
            [node("Scan", ["y", "rows"], "start", "x", body=body, num_scan_inputs=1,
                  scan_input_axes=[axis], scan_output_axes=[axis],
                  scan_input_directions=[backward], scan_output_directions=[1 - backward])],
            "scan", [value("start", F32, ["n"]), value("x", F32, ["n", "t"] if axis else ["t", "n"])],
            [value("y", F32, ["n"]), value("rows", F32, [None, None])])
        data = []
        for n, t in [(3, 4), (1, 1), (2, 7)]:
            shape = (n, t) if axis else (t, n)
            data.append([rng.standard_normal(n).astype(np.float32),
                         rng.standard_normal(shape).astype(np.float32)])
        cases.add(f"scan_{backward}_{axis}", graph, data)


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Activations of one direction, and the parameters of those that have some.
ACTIVATIONS = {
    "LSTM": [([], [], []), (["HardSigmoid", "Softsign", "Relu"], [0.3], [0.4]),
             (["Sigmoid", "LeakyRelu", "Elu"], [0.2, 0.8], []),
             (["Affine", "ScaledTanh", "Softplus"], [0.5, 1.5], [0.1, 0.7])],
    "GRU": [([], [], []), (["HardSigmoid", "Softsign"], [0.3], [0.4]),
            (["Sigmoid", "ThresholdedRelu"], [0.6], [])],
    "RNN": [([], [], []), (["Relu"], [], []), (["ScaledTanh"], [1.5], [0.7]),
            (["Affine"], [0.5], [0.1])],
}


def add_recurrent(cases, rng):
    """Directions, layouts, optional inputs, activations and clip in random mixtures."""
    for op, gates in RECURRENT.items():
        for number in range(14):
            direction = ["forward", "reverse", "bidirectional"][number % 3]
            activations = ACTIVATIONS[op][number % len(ACTIVATIONS[op])]
            add_recurrent_case(cases, rng, f"{op}_{number}", op, gates, direction, activations,
                               optional=rng.random(4) < 0.5, clip=number % 4 == 3,
                               variant=number % 2)


def add_recurrent_case(cases, rng, label, op, gates, direction, activations, optional, clip,
                       variant):
    directions = 2 if direction == "bidirectional" else 1
    size, hidden = 5, 3
    has_bias, has_lengths, has_state, has_peepholes = optional

    def weights(*shape):
        return (rng.standard_normal(shape) / 2).astype(np.float32)

    initializers = [constant("w", weights(directions, gates * hidden, size)),
                    constant("r", weights(directions, gates * hidden, hidden))]
    inputs = ["x", "w", "r", "", "", "", "", ""]
    if has_bias:
        inputs[3] = "b"
        initializers.append(constant("b", weights(directions, 2 * gates * hidden)))
    graph_inputs = [value("x", F32, ["sequence", "batch", size])]
    if has_lengths:
        inputs[4] = "lengths"
        graph_inputs.append(value("lengths", TensorProto.INT32, ["batch"]))
    states = {"LSTM": ["h", "c"]}.get(op, ["h"])
    if has_state:
        for index, state in enumerate(states):
            inputs[5 + index] = state
            graph_inputs.append(value(state, F32, [directions, "batch", hidden]))
    if has_peepholes and op == "LSTM":
        inputs[7] = "p"
        initializers.append(constant("p", weights(directions, 3 * hidden)))
    attributes = {"hidden_size": hidden, "direction": direction}
    for name, values in zip(["activations", "activation_alpha", "activation_beta"], activations):
        if values:
            attributes[name] = values * directions
    if clip:
        attributes["clip"] = 0.7
    if op == "GRU":
        attributes["linear_before_reset"] = variant
    if op == "LSTM":
        attributes["input_forget"] = variant
    while not inputs[-1]:
        inputs.pop()
    outputs = ["y", *(f"last_{state}" for state in states)]
    shapes = {"y": [None, directions, None, hidden]}
    graph = helper.make_graph(
        [node(op, outputs, *inputs, **attributes)], label, graph_inputs,
        [value(output, F32, shapes.get(output, [directions, None, hidden])) for output in outputs],
        initializers)
    data = []
    for sequence, batch in [(1, 1), (4, 2), (7, 3)]:
        arrays = [rng.standard_normal((sequence, batch, size)).astype(np.float32)]
        if has_lengths:
            lengths = rng.integers(1, sequence + 1, batch).astype(np.int32)
            lengths[0] = sequence
            arrays.append(lengths)
        if has_state:
            arrays += [weights(directions, batch, hidden) for _ in states]
        data.append(arrays)
    cases.add(label, graph, data)


def add_functions(cases, rng):
    """Calls in calls, attributes given and defaulted, absent inputs, another opset."""
    def constant_of(name, reference):
        made = node("Constant", [name])
        made.attribute.append(onnx.AttributeProto(
            name="value_float", type=onnx.AttributeProto.FLOAT, ref_attr_name=reference))
        return made

    scale = helper.make_function(
        "local", "Scale", ["x"], ["y"],
        [constant_of("factor", "by"), node("Mul", ["y"], "x", "factor")],
        [helper.make_opsetid("", 21)],
        attribute_protos=[helper.make_attribute("by", 2.0)])
    x = [[np.array(a), rng.standard_normal((n, 2, 3)).astype(np.float32)]
         for a, n in [(True, 2), (False, 3)]]
    # ONNX Runtime inlines without a look at the function's opset; the evaluator knows
    # neither defaults of attributes nor inputs that are left out.
    add_calls(cases, "functions", x, scale, 21, {}, ["x"], run_onnxruntime,
              [node("Constant", ["axes"], value_ints=[1]),
               node("ReduceSum", ["total"], "mixed", "axes", keepdims=0)])
    add_calls(cases, "functions_older", x, scale, 12, {"by": 2.0}, ["x", "low"],
              run_evaluator,
              [node("ReduceSum", ["total"], "mixed", axes=[1], keepdims=0)])


def add_calls(cases, name, data, scale, opset, by, inside, oracle, total):
    """Calls in a graph and in a branch, and in the function that they call."""
    mix = helper.make_function(
        "local", "Mix", ["x", "shift"], ["y", "total"],
        [node("Scale", ["scaled"], "x", domain="local", by=0.5),
         node("Scale", ["doubled"], "x", domain="local", **by),
         node("Add", ["mixed"], "scaled", "doubled"),
         node("Clip", ["y"], "mixed", "shift"), *total],
        [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)])
    branch = helper.make_graph([node("Mix", ["inside", ""], *inside, domain="local")],
                               "branch", [], [untyped("inside")])
    plain = helper.make_graph([node("Neg", ["outside"], "x")], "plain", [], [untyped("outside")])
    graph = helper.make_graph(
        [node("Mix", ["y", "total"], "x", "low", domain="local"),
         node("If", ["z"], "a", then_branch=branch, else_branch=plain)], "functions",
        [value("a", BOOL, []), value("x", F32, ["n", 2, 3])],
        [value("y", F32, ["n", 2, 3]), value("total", F32, ["n", 3]),
         value("z", F32, ["n", 2, 3])], [constant("low", np.float32(-0.5))])
    cases.add(name, graph, data, functions=[scale, mix],
              imports=[helper.make_opsetid("local", 1)], oracle=oracle)


def main():
    checks = support.Checks()
    rng = np.random.default_rng(11)
    with support.scratch() as scratch:
        cases = Cases(scratch)
        for add in (add_branches, add_loops, add_scans, add_recurrent, add_functions):
            add(cases, rng)
        done = support.run(support.tool("nibble"), "test-onnx", scratch, "--json", timeout=600)
        for case in json.loads(done.stdout)["cases"]:
            checks.check(case["outcome"] == "passed", case)
    checks.finish("models")


if __name__ == "__main__":
    main()
