# RUN: %python %s
# REQUIRES: numpy, onnx
"""Bad input and bad output places: an error that names file and cause, exit code 1,
never a crash or a hang, and nothing half-written left behind."""

import concurrent.futures
import contextlib
import os
import pathlib
import random
import signal
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import support

TRANSLATE = support.tool("nibble-translate")
NIBBLE = support.tool("nibble")
SEED = 20240611
TRUNCATIONS = 200
MUTANTS = 1000
VERB_MUTANTS = 60
SECONDS = 10
# The tool itself takes some 100 MiB, more under sanitizers; the files are a few KiB.
PEAK_BYTES = 1 << 30
FLOAT = TensorProto.FLOAT


# ---- Small models with something of everything that the importer reads. ----


def value(name, *shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weights(name, *shape):
    numbers = np.random.default_rng(len(name)).standard_normal(shape)
    return numpy_helper.from_array(numbers.astype(np.float32), name)


def model(nodes, initializers=(), outputs=("output",), opset=18, **more):
    graph = helper.make_graph(
        nodes, "graph", [value("input", "rows", 8)],
        [value(name, "rows", 8) for name in outputs], list(initializers),
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **more
    )
    return made


def linear_model():
    return model(
        [
            helper.make_node("MatMul", ["input", "weight"], ["product"], name="multiply"),
            helper.make_node("Add", ["product", "bias"], ["output"], name="add"),
        ],
        [weights("weight", 8, 8), weights("bias", 8)],
        doc_string="Linear", producer_name="test",
    )


def branch_model():
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["input", "weight"], [f"{kind}_result"])],
            f"{kind}_branch", [], [value(f"{kind}_result", "rows", 8)], [weights(kind, 4)],
        )
        for kind in ("Add", "Mul")
    ]
    return model(
        [
            helper.make_node("ReduceMax", ["input"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "zero"], ["positive"]),
            helper.make_node("If", ["positive"], ["output"],
                             then_branch=branches[0], else_branch=branches[1]),
        ],
        [weights("weight", 8), numpy_helper.from_array(np.float32(0), "zero")],
    )


def attribute_model():
    sparse = helper.make_sparse_tensor(
        weights("entries", 3), numpy_helper.from_array(np.array([1, 5, 9]), "places"), [16]
    )
    node = helper.make_node(
        "Unknown", ["input", "", "words"], ["output", ""], domain="example.org",
        one=1, real=0.5, text="text", ints=[1, -2, 1 << 40], reals=[0.5, -1.5],
        texts=["a", "", "ä"], tensor=weights("inner", 2, 2), sparse=sparse,
        kind=helper.make_tensor_type_proto(FLOAT, ["n", None]),
    )
    made = model([node], [numpy_helper.from_array(np.array([b"one", b""], object), "words")])
    made.opset_import.append(helper.make_opsetid("example.org", 1))
    helper.set_model_props(made, {"author": "test", "": "empty"})
    return made


def quantized_model():
    codes = helper.make_tensor("codes", TensorProto.UINT4, [8, 8], list(range(16)) * 4)
    scales = weights("scales", 8)
    zeros = helper.make_tensor("zeros", TensorProto.UINT4, [8], [8] * 8)
    return model(
        [
            helper.make_node("DequantizeLinear", ["codes", "scales", "zeros"], ["weight"], axis=1),
            helper.make_node("MatMul", ["input", "weight"], ["output"]),
        ],
        [codes, scales, zeros], opset=21,
    )


def function_model():
    function = helper.make_function(
        "local", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_opsetid("", 18)],
    )
    made = model([helper.make_node("Twice", ["input"], ["output"], domain="local")])
    made.opset_import.append(helper.make_opsetid("local", 1))
    made.functions.append(function)
    return made


MODELS = {
    "linear": linear_model,
    "branch": branch_model,
    "attribute": attribute_model,
    "quantized": quantized_model,
    "function": function_model,
}


# ---- One attempt at a time. ----


def attempt(path, output, *command, timeout=SECONDS):
    """Runs a tool on a file; `left` is what it left in the folder of its output."""
    folder = output.parent
    before = set(os.listdir(folder)) if folder.is_dir() else set()
    command = command or (TRANSLATE, "--import-onnx")
    result = support.run(*command, path, "-o", output, timeout=timeout)
    result.left = sorted(set(os.listdir(folder)) - before) if folder.is_dir() else []
    return result


