# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""`--calib self` and `--calib random` calibrate on the samples that twins written here make,
say in every report that the data were made up, and refuse models that they cannot serve."""

import json
import math
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import support

NIBBLE = support.tool("nibble")
VOCABULARY, WIDTH, LENGTH, SAMPLES, JUDGES = 96, 64, 64, 6, 4


class Random:
    """splitmix64, as in Support/Random.h."""

    def __init__(self, seed):
        self.state = seed

    def draw(self):
        mask = 2 ** 64 - 1
        self.state = (self.state + 0x9e3779b97f4a7c15) & mask
        z = self.state
        z = ((z ^ z >> 30) * 0xbf58476d1ce4e5b9) & mask
        z = ((z ^ z >> 27) * 0x94d049bb133111eb) & mask
        return ((z ^ z >> 31) >> 11) / 2 ** 53


def language_model(reverse=0, masked=False, extra=False, answer=VOCABULARY, length="tokens"):
    """Token ids to logits that depend on all tokens before."""
    generator = np.random.default_rng(3)
    weights = []

    def weight(name, *shape):
        values = generator.standard_normal(shape) / np.sqrt(shape[0])
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    weights.append(numpy_helper.from_array(np.array(1, np.int64), "axis"))
    table = generator.standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    weights.append(numpy_helper.from_array(table, "table"))
    inputs, hidden = ["ids"], "embedded"
    nodes = [helper.make_node("Gather", ["table", "ids"], ["embedded"])]
    if masked:
        inputs += ["attention_mask", "position_ids"]
        nodes += [helper.make_node("Gather", [weight("places", LENGTH, WIDTH), "position_ids"],
                                   ["place"]),
                  helper.make_node("Add", ["embedded", "place"], ["placed"]),
                  helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
                  helper.make_node("Unsqueeze", ["mask", "last"], ["wide_mask"]),
                  helper.make_node("Mul", ["placed", "wide_mask"], ["masked"])]
        weights.append(numpy_helper.from_array(np.array([2], np.int64), "last"))
        hidden = "masked"
    nodes += [helper.make_node("CumSum", [hidden, "axis"], ["sum"], reverse=reverse),
              helper.make_node("Tanh", ["sum"], ["seen"]),
              helper.make_node("MatMul", ["seen", weight("up", WIDTH, 2 * WIDTH)], ["wide"]),
              helper.make_node("Tanh", ["wide"], ["active"]),
              helper.make_node("MatMul", ["active", weight("down", 2 * WIDTH, WIDTH)], ["down_"]),
              helper.make_node("Add", [hidden, "down_"], ["last_hidden"]),
              helper.make_node("MatMul", ["last_hidden", weight("head", WIDTH, answer)],
                               ["logits"])]
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", length])
              for name in inputs]
    if extra:
        values.append(helper.make_tensor_value_info("past", TensorProto.FLOAT, ["batch", 4]))
    graph = helper.make_graph(
        nodes, "language", values,
        [helper.make_tensor_value_info("logits", 1, ["batch", length, answer])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def matrix_model():
    generator = np.random.default_rng(4)
    weight = numpy_helper.from_array(
        generator.standard_normal((WIDTH, WIDTH)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "matrix",
        [helper.make_tensor_value_info("x", 1, ["n", "m", WIDTH])],
        [helper.make_tensor_value_info("y", 1, ["n", "m", WIDTH])], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def twin_texts(path, masked):
    """What the model in `path` draws from itself, by ONNX Runtime's logits."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    texts = []
    for sample in range(SAMPLES + JUDGES):
        random = Random((sample + 1) * 0xd1342543de82ef95 % 2 ** 64)
        text = [int(random.draw() * VOCABULARY)]
        while len(text) < LENGTH:
            feed = {"ids": np.array([text], np.int64)}
            if masked:
                feed["attention_mask"] = np.ones((1, len(text)), np.int64)
                feed["position_ids"] = np.arange(len(text))[None]
            logits = session.run(None, feed)[0][0, -1].astype(np.float64)
            if len(text) <= 3:
                text.append(int(logits.argmax()))
                continue
            shares = np.exp(logits - logits.max()).cumsum()
            text.append(int((shares <= random.draw() * shares[-1]).sum()))
        texts.append(text)
    return np.array(texts, np.int64)


