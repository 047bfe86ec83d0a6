# RUN: %python %s
# REQUIRES: numpy, onnx
"""Convolutions and products of quantized activations with quantized weights, summed in
integers, on every target row that this machine can run, over odd sizes.

What is expected is computed in NumPy in double precision from the codes. The results'
place is filled with NaN before, and memory behind it must stay as it was.
"""

import itertools
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import kernels
import support

# Input channels, output channels, groups, kernel, strides, dilations, pads, signed
# activations: taps that are no multiple of four, several passes of taps and of channels,
# strides with vectors and without, padding with a zero point that is not 0, and few
# channels, which stay in float.
CONVOLUTIONS = [
    (3, 16, 1, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), False),
    (17, 33, 1, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), False),
    (5, 7, 1, (1, 1), (2, 2), (1, 1), (0, 0, 0, 0), True),
    (4, 130, 1, (5, 3), (1, 1), (2, 1), (2, 1, 0, 1), False),
    (40, 5, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), True),
    (6, 18, 3, (3, 3), (1, 3), (1, 2), (1, 1, 1, 2), False),
    (9, 20, 1, (7,), (1,), (1,), (3, 3), False),
    (6, 6, 6, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), False),
]
# Inputs, outputs, signed activations: parts of a group, of a quad and of a tile.
PRODUCTS = [(256, 70, False), (33, 129, True), (130, 1, False)]
# Items and sizes of the last dimensions.
SIZES = [(1, (7, 9)), (2, (20, 70)), (1, (9, 131))]


def quantize(x, scale, zero, signed):
    low = -128 if signed else 0
    return np.clip(np.rint(x / np.float32(scale)) + zero, low, low + 255).astype(np.int64)


def convolve(x, w, groups, strides, dilations, pads):
    """Of integers; x is padded with 0."""
    spatial = w.ndim - 2
    padding = [(0, 0), (0, 0)] + [(pads[i], pads[i + spatial]) for i in range(spatial)]
    x = np.pad(x, padding)
    extents = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, w.shape[2:])]
    counts = [(size - extent) // stride + 1
              for size, extent, stride in zip(x.shape[2:], extents, strides)]
    items, channels = len(x), len(w)
    result = np.zeros((items, channels, *counts), np.int64)
    x = x.reshape(items, groups, -1, *x.shape[2:])
    w = w.reshape(groups, -1, *w.shape[1:])
    sums = result.reshape(items, groups, -1, *counts)
    for tap in itertools.product(*map(range, w.shape[3:])):
        window = tuple(slice(place * dilation, place * dilation + stride * (count - 1) + 1, stride)
                       for place, dilation, stride, count in zip(tap, dilations, strides, counts))
        sums += np.einsum("ngc...,gmc->ngm...", x[(slice(None),) * 3 + window],
                          w[(slice(None),) * 3 + tap])
    return result


