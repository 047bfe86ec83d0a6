# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""The silero-vad models (nested If, LSTM, inputs of rank 0, weights in half precision)
through `nibble test-onnx` and as libraries, against ONNX Runtime at several shapes and
sample rates.

The reference is compared element by element. Libraries add in another order, which shows
in the smallest numbers of a recurrent state: they are compared with each output's largest
number."""

import json
import pathlib
import shutil

import numpy as np
import onnxruntime
from onnx import numpy_helper

import compiled
import support

# Sample rate, new samples, samples of context, batch.
SHAPES = [(16000, 512, 64, 1), (8000, 256, 32, 1), (16000, 512, 64, 3), (8000, 256, 32, 2)]


def make_inputs(session, rng, rate, samples, context, batch):
    """Noise of the model's inputs, or None where it does not take this rate or batch."""
    inputs = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) else None for size in entry.shape]
        if entry.name == "sr":
            inputs[entry.name] = np.array(rate, np.int64)
            continue
        given = [batch, samples + context] if entry.name == "input" else [
            batch if size is None else size for size in shape]
        if any(size not in (None, wanted) for size, wanted in zip(shape, given)):
            return None
        inputs[entry.name] = (rng.standard_normal(given) / 10).astype(np.float32)
    if "sr" not in inputs and rate != 16000:
        return None
    return inputs


def write_cases(path, folder, rng):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options,
                                           providers=["CPUExecutionProvider"])
    case = folder / path.stem
    case.mkdir(parents=True)
    shutil.copy(path, case / "model.onnx")
    (case / "tol.json").write_text('{"rtol": 1e-4, "atol": 1e-6}')
    sets = []
    for shape in SHAPES:
        inputs = make_inputs(session, rng, *shape)
        if inputs is None:
            continue
        data = case / f"test_data_set_{len(sets)}"
        data.mkdir()
        sets.append((list(inputs.values()), session.run(None, inputs)))
        for kind, arrays in zip(("input", "output"), sets[-1]):
            for index, array in enumerate(arrays):
                tensor = numpy_helper.from_array(np.asarray(array))
                (data / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())
    return sets


def check_library(checks, path, sets, folder):
    library = folder / f"{path.stem}.so"
    support.must_run(support.tool("nibble"), "compile", path, "-o", library, "--name", "vad",
                     "--quiet")
    model = compiled.Model(library, "vad")
    for inputs, expected in sets:
        for value, wanted in zip(model.run(*inputs), expected):
            error = np.abs(value - wanted).max() / np.abs(wanted).max()
            checks.check(value.shape == wanted.shape and error <= 1e-4,
                         f"{path.name} as a library: relative error {error:.1e}")
    model.close()


def main():
    package, reason = support.package("silero-vad==6.2.3")
    if package is None:
        support.skip(reason)
    checks = support.Checks()
    rng = np.random.default_rng(3)
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        for path in sorted(package.rglob("*.onnx")):
            sets = write_cases(path, folder / "cases", rng)
            print(f"{path.name}: {len(sets)} data sets")
            checks.check(sets, f"{path.name} takes none of the shapes")
            check_library(checks, path, sets, folder)
        done = support.run(support.tool("nibble"), "test-onnx", folder / "cases", "--json",
                           "--reference", "--timeout", 300, timeout=580)
        for case in json.loads(done.stdout)["cases"]:
            checks.check(case["outcome"] == "passed", case)
    checks.finish("checks of speech models")


if __name__ == "__main__":
    main()