def check_refused(name, result, checks, *words, path=None):
    """Exit code 1, a message with the file's name and `words`, no output file."""
    checks.check(not result.timed_out, f"{name}: no end after {SECONDS} s")
    checks.check(result.code == 1, f"{name}: exit code {result.code}, expected 1\n{result.stderr}")
    checks.check("error" in result.stderr, f"{name}: says no error:\n{result.stderr}")
    for word in [*words, *([path.name] if path else [])]:
        checks.check(
            word.lower() in result.stderr.lower(),
            f"{name}: the message does not tell '{word}':\n{result.stderr[:500]}",
        )
    checks.check(not result.left, f"{name}: leaves {result.left}")


def check_survives(name, result, checks):
    """The input may be valid or not: exit code 0 or 1, and no crash."""
    ok = result.code in (0, 1) and not result.timed_out
    if not ok or result.peak_bytes > PEAK_BYTES:
        checks.check(False, f"{name}: {result.peak_bytes >> 20} MiB, {result}")
        return
    checks.check(
        result.code == 0 or "error" in result.stderr, f"{name}: fails and says nothing: {result}"
    )
    left = ["result.mlirbc"] if result.code == 0 else []
    checks.check(result.left == left, f"{name}: leaves {result.left}")


def survive_all(variants, folder, checks):
    """variants: [(name, bytes)]; each is imported in a folder of its own."""

    def one(item):
        name, content = item
        place = folder / name
        place.mkdir()
        source = place / "bad.onnx"
        source.write_bytes(content)
        return name, attempt(source, place / "result.mlirbc")

    codes = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, result in pool.map(one, variants):
            check_survives(name, result, checks)
            codes.append(result.code)
    return codes


# ---- The groups of cases. ----


