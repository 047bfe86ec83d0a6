# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Inputs with outliers (LLM.int8(), SmoothQuant) and activations that are quantized by the
range of each call. A published fact (https://arxiv.org/abs/2208.07339,
https://arxiv.org/abs/2211.10438) in small: with a few channels that are large, 8 bits for
weights and activations collapse, and hold where outliers are kept in 16 bits or their range
moves to the weights. ONNX Runtime and the reference lowering agree on what is written."""

import json
import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

import activations
import support

NIBBLE = support.tool("nibble")
OPT = support.tool("nibble-opt")
WIDTH, INNER = 96, 128
OUTLIERS = (3, 40, 77)


def language_layer(generator, transposed):
    """Two products behind a normalisation whose gain is large in some channels, as in
    language models."""
    gain = np.ones(WIDTH)
    gain[list(OUTLIERS)] = (60, 40, 90)
    first = generator.standard_normal((WIDTH, INNER)) / np.sqrt(WIDTH)
    # What reads an outlier channel has small weights for it.
    first[list(OUTLIERS)] /= 20
    second = generator.standard_normal((INNER, 32)) / np.sqrt(INNER)
    arrays = {"gain": gain, "shift": np.zeros(WIDTH), "bias": generator.standard_normal(32),
              "first": first.T if transposed else first, "second": second}
    nodes = [helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["normal"])]
    if transposed:
        nodes.append(helper.make_node("Gemm", ["normal", "first"], ["inner"], transB=1))
    else:
        nodes.append(helper.make_node("MatMul", ["normal", "first"], ["inner"]))
    nodes += [helper.make_node("Relu", ["inner"], ["active"]),
              helper.make_node("Gemm", ["active", "second", "bias"], ["y"])]
    for node in nodes:  # As some exporters do.
        node.name = node.output[0]
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("x", 1, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", 1, ["rows", 32])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def check_reference(path, x, checks):
    folder = path.parent / "given"
    folder.mkdir(exist_ok=True)
    (folder / "input_0.pb").write_bytes(numpy_helper.from_array(x).SerializeToString())
    done = support.run(support.tool("nibble-run-reference"), path, "--inputs", folder,
                       "--outputs", folder)
    if not checks.check(done.code == 0, done):
        return
    ours = numpy_helper.to_array(onnx.load_tensor(folder / "output_0.pb"))
    theirs = activations.open_session(path).run(None, {"x": x})[0]
    found = activations.ratio(theirs, ours)
    checks.check(found > 90, f"{path.name}: the reference lowering differs, {found:.1f} dB")


def check_layer(transposed, folder, checks):
    generator = np.random.default_rng(5)
    source, data, target = folder / "layer.onnx", folder / "x.npz", folder / "out.onnx"
    onnx.save(language_layer(generator, transposed), source)
    samples = generator.standard_normal((32, 16, WIDTH)).astype(np.float32)
    np.savez(data, x=samples)
    judges = generator.standard_normal((200, WIDTH)).astype(np.float32)
    expected = activations.open_session(source).run(None, {"x": judges})[0]
    quality = {}
    for mode in ("dynamic", "u8"):
        for method in ("round", "smoothquant", "llm-int8", "llm-int8+gptq"):
            where = f"{mode}, {method}, transposed {transposed}"
            target.unlink(missing_ok=True)
            done = support.run(NIBBLE, "quantize", source, "-o", target, "--scheme", "w8cs",
                               "--activations", mode, "--method", method, "--calib", data,
                               "--quiet", "--json")
            if not checks.check(done.code == 0, f"{where}: {done}"):
                continue
            model = onnx.load(target)
            onnx.checker.check_model(model, full_check=True)
            kinds = [node.op_type for node in model.graph.node]
            checks.check(kinds.count("MatMulInteger") == (2 if mode == "dynamic" else 0),
                         f"{where}: {kinds}")
            halves = [numpy_helper.to_array(i) for i in model.graph.initializer
                      if i.data_type == onnx.TensorProto.FLOAT16]
            checks.check([h.shape for h in halves] ==
                         ([(len(OUTLIERS), INNER)] if "int8" in method else []),
                         f"{where}: {[h.shape for h in halves]}")
            noted = f"{len(OUTLIERS)} of {WIDTH} inputs are kept apart" in done.stdout
            checks.check(noted == ("int8" in method), f"{where}: {done.stdout}")
            found = activations.open_session(target).run(None, {"x": judges})[0]
            quality[mode, method] = activations.ratio(expected, found)
            check_reference(target, judges, checks)
        for method in ("smoothquant", "llm-int8", "llm-int8+gptq"):
            gain = quality[mode, method] - quality[mode, "round"]
            checks.check(gain > 10, f"{mode}, {method}: {gain:.1f} dB: {quality}")
        checks.check(quality[mode, "round"] < 30 < quality[mode, "llm-int8"], quality)
    print({f"{mode} {method}": round(float(v), 1) for (mode, method), v in quality.items()})
    # No calibration data: rounding alone.
    done = support.run(NIBBLE, "quantize", source, "-o", target, "--scheme", "w8cs",
                       "--activations", "dynamic", "--quiet", "--json")
    checks.check(done.code == 0 and json.loads(done.stdout)["method"] == "round", done)


def check_pass(folder, checks):
    """Outliers alone change nothing but the rounding of their weights to f16, and a
    threshold below most numbers leaves the model as it is."""
    source, ranges, target = folder / "layer.onnx", folder / "r.json", folder / "split.onnx"
    generator = np.random.default_rng(6)
    samples = generator.standard_normal((8, 16, WIDTH)).astype(np.float32)
    ranges.write_text(json.dumps(activations.measure_ranges(source, samples)))
    expected = activations.open_session(source).run(None, {"x": samples[0]})[0]
    for threshold, nodes in ((6, 5), (0.01, 0)):
        support.must_run(OPT, source, "--onnx-infer-shapes",
                         f"--nibble-split-outliers=ranges={ranges} threshold={threshold}",
                         "-o", target)
        added = len(onnx.load(target).graph.node) - len(onnx.load(source).graph.node)
        checks.check(added == nodes, f"threshold {threshold}: {added} nodes were added")
        found = activations.open_session(target).run(None, {"x": samples[0]})[0]
        checks.check(activations.ratio(expected, found) > 60, "another function")
    for option, reason in (("threshold=0", "above 0"), ("ranges=none.json", "none.json")):
        done = support.run(OPT, source, f"--nibble-split-outliers=ranges={ranges} {option}")
        checks.check(done.code == 1 and reason in done.stderr, f"{option}: {done}")
    done = support.run(OPT, source, "--nibble-quantize-activations=mode=lazy")
    checks.check(done.code == 1 and "static or dynamic" in done.stderr, done)
    done = support.run(NIBBLE, "quantize", source, "-o", target, "--scheme", "w8cs", "--method",
                       "llm-int8", "--outlier-threshold", "1000", "--calib", folder / "x.npz")
    checks.check(done.code == 0 and "changed no product" in done.stderr, done)
    done = support.run(NIBBLE, "quantize", source, "--method", "llm-int8")
    checks.check(done.code == 1 and "--calib" in done.stderr, done)


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        for transposed in (False, True):
            check_layer(transposed, pathlib.Path(scratch), checks)
        check_pass(pathlib.Path(scratch), checks)
    checks.finish()


main()
