# RUN: %python %s
# REQUIRES: numpy, onnx
"""Runs nodes on inputs whose sizes or indices do not fit, which nothing says before the
run: each ends with an error that names the node, and with the right inputs it runs."""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import support


def floats(*shape):
    return np.ones(shape, np.float32)


def ints(*values):
    return np.array(values, np.int64)


# (op, attributes, inputs that fit, inputs that do not, what is said)
CASES = [
    ("MatMul", {}, [floats(2, 3), floats(3, 4)], [floats(2, 3), floats(5, 4)],
     "the columns of the first factor are not the rows of the second"),
    ("Add", {}, [floats(2, 3), floats(2, 1)], [floats(2, 3), floats(2, 2)],
     "the shapes do not broadcast"),
    ("Concat", {"axis": 0}, [floats(2, 3), floats(4, 3)], [floats(2, 3), floats(4, 2)],
     "differ"),
    ("Reshape", {}, [floats(2, 3), ints(3, -1)], [floats(2, 3), ints(4, 2)],
     "the new shape has another number of elements"),
    ("Reshape", {}, [floats(2, 3), ints(6, 1)], [floats(2, 3), ints(-2, -3)],
     "a size is negative"),
    ("Expand", {}, [floats(2, 1), ints(2, 5)], [floats(2, 3), ints(2, 5)],
     "to another size"),
    ("Squeeze", {}, [floats(1, 3), ints(0)], [floats(2, 3), ints(0)],
     "cannot squeeze a dimension that is not 1"),
    ("Tile", {}, [floats(2, 3), ints(2, 1)], [floats(2, 3), ints(-1, 1)],
     "a size is negative"),
    ("Slice", {}, [floats(5), ints(4), ints(0), ints(0), ints(-1)],
     [floats(5), ints(4), ints(0), ints(0), ints(0)], "the step is zero"),
    ("Split", {"outputs": 2}, [floats(5), ints(2, 3)], [floats(5), ints(2, 4)],
     "do not add up"),
    ("Gather", {}, [floats(4, 2), ints(-4, 3)], [floats(4, 2), ints(0, 4)],
     "index is out of range"),
    ("GatherElements", {}, [floats(4, 2), ints([0, -1])], [floats(4, 2), ints([0, 4])],
     "index is out of range"),
    ("GatherElements", {}, [floats(4, 2), ints([0, 1])], [floats(4, 2), ints([0, 1, 2])],
     "of the indices is too large"),
    ("GatherND", {}, [floats(4, 2), ints([3, 1])], [floats(4, 2), ints([3, 2])],
     "index is out of range"),
    ("ScatterElements", {}, [floats(4), ints(3, 0), floats(2)],
     [floats(4), ints(3, -5), floats(2)], "index is out of range"),
    ("ScatterND", {}, [floats(4, 2), ints([3]), floats(1, 2)],
     [floats(4, 2), ints([4]), floats(1, 2)], "index is out of range"),
    ("ScatterND", {}, [floats(4, 2), ints([3]), floats(1, 2)],
     [floats(4, 2), ints([3]), floats(1, 3)], "differ"),
    ("TopK", {"outputs": 2}, [floats(4), ints(4)], [floats(4), ints(5)],
     "k is out of range"),
    ("OneHot", {}, [ints(1, 2), ints(3), floats(2)], [ints(1, 2), ints(-3), floats(2)],
     "the depth is negative"),
    ("CumSum", {}, [floats(4, 2), ints(-1)], [floats(4, 2), ints(2)],
     "index is out of range"),
    ("ReduceSum", {}, [floats(4, 2), ints(-2)], [floats(4, 2), ints(2)],
     "index is out of range"),
    ("ReverseSequence", {}, [floats(4, 2), ints(4, 0)], [floats(4, 2), ints(5, 0)],
     "length is out of range"),
    ("Einsum", {"equation": "ij,jk"}, [floats(2, 3), floats(3, 4)],
     [floats(2, 3), floats(2, 4)], "gives one name differ"),
    ("DequantizeLinear", {"axis": 1},
     [np.zeros((2, 3), np.int8), floats(3), np.zeros(3, np.int8)],
     [np.zeros((2, 3), np.int8), floats(2), np.zeros(2, np.int8)], "differ"),
    ("Range", {}, [np.int64(0), np.int64(5), np.int64(2)],
     [np.int64(0), np.int64(5), np.int64(0)], "the step is zero"),
    ("Attention", {}, [floats(1, 2, 3, 4)] * 3,
     [floats(1, 2, 3, 4), floats(1, 2, 5, 4), floats(1, 2, 6, 4)],
     "do not agree on the number of new keys"),
]


def make_model(op, attributes, inputs):
    """Every dimension has a name of its own; the number of indices in a tuple and of
    heads is known, as ONNX's nodes need it."""
    attributes = dict(attributes)
    outputs = [f"y{i}" for i in range(attributes.pop("outputs", 1))]
    values, names = [], []
    for position, array in enumerate(inputs):
        array = np.asarray(array)
        name = f"x{position}"
        shape = [f"{name}_{axis}" for axis in range(array.ndim)]
        if array.dtype == np.int64 and array.ndim:
            if op not in ("Gather", "GatherElements"):
                shape[-1] = array.shape[-1]
        elif op == "Attention":
            shape[1], shape[3] = 2, 4
        names.append(name)
        values.append(helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
    node = helper.make_node(op, names, outputs, name="here", **attributes)
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "graph", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)],
                              ir_version=11)
    if op != "Squeeze":
        return onnx.shape_inference.infer_shapes(model)
    # The rank follows from the number of axes.
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y0", TensorProto.FLOAT, [None]))
    return model


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        for index, (op, attributes, right, wrong, message) in enumerate(CASES):
            folder = pathlib.Path(scratch) / f"{index}"
            folder.mkdir()
            model = make_model(op, attributes, right)
            (folder / "model.onnx").write_bytes(model.SerializeToString())
            for name, inputs in (("right", right), ("wrong", wrong)):
                data = folder / name
                data.mkdir()
                for position, array in enumerate(inputs):
                    (data / f"input_{position}.pb").write_bytes(
                        numpy_helper.from_array(np.asarray(array)).SerializeToString())
                done = support.run(support.tool("nibble-run-reference"),
                                   folder / "model.onnx", "--inputs", data,
                                   "--outputs", folder / f"{name}_out")
                if name == "right":
                    checks.check(done.code == 0, lambda: f"{op} {index}: {done}")
                else:
                    said = done.stdout + done.stderr
                    checks.check(done.code == 1 and message in said and "'here'" in said,
                                 lambda: f"{op} {index}, {message}: {done}")
    checks.finish("runs")


if __name__ == "__main__":
    main()
