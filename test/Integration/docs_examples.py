# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Every example in README.md and in the help of `nibble` runs as it stands there.

An example of the README is a line of a block fenced as sh; of the help, a line that
starts with "$ ", or with "nibble" under a heading "Examples:". Each runs in a folder
with a small m.onnx, its quantized twin q.onnx, m.mlir and m.mlirbc, inputs in x.npz, and a
backend test in node/test_relu. The scripts of the repository are only looked for: they run this test.
"""

import os
import pathlib
import re
import shlex
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import support

NIBBLE = support.tool("nibble")
TRANSLATE = support.tool("nibble-translate")
VERBS = ("quantize", "inspect", "diff", "convert", "compile", "run", "bench", "verify",
         "generate", "test-onnx", "kernels")
# A reader does these once, before anything else.
SETTING_UP = ("git", "cd", "sudo")


def small_model():
    """Token ids to logits: an embedding, two layers and the tied head."""
    generator = np.random.default_rng(5)

    def weight(name, *shape):
        values = generator.standard_normal(shape).astype(np.float32)
        return numpy_helper.from_array(values / 16, name)

    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "up"], ["wide"], name="up"),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("MatMul", ["active", "down"], ["narrow"], name="down"),
        helper.make_node("Transpose", ["embedding"], ["head"], perm=[1, 0]),
        helper.make_node("MatMul", ["narrow", "head"], ["logits"], name="head"),
    ]
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 512])],
        [weight("embedding", 512, 128), weight("up", 128, 512), weight("down", 512, 128)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def write_backend_test(folder):
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu",
                              values[:1], values[1:])
    onnx.save(helper.make_model(graph, ir_version=8,
                                opset_imports=[helper.make_opsetid("", 18)]),
              folder / "model.onnx")
    x = np.array([-1, 0, 2], np.float32)
    for name, array in (("input_0", x), ("output_0", np.maximum(x, 0))):
        onnx.save_tensor(numpy_helper.from_array(array), data / f"{name}.pb")


def joined_lines(text):
    """Lines, with those that end in a backslash continued."""
    return re.sub(r"\\\n\s*", " ", text).splitlines()


def readme_examples():
    text = (support.SOURCE_DIR / "README.md").read_text()
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        # A block is one session: its lines may build on each other.
        lines = [line.removeprefix("$ ").strip() for line in joined_lines(block)]
        yield [line for line in lines if line and not line.startswith("#")]


def help_examples(text):
    below_heading = False
    for line in joined_lines(text):
        stripped = line.strip()
        if stripped.startswith("$ "):
            yield stripped[2:]
        elif re.fullmatch(r"examples?:", stripped, re.I):
            below_heading = True
        elif below_heading and stripped.startswith("nibble"):
            yield stripped
        elif stripped and not line.startswith(" "):
            below_heading = False


def prepare(folder):
    onnx.save(small_model(), folder / "m.onnx")
    write_backend_test(folder / "node/test_relu")
    np.savez(folder / "x.npz", input_ids=np.arange(12).reshape(3, 4))
    support.must_run(NIBBLE, "quantize", "m.onnx", "-o", "q.onnx", cwd=folder)
    for form in ("mlir", "mlirbc"):
        support.must_run(TRANSLATE, "--import-onnx", "m.onnx", "-o", f"m.{form}", cwd=folder)


def run_session(where, lines, prepared, checks):
    """Runs the lines in a folder of their own, one after the other."""
    environment = {"PATH": f"{support.BUILD_DIR / 'bin'}:{os.environ['PATH']}"}
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch) / "session"
        shutil.copytree(prepared, folder)
        for line in lines:
            first = shlex.split(line, comments=True)[0]
            if first.removeprefix("./").startswith("scripts/"):
                script = support.SOURCE_DIR / first
                checks.check(os.access(script, os.X_OK), f"{where}: no script {first}")
            elif first not in SETTING_UP:
                done = support.run(
                    "bash", "-c", line, cwd=folder, environment=environment, timeout=60
                )
                checks.check(done.code == 0, f"{where}: {line}\n{done}")


def main():
    checks = support.Checks()
    with support.scratch() as folder:
        prepared = pathlib.Path(folder) / "prepared"
        prepared.mkdir()
        prepare(prepared)
        sessions = list(readme_examples())
        checks.check(sessions, "README.md has no example")
        for lines in sessions:
            run_session("README.md", lines, prepared, checks)
        for words in ([], *([verb] for verb in VERBS)):
            command = " ".join(["nibble", *words, "--help"])
            done = support.run(NIBBLE, *words, "--help")
            checks.check(done.code == 0, f"{command}: {done}")
            examples = list(help_examples(done.stdout))
            checks.check(examples, f"{command} shows no example")
            for example in examples:
                run_session(command, [example], prepared, checks)
    checks.finish("examples and scripts")


main()