def flip_bits(content, chance, counts):
    content = bytearray(content)
    for _ in range(chance.choice(counts)):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def check_truncations(folder, checks):
    chance = random.Random(SEED)
    content = b"".join(make().SerializeToString() for make in [attribute_model])
    places = sorted(chance.randrange(1, len(content)) for _ in range(TRUNCATIONS))
    variants = [(f"truncated-{i}-{at}", content[:at]) for i, at in enumerate(places)]
    codes = survive_all(variants, folder, checks)
    refused = sum(code == 1 for code in codes)
    print(f"{refused} of {TRUNCATIONS} truncations refused; the others end between fields")
    checks.check(refused > TRUNCATIONS // 2, "most truncations must be refused")


def check_mutants(folder, checks):
    chance = random.Random(SEED)
    variants = []
    for index in range(MUTANTS):
        name = list(MODELS)[index % len(MODELS)]
        content = flip_bits(MODELS[name]().SerializeToString(), chance, [1, 1, 2, 8])
        variants.append((f"mutant-{index}-{name}", content))
    codes = survive_all(variants, folder, checks)
    print(f"{sum(code == 1 for code in codes)} of {MUTANTS} mutants refused, no crash allowed")


# What a user may do with a model. Those that compile it, all the same way, take turns.
READING_VERBS = (
    lambda path: ("inspect", path, "--json"),
    lambda path: ("quantize", path, "-o", path.with_name("q.onnx"), "--scheme", "w4g32"),
)
COMPILING_VERBS = (
    lambda path: ("compile", path, "-o", path.with_name("m.so")),
    lambda path: ("run", path, "--random", "--no-cache"),
    lambda path: ("verify", path, "--random", "--no-cache"),
    lambda path: ("bench", path, "--random", "--no-cache", "--repeat", "1"),
)


def check_verbs(folder, checks):
    """Models with flipped bits through the verbs that do more than read."""
    chance = random.Random(SEED)

    def one(index):
        name = list(MODELS)[index % len(MODELS)]
        place = folder / f"verbs-{index}-{name}"
        place.mkdir()
        source = place / "bad.onnx"
        source.write_bytes(variants[index])
        verbs = (*READING_VERBS, COMPILING_VERBS[index % len(COMPILING_VERBS)])
        commands = [verb(source) for verb in verbs]
        return [(f"{place.name}: {command[0]}", support.run(NIBBLE, *command, timeout=60))
                for command in commands]

    variants = [
        flip_bits(MODELS[list(MODELS)[index % len(MODELS)]]().SerializeToString(), chance, [1, 2])
        for index in range(VERB_MUTANTS)
    ]
    refused = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for results in pool.map(one, range(VERB_MUTANTS)):
            for name, result in results:
                fine = result.code in (0, 1, 3) and not result.timed_out
                told = result.code != 1 or "error" in result.stderr
                checks.check(fine and told, f"{name}: {result}")
                refused += result.code == 1
    print(f"{refused} of {3 * VERB_MUTANTS} commands on {VERB_MUTANTS} mutants refused")


def check_archives(folder, checks):
    """Inputs and calibration data that do not fit the model or are no archive."""
    source, archive = folder / "good.onnx", folder / "data.npz"
    source.write_bytes(linear_model().SerializeToString())
    x = np.ones((4, 8), np.float32)
    nan = x.copy()
    nan[1, 2] = np.nan
    # (arrays or bytes, words of --calib, words of --inputs; None: no fault there)
    cases = {
        "no archive": (b"This is no archive." * 9, ["archive"], ["archive"]),
        "truncated": (None, ["archive"], ["archive"]),
        "missing": ({}, ["input"], ["input"]),
        "unknown": ({"input": x, "extra": x}, ["extra"], ["extra"]),
        "kind": ({"input": x.astype(np.float64)}, ["input", "float64"], ["input", "float64"]),
        "shape": ({"input": x[:, :5]}, ["input", "8"], ["input", "8"]),
        "rank": ({"input": x[0]}, ["input"], ["input"]),
        "objects": ({"input": np.array([{}], object)}, ["input"], ["input"]),
        "no samples": ({"input": x[:0]}, ["samples"], None),
        "NaN": ({"input": nan}, ["input", "NaN"], None),
    }
    for name, (content, calibration, inputs) in cases.items():
        np.savez(archive, **(content if isinstance(content, dict) else {"input": x}))
        if not isinstance(content, dict):
            archive.write_bytes(content or archive.read_bytes()[:-30])
        before = set(os.listdir(folder))
        commands = [(calibration, ("quantize", source, "-o", folder / "q.onnx", "--scheme",
                                   "w4g32", "--calib", archive))]
        if inputs is not None:
            commands.append((inputs, ("run", source, "--inputs", archive, "--outputs",
                                      folder / "y.npz", "--no-cache")))
        for words, command in commands:
            result = support.run(NIBBLE, *command, timeout=60)
            result.left = sorted(set(os.listdir(folder)) - before)
            check_refused(f"{name} ({command[0]})", result, checks, *words)
    print(f"{len(cases)} kinds of faulty archives")


def changed(change, make=linear_model):
    made = make()
    change(made.graph)
    return made.SerializeToString()


def huge_dims(graph):
    graph.initializer[0].dims[:] = [1 << 40, 1 << 40]


def short_data(graph):
    graph.initializer[0].raw_data = graph.initializer[0].raw_data[:-4]


def long_data(graph):
    graph.initializer[0].raw_data += bytes(4)


def unknown_type(graph):
    graph.initializer[0].data_type = 999


def cycle(graph):
    graph.node[0].input[0] = "output"


def undefined(graph):
    graph.node[1].input[1] = "nowhere"


def negative_dims(graph):
    graph.initializer[0].dims[:] = [-8, -8]


def twice_defined(graph):
    graph.node[1].output[0] = "product"


def external(location, length=256, offset=0):
    def change(graph):
        tensor = graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": location, "offset": offset, "length": length}
        for key, entry in place.items():
            tensor.external_data.add(key=key, value=str(entry))

    return change


def nested(depth):
    """A graph in an If in a graph in an If …, as wire bytes: protobuf's own library
    refuses to write it."""

    def field(number, content):
        header, length = bytearray([number << 3 | 2]), len(content)
        while length > 0x7F:
            header.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes(header) + bytes([length]) + content

    graph = b""
    for _ in range(depth):
        # AttributeProto: name 1, g 6, type 20 (GRAPH = 5). NodeProto: op_type 4, attribute 5.
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(4, b"If") + field(5, attribute))
    # ModelProto: ir_version 1, graph 7, opset_import 8 (version 2).
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x12")


