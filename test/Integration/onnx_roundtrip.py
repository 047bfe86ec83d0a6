# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""ONNX models come back from Nibble equal field by field, through bytecode and text.

The models are all of ONNX's backend cases, made in process (node) or shipped in its
wheel (simple, pytorch-converted, pytorch-operator, light), and real models from
packages. "Equal" means the same canonical protobuf bytes, which forgets only what the
wire format leaves free: the order of fields, and packed against unpacked numbers.
A sample is also run: the outputs of both files must be equal bit for bit.
"""

import collections
import functools
import multiprocessing
import os
import pathlib
import re
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

import support

# Every SAMPLE-th backend case is run; the newest opset that ONNX Runtime takes.
SAMPLE = 20
RUNTIME_OPSET = 24
RUNTIME_IR = 11
TRANSLATE = support.tool("nibble-translate")


def difference(left, right, path="model"):
    """The first field in which two messages differ, for a person to read."""
    if left.DESCRIPTOR.full_name != right.DESCRIPTOR.full_name:
        return f"{path}: {left.DESCRIPTOR.full_name} became {right.DESCRIPTOR.full_name}"
    for field in left.DESCRIPTOR.fields:
        here = f"{path}.{field.name}"
        a, b = getattr(left, field.name), getattr(right, field.name)
        if field.is_repeated:
            if len(a) != len(b):
                return f"{here}: {len(a)} elements became {len(b)}"
            for index, (one, other) in enumerate(zip(a, b)):
                if field.message_type:
                    if canonical(one) != canonical(other):
                        return difference(one, other, f"{here}[{index}]")
                elif one != other and (one == one or other == other):
                    return f"{here}[{index}]: {one!r} became {other!r}"
        elif left.HasField(field.name) != right.HasField(field.name):
            return f"{here}: set {left.HasField(field.name)} became {right.HasField(field.name)}"
        elif field.message_type:
            if canonical(a) != canonical(b):
                return difference(a, b, here)
        elif a != b and (a == a or b == b):
            return f"{here}: {a!r:.200} became {b!r:.200}"
    return f"{path}: differs in unknown fields or in the bits of a NaN"


def canonical(message):
    return message.SerializeToString(deterministic=True)


def load(path):
    """The model with its external data read in."""
    model = onnx.load(path)
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.DEFAULT:
                tensor.ClearField("data_location")
    return model


def all_graphs(graph):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for nested in [attribute.g, *attribute.graphs]:
                yield from all_graphs(nested)


def round_trip(source, folder, form):
    """Imports to `form` and exports again; returns (path or None, complaint)."""
    imported = folder / f"{source.stem}.{form}"
    exported = folder / f"{source.stem}.{form}.onnx"
    for command in (
        [TRANSLATE, "--import-onnx", source, "-o", imported],
        [TRANSLATE, "--export-onnx", imported, "-o", exported],
    ):
        done = support.run(*command)
        if done.code or done.timed_out:
            return None, str(done)[:2000]
    return exported, ""


def compare(source, folder, form):
    """Returns (path of the exported model or None, complaint or "")."""
    exported, complaint = round_trip(source, folder, form)
    if exported is None:
        return None, complaint
    before, after = load(source), load(exported)
    if canonical(before) == canonical(after):
        return exported, ""
    return exported, difference(before, after)


def session(model_bytes):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model_bytes, options, providers=["CPUExecutionProvider"]
    )


def restamp(model):
    """Lowers versions that the runtime does not know yet; the same on both sides."""
    model.ir_version = min(model.ir_version, RUNTIME_IR)
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = min(opset.version, RUNTIME_OPSET)
    return model


def bits(values):
    """The bytes of an output, whatever ONNX type it has."""
    if isinstance(values, (list, tuple)):
        return [bits(value) for value in values]
    if isinstance(values, dict):
        return {key: bits(value) for key, value in values.items()}
    if isinstance(values, np.ndarray):
        data = values.tolist() if values.dtype == object else values.tobytes()
        return str(values.dtype), values.shape, data
    return values


def same_outputs(source, exported, feeds):
    """Returns "equal", "differ", or why the runtime cannot tell."""
    try:
        first = session(restamp(load(source)).SerializeToString())
        expected = bits(first.run(None, feeds(first)))
        if bits(first.run(None, feeds(first))) != expected:
            return "its outputs are random"
    except Exception as error:  # ONNX Runtime raises a class for each status code
        kind = re.search(r"NOT_IMPLEMENTED|INVALID_\w+|FAIL\b|\w+Error", repr(error))
        return f"the runtime does not run it ({kind[0] if kind else type(error).__name__})"
    second = session(restamp(load(exported)).SerializeToString())
    return "equal" if bits(second.run(None, feeds(second))) == expected else "differ"


def case_feeds(case, loaded):
    """The inputs that a backend case comes with."""
    feeds = {}
    for info, value in zip(case.model.graph.input, case.data_sets[0][0]):
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        feeds[info.name] = value
    known = {value.name for value in loaded.get_inputs()}
    return {name: value for name, value in feeds.items() if name in known}


SIZES = {"det": (64, 96), "rec": (48, 160), "cls": (48, 192)}


def real_feeds(path, loaded):
    """Seeded inputs of a real model: dynamic dimensions become small sizes."""
    random = np.random.default_rng(0)
    height_width = next((s for key, s in SIZES.items() if key in path.name), None)
    feeds = {}
    for value in loaded.get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in value.shape]
        if height_width and len(shape) == 4:
            shape[2:] = height_width
        if value.name == "input" and len(shape) == 2:
            shape[1] = 576
        kinds = {"tensor(int64)": np.int64, "tensor(float16)": np.float16}
        if value.type == "tensor(int64)":
            # The speech detectors ask for their sampling rate.
            feeds[value.name] = np.full(shape, 16000, np.int64)
        else:
            feeds[value.name] = random.standard_normal(shape).astype(
                kinds.get(value.type, np.float32)
            )
    return feeds


def work(item):
    """Checks one model: (name, complaint, run result or None)."""
    index, folder = item
    name, source, feeds = MODELS[index]
    folder = pathlib.Path(folder) / str(index)
    folder.mkdir()
    if isinstance(source, onnx.ModelProto):
        path = folder / "model.onnx"
        path.write_bytes(source.SerializeToString())
        source = path
    complaints, ran = [], None
    for form in ("mlirbc", "mlir"):
        exported, complaint = compare(source, folder, form)
        if complaint:
            complaints.append(f"through .{form}: {complaint}")
        elif feeds and form == "mlirbc":
            ran = same_outputs(source, exported, feeds)
    for path in folder.iterdir():
        path.unlink()
    return name, "; ".join(complaints), ran


def backend_models():
    """[(name, ModelProto or path, feeds or None)]."""
    from onnx.backend.test.loader import load_node_model_tests

    models = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for index, case in enumerate(load_node_model_tests()):
            feeds = functools.partial(case_feeds, case) if index % SAMPLE == 0 else None
            models.append((case.name, case.model, feeds))
    data = pathlib.Path(onnx.__file__).parent / "backend/test/data"
    for kind in ("simple", "pytorch-converted", "pytorch-operator", "light"):
        for path in sorted((data / kind).rglob("*.onnx")):
            name = path.parent.name if path.stem == "model" else path.stem
            models.append((f"{kind}/{name}", path, None))
    return models


def real_models():
    models = []
    for requirement in ("rapidocr-onnxruntime==1.4.4", "silero-vad==6.2.3"):
        folder, reason = support.package(requirement)
        if folder is None:
            print(f"not compared: {reason}")
            continue
        for path in sorted(folder.rglob("*.onnx")):
            models.append((path.name, path, functools.partial(real_feeds, path)))
    return models


def check_models(models, label, checks):
    global MODELS
    MODELS = models
    equal, outcomes = 0, collections.Counter()
    with support.scratch() as folder, multiprocessing.get_context("fork").Pool(
        os.cpu_count()
    ) as pool:
        work_items = [(index, folder) for index in range(len(models))]
        for name, complaint, ran in pool.imap_unordered(work, work_items, chunksize=4):
            equal += checks.check(not complaint, f"{name}: {complaint}")
            if ran:
                outcomes[ran] += 1
                checks.check(ran != "differ", f"{name}: outputs differ")
    print(f"{label}: {equal} of {len(models)} equal field by field")
    for outcome, count in sorted(outcomes.items()):
        print(f"{label}: outputs of {count}: {outcome}")
    if models:
        checks.check(outcomes["equal"] > 0, f"{label}: no model was run")


def check_demo_model(checks):
    model, reason = support.demo_model()
    if model is None:
        print(f"not compared: {reason}")
        return
    with support.scratch() as folder:
        _, complaint = compare(model, pathlib.Path(folder), "mlirbc")
    checks.check(not complaint, f"{model.name}: {complaint}")
    print(f"{model.name}: {complaint or 'equal field by field'}")


def main():
    checks = support.Checks()
    check_models(backend_models(), "backend cases", checks)
    check_models(real_models(), "real models", checks)
    check_demo_model(checks)
    checks.finish()


if __name__ == "__main__":
    sys.exit(main())
