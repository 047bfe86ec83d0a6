"""Small ONNX models of random weights, node by node. Not a test."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class Builder:
    """Collects nodes and random weights."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def add(self, op_type, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape):
        scale = 1 / np.sqrt(np.prod(shape[:-1]) if len(shape) < 4 else np.prod(shape[1:]))
        return self.constant((self.random.standard_normal(shape) * scale).astype(np.float32))

    def save(self, path, inputs, outputs):
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
            [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
            self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)],
                                  ir_version=9)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)


def dequantize(node, weights):
    """The matrix [K, N] of a MatMulNBits, as ONNX Runtime multiplies by it."""
    K, N = (next(a.i for a in node.attribute if a.name == name) for name in "KN")
    graph = helper.make_graph(
        [node], "weight", [helper.make_tensor_value_info(node.input[0], FLOAT, [K, K])],
        [helper.make_tensor_value_info(node.output[0], FLOAT, [K, N])],
        [weights[name] for name in node.input[1:] if name])
    model = helper.make_model(graph, ir_version=9, opset_imports=[
        helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {node.input[0]: np.eye(K, dtype=np.float32)})[0]


def round_products(source, target, scaled=False):
    """Writes the model with the factors, scales and results of its MatMulNBits in f16, as tensor
    cores have them; with `scaled`, weights times scales are rounded too, as for many rows. Returns
    where it is."""
    model = onnx.load(source)
    graph, nodes = model.graph, []
    weights = {weight.name: weight for weight in graph.initializer}

    def cast(name, result, kind):
        nodes.append(helper.make_node("Cast", [name], [result], to=kind))
        return result

    def round_weight(array, name):
        return numpy_helper.from_array(array.astype(np.float16).astype(np.float32), name)

    for node in graph.node:
        if node.op_type != "MatMulNBits":
            nodes.append(node)
            continue
        scales = weights[node.input[2]]
        scales.CopyFrom(round_weight(numpy_helper.to_array(scales), scales.name))
        result = node.output[0]
        cast(node.input[0], f"{result}_half", TensorProto.FLOAT16)
        factor = cast(f"{result}_half", f"{result}_x", FLOAT)
        if scaled:
            graph.initializer.append(round_weight(dequantize(node, weights), f"{result}_w"))
            node = helper.make_node("MatMul", [factor, f"{result}_w"], [result])
        node.input[0], node.output[0] = factor, f"{result}_sum"
        nodes.append(node)
        cast(f"{result}_sum", f"{result}_rounded", TensorProto.FLOAT16)
        cast(f"{result}_rounded", result, FLOAT)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.save(model, target)
    return target
