# RUN: %python %s
# REQUIRES: onnx
"""A 3 GiB model imports in no time and little memory, and exports by streaming.

Twice: with external data, and as one file that protobuf itself could not hold. The
files are sparse: their weights are zeros, but for a mark at the start and the end of
each, so that nothing is read slowly and a weight in a wrong place is noticed.

The demands are 0.2 s and 64 MiB for the import, 256 MiB for the export. All are
printed; memory, the whole program's, fails the test. Most of it is pages of LLVM's
shared library, which the tool takes only to print its version. The time fails the test only above 1 s: a shared machine can be slow for a moment.
"""

import pathlib
import shutil

import onnx
from onnx import TensorProto, helper

import support

TRANSLATE = support.tool("nibble-translate")
TENSORS = 96
SHAPE = (4096, 2048)
BYTES = SHAPE[0] * SHAPE[1] * 4
MIB = 1 << 20
IMPORT_PEAK = 64 * MIB
EXPORT_PEAK = 256 * MIB
IMPORT_SECONDS = 0.2
IMPORT_SECONDS_AT_MOST = 1.0
TOOL_ALONE = support.run_measured(TRANSLATE, "--version").peak_bytes


def mark(index):
    """A float32 that tells a weight from all others; its bytes."""
    return bytes([index, 0, 0x80, 0x3F])


def mark_weight(file, offset, index):
    file.seek(offset)
    file.write(mark(index))
    file.seek(offset + BYTES - 4)
    file.write(mark(TENSORS + index))


def graph():
    """A chain of MatMuls; its weights have no data yet."""
    nodes, weights, value = [], [], "input"
    for index in range(TENSORS):
        weights.append(
            TensorProto(name=f"weight{index}", data_type=TensorProto.FLOAT, dims=SHAPE)
        )
        product = f"product{index}"
        nodes.append(helper.make_node("MatMul", [value, f"weight{index}"], [product]))
        # Back to the width that the next weight takes.
        value = f"value{index}"
        nodes.append(helper.make_node("Concat", [product, product], [value], axis=-1))
    return helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", SHAPE[0]])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["rows", SHAPE[0]])],
    ), weights


def model_of(a_graph):
    return helper.make_model(
        a_graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )


def write_external(path):
    a_graph, weights = graph()
    with open(path.with_name("big.data"), "wb") as data:
        for index, weight in enumerate(weights):
            weight.data_location = TensorProto.EXTERNAL
            place = {"location": "big.data", "offset": index * BYTES, "length": BYTES}
            for key, value in place.items():
                weight.external_data.add(key=key, value=str(value))
            mark_weight(data, index * BYTES, index)
    a_graph.initializer.extend(weights)
    path.write_bytes(model_of(a_graph).SerializeToString())


def varint(value):
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field_header(number, length):
    """The start of a length-delimited field of a protobuf message."""
    return varint(number << 3 | 2) + varint(length)


def write_single_file(path):
    """The wire bytes by hand: protobuf stops at 2 GiB."""
    a_graph, weights = graph()
    model = model_of(a_graph)
    graph_start = model.graph.SerializeToString()
    model.ClearField("graph")
    # Fields of GraphProto and TensorProto: initializer = 5, raw_data = 9.
    starts = []
    for weight in weights:
        tensor = weight.SerializeToString() + field_header(9, BYTES)
        starts.append(field_header(5, len(tensor) + BYTES) + tensor)
    graph_length = len(graph_start) + sum(len(s) + BYTES for s in starts)
    with open(path, "wb") as file:
        # ModelProto: graph = 7.
        file.write(model.SerializeToString() + field_header(7, graph_length) + graph_start)
        offset = file.tell()
        for index, start in enumerate(starts):
            file.seek(offset)
            file.write(start)
            mark_weight(file, offset + len(start), index)
            offset += len(start) + BYTES


def check_weights(path, checks):
    """Every weight of an exported model has its marks, in external data."""
    model = onnx.load(path, load_external_data=False)
    checks.check(len(model.graph.initializer) == TENSORS, f"{path.name}: weights are missing")
    for index, tensor in enumerate(model.graph.initializer):
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not checks.check("location" in place, f"{tensor.name} is not external"):
            return
        offset = int(place.get("offset", 0))
        with open(path.parent / place["location"], "rb") as data:
            found = []
            for position in (offset, offset + BYTES - 4):
                data.seek(position)
                found.append(data.read(4))
        checks.check(
            found == [mark(index), mark(TENSORS + index)]
            and tuple(tensor.dims) == SHAPE
            and tensor.name == f"weight{index}",
            f"{tensor.name} has other numbers than it had: {found}",
        )


def measured(what, result, peak_limit, checks):
    used = result.peak_bytes / MIB
    print(
        f"{what}: {result.seconds:.3f} s, {used:.0f} MiB, of which the tool alone "
        f"takes {TOOL_ALONE / MIB:.0f}"
    )
    checks.check(result.code == 0, str(result))
    checks.check(
        used <= peak_limit / MIB, f"{what}: {used:.0f} MiB, more than {peak_limit // MIB}"
    )


def check_model(name, write, checks):
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        free = shutil.disk_usage(folder).free
        if free < 2 * TENSORS * BYTES:
            support.skip(f"{free / MIB:.0f} MiB are free on the disk; twice 3 GiB are needed")
        source, imported = folder / "big.onnx", folder / "big.mlirbc"
        write(source)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{name}: {size / MIB:.0f} MiB")
        # The second call: the first also reads the tool itself from disk.
        for _ in range(2):
            imported.unlink(missing_ok=True)
            done = support.run_measured(TRANSLATE, "--import-onnx", source, "-o", imported)
        measured(f"{name}: import", done, IMPORT_PEAK, checks)
        checks.check(
            done.seconds <= IMPORT_SECONDS_AT_MOST,
            f"{name}: import took {done.seconds:.2f} s, wanted {IMPORT_SECONDS} s",
        )
        exported = folder / "out.onnx"
        done = support.run_measured(TRANSLATE, "--export-onnx", imported, "-o", exported, timeout=300)
        measured(f"{name}: export", done, EXPORT_PEAK, checks)
        if done.code == 0:
            check_weights(exported, checks)


checks = support.Checks()
with support.only_one("disk"):
    check_model("external data", write_external, checks)
    check_model("one file", write_single_file, checks)
checks.finish()
