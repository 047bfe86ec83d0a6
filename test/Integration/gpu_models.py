# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
# Under sanitizers the simulator has not been tried.
# UNSUPPORTED: sanitizers
"""Whole models on a simulated GPU (`nibble run --device=simulator`) against ONNX Runtime: a block
of a transformer in f32 and with 4-bit weights, a small convolutional network, and a chain of
functions; with sizes that fit no tile, and dynamic ones."""

import pathlib

import numpy as np
import onnxruntime
from onnx import helper

import support
from graph_builder import BOOL, FLOAT, INT64, Builder, round_products

NIBBLE = support.tool("nibble")
WIDTH, HEADS, INNER, VOCABULARY = 72, 4, 84, 50


def build_transformer(path):
    b = Builder(1)
    f32 = np.float32

    def rms_norm(x):
        mean = b.add("ReduceMean", b.add("Pow", x, b.constant(f32(2))),
                     b.constant(np.array([-1], np.int64)))
        root = b.add("Sqrt", b.add("Add", mean, b.constant(f32(1e-5))))
        return b.add("Mul", b.add("Div", x, root), b.weight(WIDTH))

    def heads(x, order):
        shape = b.constant(np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
        return b.add("Transpose", b.add("Reshape", x, shape), perm=order)

    x = b.add("Gather", b.weight(VOCABULARY, WIDTH), "ids")
    normed = rms_norm(x)
    query, key, value = (b.add("MatMul", normed, b.weight(WIDTH, WIDTH)) for _ in range(3))
    scores = b.add("MatMul", heads(query, [0, 2, 1, 3]), heads(key, [0, 2, 3, 1]))
    scaled = b.add("Mul", scores, b.constant(f32((WIDTH // HEADS) ** -0.5)))
    masked = b.add("Where", "mask", scaled, b.constant(f32(-1e9)))
    mixed = b.add("MatMul", b.add("Softmax", masked, axis=-1), heads(value, [0, 2, 1, 3]))
    joined = b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]),
                   b.constant(np.array([0, 0, WIDTH], np.int64)))
    x = b.add("Add", x, b.add("MatMul", joined, b.weight(WIDTH, WIDTH)))
    normed = b.add("LayerNormalization", x, b.weight(WIDTH), b.weight(WIDTH), axis=-1)
    gate = b.add("MatMul", normed, b.weight(WIDTH, INNER))
    up = b.add("MatMul", normed, b.weight(WIDTH, INNER))
    inner = b.add("Mul", b.add("Mul", gate, b.add("Sigmoid", gate)), up)
    y = b.add("Add", x, b.add("MatMul", inner, b.weight(INNER, WIDTH)))
    b.save(path, [("ids", INT64, ["batch", "sequence"]),
                  ("mask", BOOL, ["sequence", "sequence"])], [y])


def draw_tokens(batch, sequence):
    random = np.random.default_rng(sequence)
    return {"ids": random.integers(-VOCABULARY, VOCABULARY, (batch, sequence)),
            "mask": np.tri(sequence, dtype=bool)}


def build_convolutions(path):
    b = Builder(2)
    x = b.add("Conv", "image", b.weight(6, 3, 3, 3), b.weight(6), pads=[1, 1, 1, 1],
              strides=[2, 2])
    x = b.add("Relu", x)
    x = b.add("Conv", x, b.weight(6, 1, 3, 3), group=6, pads=[1, 1, 1, 1])
    x = b.add("BatchNormalization", x, b.weight(6), b.weight(6), b.weight(6),
              b.constant(np.full(6, 0.5, np.float32)))
    x = b.add("MaxPool", b.add("HardSwish", x), kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("GlobalAveragePool", x)
    x = b.add("Gemm", b.add("Flatten", x), b.weight(5, 6), b.weight(5), transB=1)
    y = b.add("Softmax", x, axis=1)
    b.save(path, [("image", FLOAT, ["batch", 3, 13, 17])], [y])


def build_functions(path):
    """Functions that GPUs have no code for, and what the host has to do."""
    b = Builder(3)
    outputs = [b.add(name, "x") for name in (
        "Sin", "Cos", "Exp", "Tanh", "Erf", "Softplus", "Gelu", "Elu", "Floor", "Round", "Abs",
        "Sign", "Atan")]
    positive = b.add("Abs", "x")
    outputs += [b.add("Log", positive), b.add("Sqrt", positive),
                b.add("Pow", positive, b.constant(np.float32(1.7))),
                b.add("ReduceMax", "x", b.constant(np.array([0], np.int64)), keepdims=0),
                b.add("CumSum", "x", b.constant(np.int64(1)))]
    b.nodes.append(helper.make_node("TopK", ["x", b.constant(np.array([3], np.int64))],
                                    ["top", "places"], name="TopK"))
    b.save(path, [("x", FLOAT, ["rows", 37])], [*outputs, "top"])


def simulate(model, inputs, folder):
    """Returns the outputs and what was printed beside them."""
    np.savez(folder / "in.npz", **inputs)
    done = support.must_run(NIBBLE, "run", model, "--inputs", folder / "in.npz", "--outputs",
                     folder / "out.npz", "--device", "simulator", "--quiet")
    return np.load(folder / "out.npz"), done.stderr


def compare(checks, model, inputs, folder, limit, peer=None):
    """Bounds the root mean square of the error, relative to that of the output; `peer` is the
    model that ONNX Runtime takes, if it is another. Returns what was printed."""
    session = onnxruntime.InferenceSession(peer or model)
    expected = session.run(None, inputs)
    outputs, printed = simulate(model, inputs, folder)
    for output, right in zip(session.get_outputs(), expected):
        got = outputs[output.name]
        if not checks.check(got.shape == right.shape, f"{output.name}: shape {got.shape}"):
            continue
        error = np.sqrt(np.mean((got - right) ** 2) / np.mean(right ** 2))
        checks.check(error <= limit, f"{model.name}, {output.name}: error {error}")
    return printed


def main():
    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        block = folder / "block.onnx"
        build_transformer(block)
        for batch, sequence in (1, 1), (2, 9):
            compare(checks, block, draw_tokens(batch, sequence), folder, 1e-6)
        np.savez(folder / "in.npz", ids=np.full((1, 2), VOCABULARY), mask=np.tri(2, dtype=bool))
        done = support.run(NIBBLE, "run", block, "--inputs", folder / "in.npz", "--device",
                           "simulator")
        checks.check(done.code == 1 and "node 'v0': index is out of range" in done.stderr, done)
        convolutions = folder / "convolutions.onnx"
        build_convolutions(convolutions)
        image = np.random.default_rng(4).standard_normal((2, 3, 13, 17)).astype(np.float32)
        compare(checks, convolutions, {"image": image}, folder, 1e-6)
        functions = folder / "functions.onnx"
        build_functions(functions)
        x = (np.random.default_rng(5).standard_normal((4, 37)) * 4).astype(np.float32)
        compare(checks, functions, {"x": x}, folder, 2e-6)

        quantized = folder / "quantized.onnx"
        support.must_run(NIBBLE, "quantize", block, "-o", quantized, "--scheme", "w4g32",
                         "--quiet")
        # What lies between two numbers of f16 may go to the other one.
        for (batch, sequence), scaled in ((1, 1), False), ((2, 9), True):
            rounded = round_products(quantized, folder / "rounded.onnx", scaled)
            compare(checks, quantized, draw_tokens(batch, sequence), folder, 2.0 ** -12, rounded)
        # Groups of 16 have no kernel for tensor cores, and that is said of each product.
        support.must_run(NIBBLE, "quantize", block, "-o", quantized, "--scheme", "w4g16",
                         "--quiet")
        printed = compare(checks, quantized, draw_tokens(2, 9), folder, 1e-6)
        checks.check(printed.count("the weight has no kernel for tensor cores") == 7
                     and "'v31': the weight" in printed, printed)
    checks.finish()


if __name__ == "__main__":
    main()