def twin_numbers():
    random = Random(1)

    def normal():
        radius = math.sqrt(-2 * math.log(1 - random.draw()))
        return radius * math.cos(2 * math.pi * random.draw())

    count = (SAMPLES + JUDGES) * LENGTH * WIDTH
    numbers = np.array([normal() for _ in range(count)], np.float32)
    return numbers.reshape(SAMPLES + JUDGES, 1, LENGTH, WIDTH)


def quantize(folder, model, data, *options, output="q.onnx"):
    return support.run(NIBBLE, "quantize", model, "-o", output, "--calib", data, "--scheme",
                       "w3g32", "--samples", SAMPLES, "--quiet", *options, cwd=folder)


def check_same(folder, checks, model, made_up, arrays):
    """The file is that of the twin's samples, and says what it was made from."""
    np.savez(folder / "twin.npz", **arrays)
    done = quantize(folder, model, "twin.npz", "--no-evaluate")
    checks.check(done.code == 0 and f"{SAMPLES} samples of twin.npz" in done.stdout, done)
    expected = (folder / "q.onnx").read_bytes()
    for threads in (1, 2):
        done = quantize(folder, model, made_up, "--threads", threads, "--report", "r.html")
        checks.check(done.code == 0 and f"--calib {made_up}" in done.stdout
                     and "made up as" in done.stdout, done)
        checks.check((folder / "q.onnx").read_bytes() == expected, f"{model}: other samples")
    checks.check(f"--calib {made_up}" in (folder / "r.html").read_text(), "page")
    done = quantize(folder, model, made_up, "--json")
    checks.check(f"--calib {made_up}" in json.loads(done.stdout)["calibration"], done)


def check_refusals(folder, checks):
    cases = {
        "matrix": (matrix_model(), "no input of integers"),
        "backward": (language_model(reverse=1), "depend on later tokens"),
        "cache": (language_model(extra=True), "'past'"),
        "number": (language_model(answer=1), "no output has logits"),
    }
    (folder / "q.onnx").unlink(missing_ok=True)
    for name, (model, reason) in cases.items():
        onnx.save(model, folder / f"{name}.onnx")
        done = quantize(folder, f"{name}.onnx", "self")
        checks.check(done.code == 1 and reason in done.stderr and "--calib" in done.stderr,
                     f"{name}: {done}")
        checks.check(not (folder / "q.onnx").exists(), f"{name}: a file was written")


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        for name, options in (("plain", {}), ("masked", {"masked": True}),
                              ("static", {"length": LENGTH})):
            path = folder / f"{name}.onnx"
            onnx.save(language_model(**options), path)
            # The static model has the weights of the plain one.
            source = folder / "plain.onnx" if name == "static" else path
            texts = twin_texts(source, name == "masked")
            checks.check(len(np.unique(texts)) > VOCABULARY // 2, "the same tokens again and again")
            arrays = {"ids": texts}
            if name == "masked":
                arrays["attention_mask"] = np.ones_like(texts)
                arrays["position_ids"] = np.tile(np.arange(LENGTH), (len(texts), 1))
            check_same(folder, checks, path.name, "self", arrays)
        onnx.save(matrix_model(), folder / "matrix.onnx")
        check_same(folder, checks, "matrix.onnx", "random", {"x": twin_numbers()})
        # Integers stay within the table.
        done = quantize(folder, "plain.onnx", "random")
        checks.check(done.code == 0, done)
        check_refusals(folder, checks)
    checks.finish()


main()