def check_errors(folder, checks):
    """Each fault has its message."""
    neighbour = folder / "outside.data"
    neighbour.write_bytes(bytes(1024))
    cases = {
        "not-a-protobuf": (b"This is no model but a line of text.\n" * 20, []),
        "empty": (b"", ["empty"]),
        "dims-overflow": (changed(huge_dims), ["weight"]),
        "dims-negative": (changed(negative_dims), ["weight"]),
        "data-too-short": (changed(short_data), ["weight", "252", "256"]),
        "data-too-long": (changed(long_data), ["weight", "260", "256"]),
        "unknown-type": (changed(unknown_type), ["weight", "999"]),
        "cycle": (changed(cycle), ["cycle"]),
        "undefined-name": (changed(undefined), ["nowhere", "add"]),
        "twice-defined": (changed(twice_defined), ["product"]),
        "external-absent": (changed(external("absent.data")), ["weight", "absent.data"]),
        "external-escapes": (changed(external("../outside.data")), ["weight", "outside.data"]),
        "external-escapes-late": (
            changed(external("down/../../outside.data")), ["weight", "outside.data"]),
        "external-absolute": (changed(external(str(neighbour))), ["weight", "outside.data"]),
        "external-past-end": (
            changed(external("inside.data", offset=1000)), ["weight", "inside.data"]),
        "external-wrong-length": (
            changed(external("inside.data", length=100)), ["weight", "100", "256"]),
        "external-negative": (changed(external("inside.data", offset=-4)), ["weight"]),
        "external-link-escapes": (changed(external("link.data")), ["weight", "link.data"]),
        "nested-deeply": (nested(10000), ["nest"]),
    }
    for name, (content, words) in cases.items():
        place = folder / name
        (place / "down").mkdir(parents=True)
        (place / "inside.data").write_bytes(bytes(1024))
        (place / "link.data").symlink_to(neighbour)
        source = place / "bad.onnx"
        source.write_bytes(content)
        result = attempt(source, place / "result.mlirbc")
        check_refused(name, result, checks, *words, path=source)
        # The tool that people use refuses it in the same way.
        result = attempt(source, place / "result.onnx", NIBBLE, "quantize")
        check_refused(f"{name} (nibble quantize)", result, checks, *words, path=source)

    missing = folder / "missing.onnx"
    output = folder / "from-missing.mlirbc"
    check_refused("missing", attempt(missing, output), checks, path=missing)
    # Reading a folder is no file either.
    check_refused("folder", attempt(folder, output), checks, path=folder)
    print(f"{len(cases) + 2} kinds of faulty input, through nibble-translate and nibble")


def write_big_model(path, mib):
    """Zeros in one external file: quick to write, long to copy."""
    rows = mib * 256
    made = model([helper.make_node("MatMul", ["input", "weight"], ["output"])])
    tensor = TensorProto(name="weight", data_type=FLOAT, dims=[1024, rows])
    made.graph.initializer.append(tensor)
    external(f"{path.name}.data", length=rows * 4096)(made.graph)
    path.write_bytes(made.SerializeToString())
    with open(path.with_name(f"{path.name}.data"), "wb") as data:
        data.truncate(rows * 4096)


def exported(source, folder):
    """Returns the bytecode of a model, ready for exports."""
    imported = folder / f"{source.stem}.mlirbc"
    support.must_run(TRANSLATE, "--import-onnx", source, "-o", imported)
    return imported


