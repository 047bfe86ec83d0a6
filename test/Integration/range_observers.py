# RUN: %python %s
# REQUIRES: numpy, onnx
"""`nibble quantize --observer` chooses the ranges of activations that twins in NumPy find by
trying every candidate, on distributions of several shapes, whatever the number of threads."""

import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

import support

NIBBLE = support.tool("nibble")
BINS, CODES, STRIDE = 2048, 256, 16
SAMPLES, ROWS, WIDTH = 32, 1024, 16


def percentile(counts, edges, zero):
    allowed = 5e-5 * counts.sum()
    first = min(int((np.cumsum(counts) <= allowed).sum()), zero)
    last = max(BINS - int((np.cumsum(counts[::-1]) <= allowed).sum()), zero + 1)
    return first, last


def divergence(counts, first, last):
    inside = counts[first:last].astype(np.float64)
    size = last - first
    levels = np.zeros(size)
    for level in range(CODES):
        part = slice(level * size // CODES, (level + 1) * size // CODES)
        filled = inside[part] > 0
        levels[part] = np.where(filled, inside[part].sum() / max(filled.sum(), 1), 0)
    if not inside.sum():
        return np.inf
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    p = clipped / counts.sum()
    q = np.maximum(levels / inside.sum(), 1e-4 / BINS)
    seen = p > 0
    return (p[seen] * np.log(p[seen] / q[seen])).sum()


def entropy(counts, edges, zero):
    candidates = [(0, last) for last in range(BINS, max(zero, CODES - 1), -STRIDE)]
    _, last = min(candidates, key=lambda bins: divergence(counts, *bins))
    candidates = [(first, last) for first in range(0, zero + 1, STRIDE)
                  if first == 0 or first + CODES <= last]
    return min(candidates, key=lambda bins: divergence(counts, *bins))


def squares(counts, edges, zero):
    middles = (edges[1:] + edges[:-1]) / 2

    def error(bins):
        low, high = edges[bins[0]], edges[bins[1]]
        step = (high - low) / (CODES - 1)
        outside = np.maximum(middles - high, 0) + np.maximum(low - middles, 0)
        inside = counts[bins[0]:bins[1]].sum()
        return (counts * outside ** 2).sum() + inside * step ** 2 / 12

    return min(((first, last) for last in range(BINS, zero, -STRIDE)
                for first in range(0, zero + 1, STRIDE) if first < last), key=error)


TWINS = {"percentile": percentile, "entropy": entropy, "mse": squares}


def choose_by_twin(name, values):
    """The least and the largest number with a code of its own."""
    low, high = min(values.min(), np.float32(0)), max(values.max(), np.float32(0))
    width = (float(high) - float(low)) / BINS
    if name == "minmax" or width == 0:
        return low, high
    edges = float(low) + np.arange(BINS + 1) * width
    exact = values.astype(np.float64)
    places = np.clip(np.floor((exact - float(low)) / width), 0, BINS - 1).astype(np.int64)
    counts = np.bincount(places.ravel(), minlength=BINS).astype(np.float64)
    zero = int(np.clip(np.floor(-float(low) / width), 0, BINS - 1))
    first, last = TWINS[name](counts, edges, zero)
    return (low if first == 0 else np.float32(min(edges[first], 0)),
            high if last == BINS else np.float32(max(edges[last], 0)))


def distributions(generator):
    count = SAMPLES * ROWS
    bases = {
        "normal": generator.standard_normal(count),
        "outliers": np.r_[generator.standard_normal(count - 2), 9, -5],
        "positive": np.abs(generator.standard_normal(count)) ** 3,
        "negative": -generator.exponential(2, count),
        "spike": np.r_[np.zeros(count - 500), generator.uniform(-1, 8, 500)],
        "zero": np.zeros(count),
    }
    for name, base in bases.items():
        # The same numbers in all channels, so that none is scaled to be like the others.
        columns = [generator.permutation(base.astype(np.float32)) for _ in range(WIDTH)]
        yield name, np.stack(columns, -1).reshape(SAMPLES, ROWS, WIDTH)


def products(names, generator):
    """A product of each input with a matrix of 1 and -1."""
    nodes, inputs, outputs, weights = [], [], [], []
    for name in names:
        values = generator.choice([-1, 1], (WIDTH, WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"{name}.w"))
        nodes.append(helper.make_node("MatMul", [name, f"{name}.w"], [f"{name}.y"], name=name))
        inputs.append(helper.make_tensor_value_info(name, 1, ["n", WIDTH]))
        outputs.append(helper.make_tensor_value_info(f"{name}.y", 1, ["n", WIDTH]))
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def read_scales(path):
    """By the name of what is quantized: scale and zero point."""
    model = onnx.load(path)
    constants = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    return {node.input[0]: [constants[name] for name in node.input[1:]]
            for node in model.graph.node if node.op_type == "QuantizeLinear"}


def check_observer(folder, checks, name, values):
    """How many of the ranges are narrower than all that was seen."""
    files = []
    for threads in (1, 2):
        done = support.run(
            NIBBLE, "quantize", "m.onnx", "-o", "q.onnx", "--calib", "x.npz", "--samples", SAMPLES,
            "--activations", "u8", "--scheme", "w8cs", "--observer", name, "--no-evaluate",
            "--threads", threads, cwd=folder)
        checks.check(done.code == 0, done)
        files.append((folder / "q.onnx").read_bytes())
    checks.check(files[0] == files[1], f"{name} depends on threads")
    narrower = 0
    for shape, (scale, zero) in read_scales(folder / "q.onnx").items():
        low, high = choose_by_twin(name, values[shape])
        expected = (float(high) - float(low)) / 255 or 1
        checks.check(np.isclose(scale, expected, rtol=1e-5),
                     f"{name} of {shape}: scale {scale}, not {expected}")
        checks.check(abs(zero - -float(low) / expected) < 0.51, f"{name} of {shape}: zero {zero}")
        narrower += float(high) - float(low) < float(np.ptp(values[shape])) - 1e-6
    return narrower


def main():
    checks = support.Checks()
    generator = np.random.default_rng(9)
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        values = dict(distributions(generator))
        onnx.save(products(values, generator), folder / "m.onnx")
        np.savez(folder / "x.npz", **values)
        for name in ("minmax", *TWINS):
            narrower = check_observer(folder, checks, name, values)
            print(f"{name}: {narrower} of {len(values)} ranges are narrower than all")
            checks.check((narrower > 0) == (name != "minmax"), f"{name} cuts nothing off")
        done = support.run(NIBBLE, "quantize", "m.onnx", "--observer", "median", cwd=folder)
        checks.check(done.code != 0 and "median" in done.stderr, done)
    checks.finish()


main()