class Case:
    """One product: its nodes in `model`, and what it should compute."""

    def __init__(self, index, random):
        self.index, self.nodes, self.initializers = index, [], []
        self.scale = np.float32(random.uniform(0.02, 0.03))

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.asarray(array), f"{name}{self.index}"))
        return f"{name}{self.index}"

    def add_quantized(self, signed, zero):
        """x through a pair of QuantizeLinear and DequantizeLinear."""
        self.signed, self.zero = signed, zero
        kind = np.int8 if signed else np.uint8
        parts = [self.constant("scale", self.scale), self.constant("zero", kind(zero))]
        i = self.index
        self.nodes += [
            helper.make_node("QuantizeLinear", [f"x{i}", *parts], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", *parts], [f"d{i}"])]

    def add_weight(self, random, shape, axis):
        self.weight = random.integers(-127, 128, shape)
        self.weight_scales = random.uniform(0.01, 0.02, shape[axis]).astype(np.float32)
        self.nodes.append(helper.make_node(
            "DequantizeLinear",
            [self.constant("codes", self.weight.astype(np.int8)),
             self.constant("scales", self.weight_scales)], [f"w{self.index}"], axis=axis))

    def codes(self, x):
        return quantize(x, self.scale, self.zero, self.signed) - self.zero


class ConvolutionCase(Case):
    def __init__(self, index, random, case):
        super().__init__(index, random)
        channels, results, self.groups, kernel, *self.windows, signed = case
        self.channels, self.spatial = channels, len(kernel)
        self.add_quantized(signed, 9 if signed else 131)
        self.add_weight(random, (results, channels // self.groups, *kernel), 0)
        self.bias = random.standard_normal(results).astype(np.float32)
        strides, dilations, pads = self.windows
        self.nodes.append(helper.make_node(
            "Conv", [f"d{index}", f"w{index}", self.constant("bias", self.bias)], [f"y{index}"],
            group=self.groups, kernel_shape=kernel, strides=strides, dilations=dilations,
            pads=pads))
        self.input_shape = ["n", channels, *(f"d{axis}" for axis in range(2 - len(kernel), 2))]
        self.output_shape = [None, results, *[None] * len(kernel)]

    def make_input(self, random, items, sizes):
        shape = (items, self.channels, *sizes[2 - self.spatial:])
        return random.standard_normal(shape, np.float32)

    def expect(self, x):
        sums = convolve(self.codes(x), self.weight, self.groups, *self.windows)
        channel = (-1,) + (1,) * self.spatial
        scales = self.weight_scales.astype(np.float64) * self.scale
        return sums * scales.reshape(channel) + self.bias.reshape(channel)


class ProductCase(Case):
    def __init__(self, index, random, case):
        super().__init__(index, random)
        self.inputs, outputs, signed = case
        self.add_quantized(signed, -7 if signed else 120)
        self.add_weight(random, (self.inputs, outputs), 1)
        self.nodes.append(
            helper.make_node("MatMul", [f"d{index}", f"w{index}"], [f"y{index}"]))
        self.input_shape = ["n", "d0", self.inputs]
        self.output_shape = [None, None, outputs]

    def make_input(self, random, items, sizes):
        return random.standard_normal((items, sizes[0], self.inputs), np.float32)

    def expect(self, x):
        scales = self.weight_scales.astype(np.float64) * self.scale
        return (self.codes(x) @ self.weight) * scales


def make_model(cases):
    graph = helper.make_graph(
        [node for case in cases for node in case.nodes], "integers",
        [helper.make_tensor_value_info(f"x{case.index}", TensorProto.FLOAT, case.input_shape)
         for case in cases],
        [helper.make_tensor_value_info(f"y{case.index}", TensorProto.FLOAT, case.output_shape)
         for case in cases],
        [tensor for case in cases for tensor in case.initializers])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def check_row(checks, row, folder, path, cases):
    model = kernels.load_row(checks, row, folder, path, "integers")
    if not model:
        return
    random = np.random.default_rng(5)
    for items, sizes in SIZES:
        arrays = [case.make_input(random, items, sizes) for case in cases]
        expected = [case.expect(x) for case, x in zip(cases, arrays)]
        results, untouched = kernels.run_guarded(model, arrays, [y.shape for y in expected])
        checks.check(untouched, f"{row} {items} × {sizes}: writes behind a result")
        for case, result, right in zip(cases, results, expected):
            error = kernels.distance(result, right)
            checks.check(error <= 1e-5, f"{row} case {case.index} of {items} × {sizes}: "
                                        f"error {error:.1e}")
    model.close()


def check_used(checks, path):
    """All but the last convolution, whose groups have one channel, sum integers."""
    done = support.must_run(support.tool("nibble"), "compile", path, "--emit", "nibble")
    count = done.stdout.count("arith.extui")
    checks.check(count == len(CONVOLUTIONS) - 1, f"{count} convolutions of bytes")
    count = done.stdout.count("activation_scale")
    checks.check(count == len(PRODUCTS), f"{count} products of codes")


def main():
    checks = support.Checks()
    random = np.random.default_rng(3)
    cases = [ConvolutionCase(i, random, case) for i, case in enumerate(CONVOLUTIONS)]
    cases += [ProductCase(len(CONVOLUTIONS) + i, random, case)
              for i, case in enumerate(PRODUCTS)]
    with support.scratch() as name:
        folder = pathlib.Path(name)
        path = folder / "integers.onnx"
        onnx.save(make_model(cases), path)
        check_used(checks, path)
        for row in kernels.ROWS:
            check_row(checks, row, folder, path, cases)
    checks.finish()


if __name__ == "__main__":
    main()
