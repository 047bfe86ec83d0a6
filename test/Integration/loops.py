# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Reductions, chains of elementwise ops and products of two computed matrices over odd sizes.

The results are ONNX Runtime's, and they have the same bits for any number of threads.
"""

import hashlib
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import compiled
import kernels
import support

# The first runs on one thread, the others have work enough for several.
SIZES = [(2, 3, 5, 7), (3, 5, 67, 131), (1, 1, 301, 257)]
ROWS = ("x86-64", "x86-64-v3", "x86-64-v4")


def make_model():
    """Everything is computed from x [a, b, c, d]."""
    axes = {"all": [0, 1, 2, 3], "last": [3], "first": [0], "outer": [0, 2], "odd": [1, 3]}
    constants = {name: np.array(value, np.int64) for name, value in axes.items()}
    constants |= {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    nodes = [helper.make_node("Softmax", ["x"], ["softmax"], axis=-1),
             helper.make_node("Softmax", ["x"], ["softmax_1"], axis=1),
             helper.make_node("Add", ["x", "three"], ["moved"]),
             helper.make_node("Clip", ["moved", "zero", "six"], ["clipped"]),
             helper.make_node("Mul", ["x", "clipped"], ["activated"]),
             helper.make_node("Transpose", ["x"], ["rotated"], perm=[2, 0, 3, 1]),
             helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 1, 3, 2]),
             helper.make_node("MatMul", ["x", "turned"], ["product"]),
             helper.make_node("MatMul", ["turned", "x"], ["other_product"])]
    outputs = ["softmax", "softmax_1", "activated", "rotated", "product", "other_product"]
    for kind in ("Mean", "Max", "Min", "L2"):
        for name in axes:
            outputs.append(f"{kind}_{name}")
            nodes.append(helper.make_node(f"Reduce{kind}", ["x", name], [outputs[-1]],
                                          keepdims=len(name) % 2))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list("abcd"))
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    initializers = [numpy_helper.from_array(np.asarray(value), name)
                    for name, value in constants.items()]
    graph = helper.make_graph(nodes, "loops", [x], results, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def make_inputs():
    random = np.random.default_rng(11)
    return [random.standard_normal(size, np.float32) for size in SIZES]


def print_digest(library):
    model = compiled.Model(library, "loops")
    digest = hashlib.sha256()
    for x in make_inputs():
        for y in model.run(x):
            digest.update(y.tobytes())
    print(digest.hexdigest())


def count_digests(library):
    digests = set()
    for threads in ("1", "2", "5"):
        result = support.must_run(sys.executable, __file__, library,
                                  environment={"OMP_NUM_THREADS": threads})
        digests.add(result.stdout)
    return len(digests)


def main():
    checks = support.Checks()
    proto = make_model()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    names = [output.name for output in proto.graph.output]
    with support.scratch() as folder:
        path = pathlib.Path(folder) / "loops.onnx"
        onnx.save(proto, path)
        for row in ROWS:
            library = pathlib.Path(folder) / f"loops_{ROWS.index(row)}.so"
            support.must_run(support.tool("nibble"), "compile", path, "-o", library,
                             "--target", row, "--name", "loops", "--quiet")
            try:
                model = compiled.Model(library, "loops")
            except compiled.ModelError as error:
                checks.check(error.status == compiled.NO_CPU, f"{row}: {error.message}")
                continue
            for x in make_inputs():
                for name, y, expected in zip(names, model.run(x), session.run(None, {"x": x})):
                    error = kernels.distance(y, expected)
                    checks.check(y.shape == expected.shape and error <= 1e-5,
                                 f"{row} {name} of {x.shape}: error {error:.1e}")
            model.close()
            checks.check(count_digests(library) == 1, f"{row}: bits depend on threads")
    checks.finish()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_digest(sys.argv[1])
    else:
        main()
