# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Double quantization: scales of weights in 8 bits with a step and a zero point for each 256.
The file's size falls by what QLoRA says (https://arxiv.org/abs/2305.14314, section 3: .37 bits
a weight in blocks of 64), NumPy gives the scales and the product that ONNX Runtime and the
reference lowering give, and the scales are those of the plain file within half a step."""

import json
import pathlib
import re

import numpy as np
import onnx
from onnx import helper, numpy_helper

import activations
import linear_layers
import support

NIBBLE = support.tool("nibble")
RUN = 256
# K, N, scheme: full runs; a partial one; a scale a column; zero points.
LAYERS = ((1024, 256, "w4g64s"), (100, 33, "w4g32s"), (64, 700, "w8cs"), (192, 50, "w3g64"))


def product(k, n):
    generator = np.random.default_rng(k + n)
    weight = (generator.standard_normal((k, n)) / np.sqrt(k)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", 1, ["rows", k])],
        [helper.make_tensor_value_info("y", 1, ["rows", n])],
        [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def quantize(source, target, scheme, *options):
    done = support.run(NIBBLE, "quantize", source, "-o", target, "--scheme", scheme, "--method",
                       "round", "--json", "--quiet", *options)
    return done, (json.loads(done.stdout)["weights"][0] if done.code == 0 else None)


def read_scales(path):
    """The scales of a file with nested ones, by NumPy, and the steps of each."""
    arrays = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    codes, zeros, steps = (arrays[f"w_scale{part}"] for part in ("_codes", "_zero", "_step"))
    scales = (codes.astype(np.float32) - zeros) * steps
    count = np.prod(arrays["w_scale_shape"])
    spread = np.broadcast_to(steps, scales.shape)
    shape = arrays["w_scale_shape"]
    return (scales.reshape(-1)[:count].reshape(shape),
            spread.reshape(-1)[:count].reshape(shape), arrays)


def dequantize(arrays, scales, scheme):
    codes = arrays["w_quantized"].astype(np.float32)
    zeros = arrays.get("w_zero_point")
    group = re.search(r"g(\d+)", scheme)

    def spread(grid):
        return np.repeat(grid, int(group[1]), 0)[:len(codes)] if group else grid

    return (codes - (0 if zeros is None else spread(zeros.astype(np.float32)))) * spread(scales)


def check_layer(k, n, scheme, folder, checks):
    where = f"{k} x {n}, {scheme}"
    source, plain, nested = (folder / name for name in ("f.onnx", "plain.onnx", "nested.onnx"))
    onnx.save(product(k, n), source)
    done, before = quantize(source, plain, scheme, "--format", "qdq")
    checks.check(done.code == 0, f"{where}: {done}")
    done, after = quantize(source, nested, scheme, "--double-quantization")
    if not checks.check(done.code == 0, f"{where}: {done}"):
        return
    onnx.checker.check_model(onnx.load(nested), full_check=True)
    scales, steps, arrays = read_scales(nested)
    expected = numpy_helper.to_array(
        next(i for i in onnx.load(plain).graph.initializer if i.name == "w_scale"))
    checks.check((np.abs(scales - expected) <= 0.501 * steps).all(),
                 f"{where}: scales are {np.abs((scales - expected) / steps).max():.2f} steps off")
    runs = -(-scales.size // RUN)
    saved = before["bytes_after"] - after["bytes_after"]
    checks.check(saved == scales.size * 3 - runs * 8, f"{where}: {saved} bytes are saved")
    if scheme == "w4g64s":
        bits = saved * 8 / (k * n)
        print(f"{where}: {bits:.3f} bits a weight saved")
        checks.check(0.37 <= bits < 0.38, f"{where}: {bits} bits are saved")
    weight = numpy_helper.to_array(onnx.load(source).graph.initializer[0]).astype(np.float64)
    dequantized = dequantize(arrays, scales, scheme).astype(np.float64)
    found = activations.ratio(weight, dequantized)
    checks.check(abs(found - after["sqnr_db"]) < 0.1 and found <= before["sqnr_db"] + 0.01,
                 f"{where}: {found} dB, not {after['sqnr_db']}; before {before['sqnr_db']}")

    x = np.random.default_rng(1).standard_normal((5, k)).astype(np.float32)
    product64 = x.astype(np.float64) @ dequantized
    found = linear_layers.session(onnx.load(nested)).run(None, {"x": x})[0]
    checks.check(activations.ratio(product64, found) > 110,
                 f"{where}: ONNX Runtime differs: {activations.ratio(product64, found):.0f} dB")
    (folder / "input_0.pb").write_bytes(numpy_helper.from_array(x).SerializeToString())
    done = support.run(support.tool("nibble-run-reference"), nested, "--inputs", folder,
                       "--outputs", folder)
    if checks.check(done.code == 0, f"{where}: {done}"):
        found = numpy_helper.to_array(onnx.load_tensor(folder / "output_0.pb"))
        checks.check(activations.ratio(product64, found) > 110, f"{where}: the reference differs")


def check_errors(folder, checks):
    source, target = folder / "f.onnx", folder / "no.onnx"
    for scheme, options, reason in (("nf4g64", [], "code book"),
                                    ("w4g64s", ["--format", "matmulnbits"], "--format")):
        done, _ = quantize(source, target, scheme, "--double-quantization", *options)
        checks.check(done.code == 1 and reason in done.stderr, f"{scheme} {options}: {done}")
        checks.check(not target.exists(), f"{scheme}: a file was written")
    done = support.run(support.tool("nibble-opt"), source, "--nibble-quantize-scales=run=0")
    checks.check(done.code == 1 and "share a step" in done.stderr, done)


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        for layer in LAYERS:
            check_layer(*layer, folder, checks)
        check_errors(folder, checks)
    checks.finish()


main()
