# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Equivalent rescaling: SmoothQuant and AWQ divide what products read and multiply their
weights. In each graph the function stays the same in ONNX Runtime; where a constant before
the products can take the division, no node is added, and where none can, a Mul is added only
if that pays."""

import json
import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

import activations
import support

OPT = support.tool("nibble-opt")
NIBBLE = support.tool("nibble")
PREPARE = ["--onnx-infer-shapes", "--onnx-fold-constants"]
WIDTH, HEAD = 24, 4
PASSES = {"smooth": ["--nibble-smooth=ranges=%R"],
          "awq": ["--nibble-assign-schemes=scheme=w3g8", "--nibble-awq=ranges=%R"]}


class Graph:
    """Writes a graph of one input x [batch, rows, width]. Some channels of all that is
    drawn with outliers=True are large, so that rescaling pays."""

    def __init__(self, seed=0):
        self.generator = np.random.default_rng(seed)
        self.nodes, self.initializers, self.outputs = [], [], []

    def constant(self, array):
        name = f"constant.{len(self.initializers)}"
        array = np.asarray(array)
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        self.initializers.append(numpy_helper.from_array(array.astype(kind), name))
        return name

    def node(self, op_type, *inputs, **attributes):
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        output = f"value.{len(self.nodes)}"
        name = attributes.pop("name", output)
        self.nodes.append(helper.make_node(op_type, names, [output], name=name, **attributes))
        return output

    def weight(self, inputs, outputs, outliers=False, period=None):
        values = self.generator.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        if outliers:
            gains = np.ones(period or outputs)
            gains[1::7] = 40
            values *= np.tile(gains, outputs // len(gains))
        return values

    def gain(self, width):
        values = 1 + 0.1 * self.generator.standard_normal(width)
        values[2::9] *= 60
        return values

    def finish(self, *outputs):
        for output in outputs:
            self.outputs.append(helper.make_tensor_value_info(output, 1, None))
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info("x", 1, ["batch", "rows", WIDTH])],
            self.outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)],
                                 ir_version=8)


def layer_norm(g):
    """One normalisation, read by products in all their forms."""
    shift = 0.1 * g.generator.standard_normal(WIDTH)
    h = g.node("LayerNormalization", "x", g.gain(WIDTH), shift)
    a = g.node("MatMul", h, g.weight(WIDTH, 16))
    turned = g.node("Transpose", g.weight(16, WIDTH), perm=[1, 0])
    return g.finish(a, g.node("MatMul", h, turned))


def rms_norm(g):
    mean = g.node("ReduceMean", g.node("Mul", "x", "x"), np.array([-1]), keepdims=1)
    root = g.node("Sqrt", g.node("Add", mean, np.float32(1e-5)))
    h = g.node("Mul", g.node("Div", "x", root), g.gain(WIDTH))
    return g.finish(g.node("MatMul", h, g.weight(WIDTH, 16)))


def relu(g):
    """The columns and the bias of the product before."""
    h = g.node("MatMul", "x", g.weight(WIDTH, 40, outliers=True))
    h = g.node("Relu", g.node("Add", h, g.generator.standard_normal(40)))
    return g.finish(g.node("MatMul", h, g.weight(40, 16)))


def gemm(g):
    h = g.node("Reshape", "x", np.array([-1, WIDTH]))
    bias = g.generator.standard_normal(40)
    h = g.node("Gemm", h, g.weight(WIDTH, 40, outliers=True).T, bias, transB=1)
    h = g.node("LeakyRelu", h)
    return g.finish(g.node("Gemm", h, g.weight(40, 16), g.generator.standard_normal(16)))


def gated(g):
    """The factor that is no Sigmoid: the other one is read twice."""
    gate = g.node("MatMul", "x", g.weight(WIDTH, 40))
    silu = g.node("Mul", gate, g.node("Sigmoid", gate))
    h = g.node("Mul", g.node("MatMul", "x", g.weight(WIDTH, 40, outliers=True)), silu)
    return g.finish(g.node("MatMul", h, g.weight(40, 16)))


def quotient(g):
    h = g.node("Div", g.node("Tanh", "x"), 1 / g.gain(WIDTH))
    return g.finish(g.node("MatMul", h, g.weight(WIDTH, 16)))


def attend(g, heads, groups, repeat):
    """The output product of attention behind the values: through the heads."""
    per_group = heads // groups

    def split(kind, count, outliers=False):
        # Outliers in the same place of each head.
        w = g.weight(WIDTH, count * HEAD, outliers, period=HEAD)
        y = g.node("Reshape", g.node("MatMul", "x", w), np.array([0, 0, groups, -1, HEAD]))
        return g.node("Transpose", y, perm=[0, 2, 3, 1, 4], name=kind)

    query, key = split("query", heads), split("key", groups)
    value = split("value", groups, outliers=True)
    if repeat:
        key = g.node("Expand", key, np.array([1, 1, per_group, 1, 1]))
        value = g.node("Expand", value, np.array([1, 1, per_group, 1, 1]))
    scores = g.node("MatMul", query, g.node("Transpose", key, perm=[0, 1, 2, 4, 3]))
    h = g.node("MatMul", g.node("Softmax", scores), value)
    h = g.node("Transpose", h, perm=[0, 3, 1, 2, 4])
    h = g.node("Reshape", h, np.array([0, 0, heads * HEAD]))
    return g.finish(g.node("MatMul", h, g.weight(heads * HEAD, 16)))


def attention(g):
    return attend(g, 6, 6, repeat=False)


def grouped(g):
    return attend(g, 6, 2, repeat=False)


def repeated(g):
    return attend(g, 6, 2, repeat=True)


def gathered(g):
    """Heads repeated by their indices."""
    w = g.weight(WIDTH, 2 * HEAD, outliers=True, period=HEAD)
    value = g.node("Reshape", g.node("MatMul", "x", w), np.array([0, 0, 2, HEAD]))
    value = g.node("Transpose", value, perm=[0, 2, 1, 3])
    h = g.node("Gather", value, np.array([0, 0, 0, 1, 1, 1]), axis=1)
    h = g.node("Transpose", h, perm=[0, 2, 1, 3])
    h = g.node("Reshape", h, np.array([0, 0, 6 * HEAD]))
    return g.finish(g.node("MatMul", h, g.weight(6 * HEAD, 16)))


def own_input(g):
    return g.finish(g.node("MatMul", "x", g.weight(WIDTH, 16)))


def other_reader(g):
    h = g.node("LayerNormalization", "x", g.gain(WIDTH))
    return g.finish(g.node("MatMul", h, g.weight(WIDTH, 16)), g.node("Neg", h))


def shared_weight(g):
    """Another product reads the weight: nothing may change."""
    w = g.constant(g.weight(WIDTH, WIDTH))
    h = g.node("LayerNormalization", "x", g.gain(WIDTH))
    return g.finish(g.node("MatMul", g.node("MatMul", h, w), w))


def small_gain(g):
    """A Mul would not pay."""
    return g.finish(g.node("MatMul", g.node("Tanh", "x"), g.weight(WIDTH, 16)))


# By graph: nodes that are added.
FOLDED = (layer_norm, rms_norm, relu, gemm, gated, quotient, attention, grouped, repeated,
          gathered)
INSERTED = (own_input, other_reader)
LEFT = (shared_weight, small_gain)


def count_changes(before, after):
    """Constants whose numbers differ, and added nodes."""
    known = {i.name: numpy_helper.to_array(i) for i in before.graph.initializer}
    changed = sum(i.name not in known
                  or not np.array_equal(known[i.name], numpy_helper.to_array(i))
                  for i in after.graph.initializer)
    return changed, len(after.graph.node) - len(before.graph.node)


def check_graph(build, added, folder, checks):
    g = Graph()
    source, prepared, target, ranges = (
        folder / f"{build.__name__}{end}" for end in (".onnx", ".p.onnx", ".out.onnx", ".json"))
    onnx.save(build(g), source)
    samples = g.generator.standard_normal((6, 2, 9, WIDTH)).astype(np.float32)
    if build in INSERTED:
        samples[..., 4] *= 50
    support.must_run(OPT, source, *PREPARE, "-o", prepared)
    ranges.write_text(json.dumps(activations.measure_ranges(prepared, samples)))
    expected = activations.open_session(prepared).run(None, {"x": samples[0]})
    for name, passes in PASSES.items():
        where = f"{build.__name__}, {name}"
        options = [option.replace("%R", str(ranges)) for option in passes]
        support.must_run(OPT, prepared, *PREPARE, *options, "-o", target)
        found = activations.open_session(target).run(None, {"x": samples[0]})
        for a, b in zip(expected, found):
            checks.check(activations.ratio(a, b) > 100,
                         f"{where}: another function, {activations.ratio(a, b):.1f} dB")
        changed, more = count_changes(onnx.load(prepared), onnx.load(target))
        checks.check(more == (added or 0), f"{where}: {more} nodes were added")
        checks.check(changed >= 2 if added is not None else changed == 0,
                     f"{where}: {changed} constants changed")


def check_ties(folder, checks):
    """Heads that share values share factors: both projections of the values' group keep
    their product, and other heads of the output have the factors of their group."""
    support.must_run(OPT, folder / "grouped.p.onnx", *PREPARE,
                     f"--nibble-smooth=ranges={folder / 'grouped.json'}",
                     "-o", folder / "grouped.out.onnx")
    before, after = (
        {i.name: numpy_helper.to_array(i) for i in onnx.load(folder / name).graph.initializer}
        for name in ("grouped.p.onnx", "grouped.out.onnx"))
    rows = [after[n] / before[n] for n in before if before[n].shape == (6 * HEAD, 16)]
    factors = rows[0].mean(1).reshape(2, 3, HEAD)
    checks.check(np.allclose(factors, factors[:, :1], rtol=1e-5), "heads of a group differ")
    checks.check(factors.max() > 2 * factors.min(), "nothing was rescaled")


def check_tool(folder, checks):
    """The methods of nibble quantize. At 3 bits AWQ's scales beat rounding, and
    GPTQ after them beats both."""
    source, data = folder / "tool.onnx", folder / "tool.npz"
    g = Graph(3)
    h = g.node("LayerNormalization", "x", g.gain(WIDTH), np.zeros(WIDTH))
    h = g.node("Relu", g.node("MatMul", h, g.weight(WIDTH, 64, outliers=True)))
    onnx.save(g.finish(g.node("MatMul", h, g.weight(64, 16))), source)
    samples = g.generator.standard_normal((24, 9, WIDTH)).astype(np.float32)
    np.savez(data, x=samples)
    judges = g.generator.standard_normal((16, 9, WIDTH)).astype(np.float32)
    expected = activations.open_session(source).run(None, {"x": judges})[0]

    def quantize(*options):
        target = folder / "tool.out.onnx"
        target.unlink(missing_ok=True)
        return target, support.run(NIBBLE, "quantize", source, "-o", target, "--quiet",
                                   "--json", *options)

    quality = {}
    for scheme, method, *more in (("w3g8", "round"), ("w3g8", "awq"), ("w3g8", "gptq"),
                                  ("w3g8", "awq+gptq"), ("w3g8", "awq+recipe"),
                                  ("w8cs", "round", "--activations", "u8"),
                                  ("w8cs", "smoothquant", "--activations", "u8"),
                                  ("w8cs", "smoothquant+gptq", "--activations", "u8"),
                                  ("w8cs", "", "--activations", "u8")):
        named = ["--method", method] if method else []
        target, done = quantize("--scheme", scheme, *named, "--calib", data, *more)
        if not checks.check(done.code == 0, f"{method}: {done}"):
            continue
        report = json.loads(done.stdout)
        checks.check(report["method"] == (method or "smoothquant"), f"{method}: {report['method']}")
        noted = any("AWQ" in str(w) for w in report["weights"])
        checks.check(noted == method.startswith("awq"), f"{method}: {report['weights']}")
        found = activations.open_session(target).run(None, {"x": judges})[0]
        quality[scheme, method] = activations.ratio(expected, found)
    print({f"{k[0]} {k[1]}": round(float(v), 1) for k, v in quality.items()})
    for better, worse, gap in ((("w3g8", "awq"), ("w3g8", "round"), 1),
                               (("w3g8", "awq+gptq"), ("w3g8", "awq"), 0),
                               (("w3g8", "awq+gptq"), ("w3g8", "gptq"), 0),
                               (("w8cs", "smoothquant"), ("w8cs", "round"), 6)):
        checks.check(quality[better] > quality[worse] + gap, f"{better} against {worse}: {quality}")
    checks.check(quality["w8cs", "smoothquant"] == quality["w8cs", ""], f"default: {quality}")

    for options, reason in (
            (["--method", "awq"], "--calib"),
            (["--method", "smoothquant", "--calib", data], "--activations"),
            (["--method", "awq", "--activations", "u8", "--scheme", "w8cs", "--calib", data],
             "take smoothquant"),
            (["--method", "awq+round", "--calib", data], "awq+gptq")):
        _, done = quantize(*options)
        checks.check(done.code != 0 and reason in done.stderr + done.stdout, f"{options}: {done}")


def check_errors(folder, checks):
    source = folder / "rms_norm.p.onnx"
    bare = json.loads((folder / "rms_norm.json").read_text())
    for value in bare["values"].values():
        del value["magnitude"]
    file = folder / "bare.json"
    file.write_text(json.dumps(bare))
    for options, reason in (
            ([f"--nibble-smooth=ranges={file} strength=1.5"], "0 to 1"),
            (["--nibble-smooth=ranges=none.json"], "none.json"),
            (["--nibble-awq=ranges=none.json"], "none.json"),
            (["--nibble-assign-schemes", f"--nibble-awq=ranges={file}"], "magnitude")):
        done = support.run(OPT, source, *PREPARE, *options)
        checks.check(done.code == 1 and reason in done.stderr, f"{options}: {done}")


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        for builds, added in ((FOLDED, 0), (INSERTED, 1), (LEFT, None)):
            for build in builds:
                check_graph(build, added, folder, checks)
        check_ties(folder, checks)
        check_tool(folder, checks)
        check_errors(folder, checks)
    checks.finish()


main()
