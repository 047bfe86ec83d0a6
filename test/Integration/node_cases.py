"""ONNX's node cases as folders. Not a test itself."""

import json
import pathlib
import re
import types
import warnings

from onnx.backend.test import cmd_tools
from onnx.backend.test.loader import load_node_model_tests


def load_cases():
    """All node cases of the installed onnx, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(load_node_model_tests(), key=lambda case: case.name)


def write_cases(cases, folder):
    """Writes NAME/{model.onnx, test_data_set_*/…, tol.json}, as onnx's own tool does.
    Returns the folder that holds them."""
    folder = pathlib.Path(folder)
    collect = cmd_tools.model_test.collect_testcases
    cmd_tools.model_test.collect_testcases = lambda: cases
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cmd_tools.generate_data(types.SimpleNamespace(output=str(folder)))
    finally:
        cmd_tools.model_test.collect_testcases = collect
    for case in cases:
        tolerance = {"rtol": case.rtol, "atol": case.atol}
        (folder / "node" / case.name / "tol.json").write_text(json.dumps(tolerance))
    return folder / "node"


def plain_name(name):
    """The case whose op the case `name` writes out as a function: itself for any other."""
    return re.sub(r"_expanded(_ver\d+)?$", "", name)


def is_expanded(name):
    return plain_name(name) != name


def get_op(case):
    """The op that a case is about: that of its only node, or the one that stands for a
    case with several (the last)."""
    node = case.model.graph.node[-1]
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type
