# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""`--method obq`, optimal brain quantization in its greedy order (https://arxiv.org/abs/2208.11580):
better than rounding, and where a weight has too many inputs, GPTQ and a note that says so."""

import json
import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

import activations
import support

NIBBLE = support.tool("nibble")
WIDTH, WIDE, OUTPUTS = 96, 1040, 24


def model(generator):
    def weight(name, *shape):
        values = generator.standard_normal(shape) / np.sqrt(shape[0])
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [helper.make_node("MatMul", ["x", "small"], ["a"]), helper.make_node("Tanh", ["a"], ["h"]),
             helper.make_node("MatMul", ["h", "large"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["n", 8, WIDTH])],
        [helper.make_tensor_value_info("y", 1, ["n", 8, OUTPUTS])],
        [weight("small", WIDTH, WIDE), weight("large", WIDE, OUTPUTS)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def main():
    checks = support.Checks()
    generator = np.random.default_rng(8)
    mixing = generator.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        source, target = folder / "m.onnx", folder / "q.onnx"
        onnx.save(model(generator), source)
        x = (generator.standard_normal((80, 8, WIDTH)) @ mixing).astype(np.float32)
        np.savez(folder / "x.npz", x=x[:64])
        expected = activations.open_session(source).run(None, {"x": x[64:]})[0]
        quality, notes = {}, {}
        for method in ("round", "gptq", "obq", "awq+obq"):
            done = support.run(NIBBLE, "quantize", source, "-o", target, "--scheme", "w3g32",
                               "--scale", "minmax", "--method", method, "--calib", folder / "x.npz",
                               "--quiet", "--json", "--no-evaluate")
            if not checks.check(done.code == 0, f"{method}: {done}"):
                continue
            report = json.loads(done.stdout)
            notes[method] = {w["name"]: " ".join(w.get("notes", [])) for w in report["weights"]}
            found = activations.open_session(target).run(None, {"x": x[64:]})[0]
            quality[method] = activations.ratio(expected, found)
        print({method: round(float(v), 1) for method, v in quality.items()})
        checks.check(min(quality["gptq"], quality["obq"]) > quality["round"] + 1, quality)
        for method, by_weight in notes.items():
            told = {name for name, text in by_weight.items() if "rounded by GPTQ, not OBQ" in text}
            checks.check(told == ({"large"} if "obq" in method else set()), f"{method}: {notes}")
    checks.finish()


main()
