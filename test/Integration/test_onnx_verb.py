# RUN: %python %s
# REQUIRES: numpy, onnx
"""`nibble test-onnx`: what passes, differs, crashes, hangs or is incomplete is told apart,
each case alone, and tolerances are those of ONNX's own runner."""

import json
import os
import pathlib
import signal
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import support

NIBBLE = support.tool("nibble")


def write_case(folder, nodes, inputs, outputs, data, expected, initializers=()):
    """inputs, outputs: name -> (element type, shape)."""
    def values(described):
        return [helper.make_tensor_value_info(name, *of) for name, of in described.items()]

    graph = helper.make_graph(nodes, "case", values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_data(folder, 0, data, expected)


def write_data(folder, number, data, expected):
    data_set = folder / f"test_data_set_{number}"
    data_set.mkdir()
    for kind, arrays in (("input", data), ("output", expected)):
        for index, array in enumerate(arrays):
            tensor = numpy_helper.from_array(np.asarray(array))
            (data_set / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())


def write_add(folder, data, expected, kind=TensorProto.FLOAT):
    """y = x + x; x holds two numbers."""
    write_case(folder, [helper.make_node("Add", ["x", "x"], ["y"])],
               {"x": (kind, [2])}, {"y": (kind, [2])}, [data], [expected])


def floats(*numbers):
    return np.array(numbers, np.float32)


def write_cases(root):
    """Returns the expected outcome and a part of the reason by case."""
    write_add(root / "exact", floats(1, 2), floats(2, 4))
    write_add(root / "within", floats(1, 2), floats(2, 4.0039))
    write_add(root / "beyond", floats(1, 2), floats(2, 4.01))
    write_add(root / "not_finite", floats(np.nan, -np.inf), floats(np.nan, -np.inf))
    write_add(root / "not_nan", floats(1, 2), floats(np.nan, 4))
    write_add(root / "infinite", floats(1, 2), floats(np.inf, 4))
    write_add(root / "tight", floats(1, 2), floats(2, 4.0039))
    (root / "tight/tol.json").write_text('{"rtol": 1e-5}')
    write_add(root / "loose", floats(1, 2), floats(2.5, 4.5))
    (root / "loose/tol.json").write_text('{"rtol": 0, "atol": 0.5}')
    write_add(root / "bad_tolerance", floats(1, 2), floats(2, 4))
    (root / "bad_tolerance/tol.json").write_text("{")
    write_add(root / "shape", floats(1, 2), floats([2, 4]))
    write_add(root / "type", floats(1, 2), np.array([2, 4]))
    write_add(root / "input_type", np.array([1, 2]), floats(2, 4))
    write_add(root / "wraps", np.array([100, 200], np.uint8),
              np.array([200, 144], np.uint8), TensorProto.UINT8)
    write_add(root / "second_set", floats(1, 2), floats(2, 4))
    write_data(root / "second_set", 1, [floats(3, 4)], [floats(6, 7)])
    write_add(root / "no_input", floats(1, 2), floats(2, 4))
    (root / "no_input/test_data_set_0/input_0.pb").unlink()
    write_add(root / "no_output", floats(1, 2), floats(2, 4))
    (root / "no_output/test_data_set_0/output_0.pb").unlink()
    write_add(root / "no_data", floats(1, 2), floats(2, 4))
    (root / "no_data/test_data_set_0").rename(root / "no_data/elsewhere")
    (root / "no_model").mkdir()
    (root / "no_model/model.onnx").write_bytes(b"\xff")
    write_case(root / "no_conversion", [helper.make_node("NoSuchOp", ["x"], ["y"], domain="d")],
               {"x": (TensorProto.FLOAT, [1])}, {"y": (TensorProto.FLOAT, [1])},
               [floats(1)], [floats(1)])
    # More than there are addresses.
    write_case(root / "memory", [helper.make_node("Expand", ["x", "shape"], ["y"])],
               {"x": (TensorProto.FLOAT, [1]), "shape": (TensorProto.INT64, [1])},
               {"y": (TensorProto.FLOAT, ["n"])}, [floats(1), np.array([1 << 60])],
               [floats(1)])
    # 2^42 products, one after the other.
    size = numpy_helper.from_array(np.array([4096, 4096]), "size")
    chain = ["wide", *(f"product{i}" for i in range(63)), "y"]
    write_case(root / "hang", [helper.make_node("Expand", ["x", "size"], ["wide"]),
                               *(helper.make_node("MatMul", [before, "wide"], [after])
                                 for before, after in zip(chain, chain[1:]))],
               {"x": (TensorProto.FLOAT, [1])}, {"y": (TensorProto.FLOAT, [4096, 4096])},
               [floats(1)], [floats(1)], [size])
    return {
        "exact": ("passed", ""), "within": ("passed", ""), "not_finite": ("passed", ""),
        "loose": ("passed", ""), "wraps": ("passed", ""),
        "beyond": ("failed", "differs in 1 of 2 elements: element 1 is 4"),
        "not_nan": ("failed", "element 0 is 2"), "infinite": ("failed", "element 0 is 2"),
        "tight": ("failed", "element 1"), "bad_tolerance": ("failed", "tol.json"),
        "shape": ("failed", "is f32[2], not f32[1, 2]"),
        "type": ("failed", "is f32[2], not i64[2]"),
        "input_type": ("failed", "input 0"),
        "second_set": ("failed", "element 1 is 8"),
        "no_input": ("failed", "input_0.pb"), "no_output": ("failed", "output_0.pb"),
        "no_data": ("failed", "test_data_set_0"), "no_model": ("failed", "no_model/model.onnx"),
        "no_conversion": ("failed", "NoSuchOp"), "memory": ("failed", "memory"),
        "hang": ("timed out", "2 s"),
    }


def kill_worker(process):
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (worker := children.read_text().split()):
        time.sleep(0.01)
    # By now it has its case, which takes many seconds.
    time.sleep(0.5)
    os.kill(int(worker[0]), signal.SIGKILL)


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        root = pathlib.Path(scratch) / "node"
        expected = write_cases(root)
        done = support.run(NIBBLE, "test-onnx", root, "--timeout", 2, "--jobs", 2, "--json")
        checks.check(done.code == 1, done)
        report = json.loads(done.stdout)
        found = {case["case"]: case for case in report["cases"]}
        checks.check(found.keys() == expected.keys(), f"cases: {sorted(found)}")
        for name, (outcome, reason) in expected.items():
            case = found[name]
            checks.check(case["outcome"] == outcome, f"{name}: {case}")
            checks.check(reason in case.get("reason", ""), f"{name}: {case}")
            checks.check((outcome == "passed") == ("reason" not in case), f"{name}: {case}")
        passed = sum(outcome == "passed" for outcome, _ in expected.values())
        checks.check((report["passed"], report["total"]) == (passed, len(expected)), report)
        checks.check(report["ops"]["Expand"] == {"passed": 0, "total": 1}, report["ops"])
        checks.check(report["ops"]["d.NoSuchOp"]["total"] == 1, report["ops"])

        # The worker of the first case is killed; another takes the second.
        done = support.run(NIBBLE, "test-onnx", root / "hang", root / "exact", "--jobs", 1,
                           "--verbose", on_start=kill_worker)
        checks.check(done.code == 1, done)
        checks.check("crashed: hang: ended by signal 9" in done.stdout, done)
        checks.check("1 of 2 cases passed" in done.stdout, done)
        done = support.run(NIBBLE, "test-onnx", root / "exact", root / "within")
        checks.check(done.code == 0, done)
        checks.check("2 of 2 cases passed" in done.stdout, done)
        done = support.run(NIBBLE, "test-onnx", root / "exact", root / "beyond", "--verbose")
        checks.check(done.code == 1, done)
        checks.check("failed: beyond: " in done.stdout, done)
        for folder in (root / "none", root / "no_data/elsewhere"):
            done = support.run(NIBBLE, "test-onnx", folder)
            checks.check(done.code == 1 and str(folder) in done.stderr, done)
        done = support.run(NIBBLE, "test-onnx")
        checks.check(done.code == 2, done)
    checks.finish("properties of nibble test-onnx")


if __name__ == "__main__":
    main()
