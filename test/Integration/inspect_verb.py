# RUN: %python %s
# REQUIRES: numpy, onnx
"""`nibble inspect` counts what a model is made of, and lists by name each node that Nibble's
own code cannot run, those inside local functions and branches too.
"""

import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import support

NIBBLE = support.tool("nibble")


def value(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def make_model(nodes, functions=()):
    graph = helper.make_graph(
        nodes, "inspected", [value("x", 2, 4)], [value("y", 2, 8)],
        [numpy_helper.from_array(np.ones((4, 8), np.float32), "w")],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1),
               helper.make_opsetid("far.away", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions)


def product(source):
    return helper.make_node("MatMul", [source, "w"], ["y"], name="product")


def inspect(folder, model):
    path = folder / "m.onnx"
    onnx.save(model, path)
    text = support.must_run(NIBBLE, "inspect", path).stdout
    return text, json.loads(support.must_run(NIBBLE, "inspect", path, "--json").stdout)


def main():
    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        text, found = inspect(folder, make_model([product("x")]))
        checks.check("every op has a conversion" in text, text)
        checks.check(found["unsupported"] == {}, found)
        checks.check("MatMul 1" in text and "32 parameters" in text, text)

        body = [helper.make_node("Frobnicate", ["a"], ["b"], name="inner", domain="far.away")]
        function = helper.make_function("local", "Twice", ["a"], ["b"], body,
                                        [helper.make_opsetid("far.away", 1)])
        nodes = [
            helper.make_node("Frobnicate", ["x"], ["f"], name="outer", domain="far.away"),
            helper.make_node("Twice", ["f"], ["t"], name="call", domain="local"),
            helper.make_node("Mystery", ["t"], ["m"], name="riddle", domain="far.away"),
            product("m"),
        ]
        text, found = inspect(folder, make_model(nodes, [function]))
        wanted = {"far.away.Frobnicate": ["outer", "call/inner"], "far.away.Mystery": ["riddle"]}
        checks.check(found["unsupported"] == wanted, found["unsupported"])
        checks.check("far.away.Frobnicate 2: 'outer', 'call/inner'" in text, text)
    checks.finish()


main()
