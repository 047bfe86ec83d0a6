"""Reads quantized ONNX models with NumPy alone, to judge Nibble and ONNX Runtime by.

Written from the operators' specifications and sharing no code with Nibble: unpacking,
dequantization and a small float64 interpreter of graphs of linear layers. Not a test
itself.
"""

import dataclasses
import math

import numpy as np
import onnx
from onnx import TensorProto, helper

# bitsandbytes' code books, by code.
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])
FP4_POSITIVE = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3]) / 12
FP4 = np.concatenate([FP4_POSITIVE, -FP4_POSITIVE])

# Storage types of QuantizeLinear: bits and whether signed.
INTEGERS = {
    TensorProto.UINT8: (8, False), TensorProto.INT8: (8, True),
    TensorProto.UINT4: (4, False), TensorProto.INT4: (4, True),
    TensorProto.UINT2: (2, False), TensorProto.INT2: (2, True),
}


class NotUnderstood(Exception):
    """The model holds something that the interpreter lacks."""


@dataclasses.dataclass
class Weight:
    """A dequantized weight, all fields of the shape that MatMul takes, [K, N].

    nearest: the best that the same scales, zero points and codes could do for each
    element of `original`, as a function of it. step: the scale of each element.
    """

    values: np.ndarray
    step: np.ndarray
    nearest: object
    kind: str


def unpack(data, bits, count):
    """The first `count` codes of each row of bytes [..., n], low bits first."""
    data = np.asarray(data, np.uint8)
    per_byte = 8 // bits
    shifts = np.arange(per_byte) * bits
    codes = data[..., None] >> shifts & ((1 << bits) - 1)
    return codes.reshape(*data.shape[:-1], -1)[..., :count].astype(np.int64)


def read_tensor(tensor):
    """Any initializer as an array; 2- and 4-bit types as int64 codes."""
    bits, signed = INTEGERS.get(tensor.data_type, (8, False))
    if bits == 8:
        return onnx.numpy_helper.to_array(tensor)
    count = math.prod(tensor.dims)
    raw = tensor.raw_data
    if not raw:
        raise NotUnderstood(f"{tensor.name}: typed data of a quantized tensor")
    if len(raw) != math.ceil(count * bits / 8):
        raise NotUnderstood(f"{tensor.name}: {len(raw)} bytes for {count} codes of {bits} bits")
    codes = unpack(np.frombuffer(raw, np.uint8), bits, count)
    if signed:
        codes = np.where(codes >= 1 << bits - 1, codes - (1 << bits), codes)
    return codes.reshape(tuple(tensor.dims))


def spread(parameters, axis, block, extent):
    """Repeats blocked parameters along `axis` to `extent` elements."""
    return np.repeat(parameters, block, axis=axis).take(np.arange(extent), axis=axis)


def nearest_integer(step, zero, low, high):
    def nearest(original):
        safe = np.where(step == 0, 1, step)
        codes = np.clip(np.rint(original / safe) + zero, low, high)
        return np.where(step == 0, 0, (codes - zero) * step)

    return nearest