def check_outputs(folder, checks):
    """Places that cannot be written, or that fill up."""
    source = folder / "good.onnx"
    source.write_bytes(linear_model().SerializeToString())
    output = folder / "absent" / "result.mlirbc"
    check_refused("absent folder", attempt(source, output), checks, "absent")

    taken = folder / "taken.mlirbc"
    taken.mkdir()
    check_refused("output is a folder", attempt(source, taken), checks, "taken")

    for special in ("/dev/full", "/dev/stdout"):
        before = sorted(os.listdir("/dev"))
        result = support.run(NIBBLE, "quantize", source, "-o", special)
        checks.check(result.code == 1 and "no regular file" in result.stderr,
                     f"quantize to {special}: {result}")
        checks.check(sorted(os.listdir("/dev")) == before, f"{special}: leaves something")
    result = support.run(TRANSLATE, "--export-onnx", exported(source, folder), "-o", "/dev/full")
    checks.check(result.code == 1 and "space" in result.stderr, f"export to /dev/full: {result}")
    # Names say nothing about what a file holds.
    unnamed, output = folder / "unnamed", folder / "result"
    unnamed.write_bytes(source.read_bytes())
    result = support.run(NIBBLE, "quantize", unnamed, "-o", output, "--scheme", "w4g32")
    checks.check(result.code == 0 and output.exists(), f"files without .onnx: {result}")
    output.unlink(missing_ok=True)

    if os.geteuid() != 0:
        place = folder / "locked"
        place.mkdir(mode=0o500)
        output = place / "result.mlirbc"
        check_refused("locked folder", attempt(source, output), checks, "result")

    big = folder / "big.onnx"
    write_big_model(big, 64)
    imported = exported(big, folder)
    full = folder / "full"
    full.mkdir()
    # A file system of its own, which no other process sees and which goes with it.
    script = 'mount -t tmpfs -o size=1m none "$0" && cd "$0" && "$@"; code=$?; ls -A; exit $code'
    mounted = ["unshare", "--mount", "sh", "-c", script, full]
    if support.run(*mounted, "true").code:
        mounted = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, full]
    if support.run(*mounted, "true").code:
        print("full output: not checked, no small file system can be mounted here")
        return
    result = support.run(
        *mounted, TRANSLATE, "--export-onnx", imported, "-o", "result.onnx", timeout=60
    )
    checks.check(result.code == 1 and not result.timed_out, f"full output: {result}")
    checks.check("result.onnx" in result.stderr, f"full output: {result.stderr}")
    checks.check("space" in result.stderr, f"full output: tells no cause: {result.stderr}")
    checks.check(not result.stdout.strip(), f"full output: leaves {result.stdout}")
    result = support.run(*mounted, NIBBLE, "quantize", big, "-o", "result.onnx", "--scheme",
                         "w8g32", "--quiet", timeout=60)
    checks.check(result.code == 1 and "space" in result.stderr, f"quantize, full: {result}")
    checks.check(not result.stdout.strip(), f"quantize, full: leaves {result.stdout}")


def check_interrupt(folder, checks):
    """SIGINT as soon as the output appears: a quick end, and nothing left of it."""
    source = folder / "long.onnx"
    write_big_model(source, 1536)
    imported = exported(source, folder)
    place = folder / "interrupted"
    place.mkdir()
    output = place / "result.onnx"
    sent = []

    def interrupt(process):
        deadline = time.monotonic() + 20
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while time.monotonic() < deadline and not os.waitid(os.P_PID, process.pid, ended):
            if any(path.stat().st_size > 1 << 20 for path in place.iterdir()):
                process.send_signal(signal.SIGINT)
                sent.append(time.monotonic())
                return
            time.sleep(0.002)

    start = time.monotonic()
    result = support.run(
        TRANSLATE, "--export-onnx", imported, "-o", output, timeout=60, on_start=interrupt
    )
    if not checks.check(sent, f"interrupt: no output in sight: {result}"):
        return
    seconds = start + result.seconds - sent[0]
    # A tool may end itself by the signal once it has cleaned up, so that a shell
    # loop around it ends too; 130 is what shells call that.
    ends = (1, 130, -signal.SIGINT)
    checks.check(result.code in ends, f"interrupt: {result}")
    checks.check(seconds < 10, f"interrupt: ended {seconds:.1f} s later")
    left = [path.name for path in place.iterdir()]
    checks.check(not left, f"interrupt: leaves {left}")


def main():
    checks = support.Checks()
    groups = [check_errors, check_truncations, check_mutants, check_verbs, check_archives,
              check_outputs, check_interrupt]
    for group in groups:
        # Two tests that write gigabytes at once would only measure the disk.
        alone = support.only_one("disk") if group is check_interrupt else contextlib.nullcontext()
        with alone, support.scratch() as folder:
            group(pathlib.Path(folder), checks)
    checks.finish()


if __name__ == "__main__":
    main()
