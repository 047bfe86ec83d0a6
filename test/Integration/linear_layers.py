"""Small models of linear layers, quantized by `nibble quantize` and judged by the
oracle and by ONNX Runtime: what the interop tests share. Not a test itself."""

import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import oracle
import support

NIBBLE = support.tool("nibble")
BLOCKS = (16, 32, 64, 128, 256)
# K and N: less than a block, odd, prime, a multiple of every block.
SHAPES = ((7, 33), (67, 5), (131, 48), (257, 3), (512, 17))
BIASES = ("none", "add", "gemm", "gemm transposed")
# ONNX Runtime has other kernels for one row than for several.
ROWS = (1, 5)


def weight_of(k, n, generator):
    """[K, N] with what is hard to quantize: a block of zeros, a constant block, one
    that is positive throughout, a large outlier."""
    values = generator.standard_normal((k, n)).astype(np.float32) * 0.1
    values[:16, 0] = 0
    values[:, n // 3] = 0.25
    values[:, n // 2] = np.abs(values[:, n // 2]) + 1
    values[k // 2, n - 1] = -7
    return values


def layers(shapes=SHAPES, biases=BIASES):
    """Returns (model, {name of the input: its weight [K, N]}); each layer has an input
    and an output of its own."""
    generator = np.random.default_rng(1)
    nodes, initializers, inputs, outputs, weights = [], [], [], [], {}

    def constant(name, values):
        initializers.append(numpy_helper.from_array(values, name))
        return name

    for k, n in shapes:
        for bias in biases:
            name = f"layer_{k}_{n}_{bias.replace(' ', '_')}"
            x, y = f"{name}_input", f"{name}_output"
            values = weight_of(k, n, generator)
            weights[x] = values
            offset = generator.standard_normal(n).astype(np.float32)
            if bias == "gemm transposed":
                weight = constant(f"{name}_weight", np.ascontiguousarray(values.T))
            else:
                weight = constant(f"{name}_weight", values)
            if bias == "none":
                nodes.append(helper.make_node("MatMul", [x, weight], [y], name=name))
            elif bias == "add":
                product = f"{name}_product"
                nodes.append(helper.make_node("MatMul", [x, weight], [product], name=name))
                added = [product, constant(f"{name}_bias", offset)]
                nodes.append(helper.make_node("Add", added, [y], name=f"{name}_add"))
            else:
                operands = [x, weight, constant(f"{name}_bias", offset)]
                transposed = int(bias == "gemm transposed")
                nodes.append(helper.make_node("Gemm", operands, [y], name=name, transB=transposed))
            inputs.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, ["rows", k]))
            outputs.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, ["rows", n]))
    graph = helper.make_graph(nodes, "layers", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8), weights


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Float32 all through: by default, ONNX Runtime rounds activations to 8 bits where
    # it makes a MatMulNBits from a QDQ pair.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def at_full_accuracy(model):
    """The same model with MatMulNBits computing in float32."""
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = 1
    return model


def quantize(model, folder, *options):
    """Returns (the quantized model or None, what the tool did)."""
    source, target = pathlib.Path(folder) / "layers.onnx", pathlib.Path(folder) / "out.onnx"
    target.unlink(missing_ok=True)
    onnx.save(model, source)
    done = support.run(NIBBLE, "quantize", source, "-o", target, "--method", "round", *options)
    return (onnx.load(target) if done.code == 0 else None), done


def check_results(name, quantized, weights, checks, bits=None):
    """ONNX Runtime computes what the file says, by the oracle, within 1e-5."""
    interpreter = oracle.Interpreter(quantized, bits)
    runtime = session(at_full_accuracy(quantized))
    generator = np.random.default_rng(2)
    for rows in ROWS:
        feeds = {
            x: generator.standard_normal((rows, len(w))).astype(np.float32)
            for x, w in weights.items()
        }
        expected = interpreter.run(feeds)
        found = dict(zip(expected, runtime.run(list(expected), feeds)))
        for output, values in expected.items():
            error = np.abs(found[output] - values).max() / np.abs(values).max()
            checks.check(
                error <= 1e-5, f"{name}, {output}, {rows} rows: relative error {error:.2g}"
            )
    return interpreter.weights


def check_rounding(name, found, weights, checks, bound=0.5, kind=None):
    """Every layer is quantized, each code is the best for its scale, and the error is
    within `bound` steps, if given."""
    for x, original in weights.items():
        if not checks.check(x in found, f"{name}: {x} is not quantized"):
            continue
        weight = found[x]
        if kind:
            checks.check(weight.kind == kind, f"{name}: {x} became {weight.kind}")
        original = original.astype(np.float64)
        error = np.abs(weight.values - original)
        best = np.abs(weight.nearest(original) - original)
        slack = 1e-6 * np.abs(original) + 1e-12
        worst = (error - best - slack).max()
        checks.check(worst <= 0, f"{name}: {x}: not the nearest code, by {worst:.3g}")
        if bound is None:
            continue
        excess = (error - bound * np.abs(weight.step) * (1 + 1e-6) - slack).max()
        checks.check(excess <= 0, f"{name}: {x}: {excess:.3g} above {bound} steps")