def matmul_nbits(attributes, inputs):
    """The weight of com.microsoft.MatMulNBits."""
    k, n = attributes["K"], attributes["N"]
    bits, block = attributes.get("bits", 4), attributes["block_size"]
    blocks = math.ceil(k / block)
    packed = np.asarray(inputs[1]).reshape(n, blocks, block * bits // 8)
    codes = unpack(packed, bits, block).reshape(n, -1)[:, :k]
    scales = np.asarray(inputs[2], np.float64).reshape(n, blocks)
    zeros = inputs[3] if len(inputs) > 3 else None
    if zeros is None:
        zeros = np.full((n, blocks), 1 << bits - 1, np.float64)
    elif zeros.dtype == np.uint8:
        zeros = unpack(zeros.reshape(n, math.ceil(blocks * bits / 8)), bits, blocks)
    zeros = np.asarray(zeros, np.float64).reshape(n, blocks)
    step = spread(scales, 1, block, k).T
    zero = spread(zeros, 1, block, k).T
    nearest = nearest_integer(step, zero, 0, (1 << bits) - 1)
    return Weight((codes.T - zero) * step, step, nearest, "MatMulNBits")


def matmul_bnb4(attributes, inputs):
    """The weight of com.microsoft.MatMulBnb4: blocks over the flattened [N, K], high
    bits first."""
    k, n, block = attributes["K"], attributes["N"], attributes["block_size"]
    book = NF4 if attributes["quant_type"] == 1 else FP4
    packed = np.asarray(inputs[1], np.uint8).reshape(-1)
    codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[: n * k]
    largest = spread(np.asarray(inputs[2], np.float64), 0, block, n * k)
    step = largest.reshape(n, k).T

    def nearest(original):
        candidates = step[..., None] * book
        best = np.abs(candidates - original[..., None]).argmin(axis=-1)
        return np.take_along_axis(candidates, best[..., None], axis=-1)[..., 0]

    values = (book[codes] * largest).reshape(n, k).T
    return Weight(values, step, nearest, "MatMulBnb4")


def dequantize_linear(attributes, inputs, types):
    """The weight, in the shape that it is stored in, of DequantizeLinear."""
    codes = inputs[0].astype(np.int64)
    scale = np.asarray(inputs[1], np.float64)
    zero = np.zeros_like(scale) if len(inputs) < 3 else np.asarray(inputs[2], np.float64)
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if block:
        extent = codes.shape[axis]
        if scale.shape[axis] != math.ceil(extent / block):
            raise NotUnderstood(f"{scale.shape[axis]} scales for {extent} in blocks of {block}")
        scale, zero = (spread(each, axis, block, extent) for each in (scale, zero))
    elif scale.size > 1:
        shape = [1] * codes.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    bits, signed = types
    low = -(1 << bits - 1) if signed else 0
    step, zero = (np.broadcast_to(each, codes.shape) for each in (scale, zero))
    nearest = nearest_integer(step, zero, low, low + (1 << bits) - 1)
    return Weight((codes - zero) * step, step, nearest, "DequantizeLinear")


def transpose(weight):
    return Weight(weight.values.T, weight.step.T, lambda w: weight.nearest(w.T).T, weight.kind)


class Interpreter:
    """Runs a graph of linear layers in float64.

    bits: how many a code uses, where its container may have more.
    weights: after run(), {name of the activation: Weight} of each quantized layer.
    """

    def __init__(self, model, bits=None):
        self.graph = model.graph
        self.types = {t.name: INTEGERS.get(t.data_type) for t in model.graph.initializer}
        if bits:
            self.types = {n: (min(t[0], bits), t[1]) if t else t for n, t in self.types.items()}
        self.constants = {t.name: read_tensor(t) for t in model.graph.initializer}
        self.weights = {}

    def run(self, feeds):
        values = {"": None, **self.constants}
        values |= {name: np.asarray(array, np.float64) for name, array in feeds.items()}
        for node in self.graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            inputs = [values[name] for name in node.input]
            result = self._node(node, attributes, inputs)
            values[node.output[0]] = result
        return {output.name: values[output.name] for output in self.graph.output}

    def _linear(self, activation, node, right):
        if isinstance(right, Weight):
            self.weights[node.input[0]] = right
            right = right.values
        return activation @ np.asarray(right, np.float64)

    def _node(self, node, attributes, inputs):
        kind = node.op_type
        if kind == "MatMulNBits":
            if len(inputs) > 4 and inputs[4] is not None:
                raise NotUnderstood("g_idx is written; ONNX Runtime then ignores zero points")
            product = self._linear(inputs[0], node, matmul_nbits(attributes, inputs))
            return product + inputs[5] if len(inputs) > 5 else product
        if kind == "MatMulBnb4":
            return self._linear(inputs[0], node, matmul_bnb4(attributes, inputs))
        if kind == "DequantizeLinear":
            return dequantize_linear(attributes, inputs, self.types[node.input[0]])
        if kind == "Transpose" and isinstance(inputs[0], Weight):
            return transpose(inputs[0])
        if kind == "MatMul":
            return self._linear(inputs[0], node, inputs[1])
        if kind == "Gemm":
            right = inputs[1]
            if attributes.get("transA") or not (
                attributes.get("alpha", 1) == attributes.get("beta", 1) == 1
            ):
                raise NotUnderstood("Gemm with factors")
            if attributes.get("transB"):
                right = transpose(right) if isinstance(right, Weight) else right.T
            product = self._linear(inputs[0], node, right)
            return product + inputs[2] if len(inputs) > 2 else product
        if kind == "Add":
            return inputs[0] + inputs[1]
        if kind == "Identity":
            return inputs[0]
        raise NotUnderstood(f"op {kind}")
