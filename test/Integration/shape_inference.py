# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""onnx-infer-shapes agrees with onnx, and onnx-fold-constants with ONNX Runtime.

Inference: ONNX's backend cases, with every type but those of the inputs taken away, go
through onnx.shape_inference (strict_mode=False, data_prop=True) and through Nibble, once
with inputs and once with the inputs' values as initializers. Wherever both know an
element type, a rank or a size, they must agree; printed is how often Nibble knows as
much. So do real models from packages. These and a small decoder also run in ONNX
Runtime with every value as an output: its shape must be what Nibble inferred, and a
name must stand for one size.

Folding: with the inputs as initializers the cases fold as far as the pass goes; ONNX
Runtime must give the same bits before and after.

Cases of one opset are joined into models of many nodes, so that starting tools does not
take most of the time.
"""

import collections
import functools
import multiprocessing
import os
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from onnx import numpy_helper, shape_inference

import onnx_roundtrip
import support

# Cases to a joined model.
JOINED = 60
RUNTIME_OPSET = 24
RUNTIME_IR = 11
# An initializer of more elements stays an input.
MAX_CONSTANT = 1024
OPT = support.tool("nibble-opt")
TRANSLATE = support.tool("nibble-translate")


# --------------------------------------------------------------------------------------
# Graphs and types


def subgraphs(node):
    for attribute in node.attribute:
        # Touching an absent message would make it present.
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def graphs_of(graph):
    yield graph
    for node in graph.node:
        for nested in subgraphs(node):
            yield from graphs_of(nested)


def nodes_of(graph):
    for nested in graphs_of(graph):
        yield from nested.node


def types_of(graph):
    """{name: TypeProto} of a graph and its subgraphs."""
    found = {}
    for nested in graphs_of(graph):
        for info in [*nested.input, *nested.output, *nested.value_info]:
            if info.HasField("type"):
                found.setdefault(info.name, info.type)
    return found


def compare(reference, ours, path=""):
    """Returns (what contradicts or "", whether ours knows all that the reference does)."""
    kind, our_kind = reference.WhichOneof("value"), ours.WhichOneof("value")
    if kind is None:
        return "", True
    if our_kind is None:
        return "", False
    if kind != our_kind:
        return f"a {our_kind}, not a {kind}", False
    theirs, mine = getattr(reference, kind), getattr(ours, kind)
    if kind in ("sequence_type", "optional_type"):
        return compare(theirs.elem_type, mine.elem_type)
    if kind != "tensor_type":
        return "", theirs == mine
    if theirs.elem_type and mine.elem_type and theirs.elem_type != mine.elem_type:
        return f"element type {mine.elem_type}, not {theirs.elem_type}", False
    complete = bool(mine.elem_type) or not theirs.elem_type
    if not theirs.HasField("shape"):
        return "", complete
    if not mine.HasField("shape"):
        return "", False
    if len(theirs.shape.dim) != len(mine.shape.dim):
        return f"rank {len(mine.shape.dim)}, not {len(theirs.shape.dim)}", False
    for index, (their_dim, my_dim) in enumerate(zip(theirs.shape.dim, mine.shape.dim)):
        known, own = their_dim.WhichOneof("value"), my_dim.WhichOneof("value")
        if known == "dim_value" and their_dim.dim_value < 0:
            continue  # a model's way to say "unknown", which onnx takes for a size
        if known == "dim_value" == own and their_dim.dim_value != my_dim.dim_value:
            return f"dim {index} is {my_dim.dim_value}, not {their_dim.dim_value}", False
        if known == "dim_value":
            complete &= own == "dim_value"
        # onnx invents names of its own ("unk__0").
        elif known == "dim_param" and not their_dim.dim_param.startswith("unk__"):
            complete &= own is not None
    return "", complete


def strip(model):
    """Leaves only the types of the inputs."""
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    for graph in graphs_of(stripped.graph):
        del graph.value_info[:]
        for output in graph.output:
            output.ClearField("type")
    return stripped


# --------------------------------------------------------------------------------------
# Models


def with_constants(model, data):
    """The model with the small tensors among its inputs turned into initializers."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    del bound.graph.input[:]
    for info, value in zip(model.graph.input, data):
        is_small = isinstance(value, np.ndarray) and value.size <= MAX_CONSTANT
        if not is_small or not info.type.HasField("tensor_type"):
            bound.graph.input.add().CopyFrom(info)
            continue
        if value.dtype == object or value.dtype.kind in "SU":
            bound.graph.input.add().CopyFrom(info)
            continue
        if any(info.name == held.name for held in bound.graph.initializer):
            continue
        bound.graph.initializer.append(numpy_helper.from_array(value, info.name))
    bound.ir_version = max(bound.ir_version, 4)
    return bound


def to_arrays(case):
    values = case.data_sets[0][0] if case.data_sets else []
    arrays = []
    for value in values:
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        arrays.append(value)
    return arrays


def opset_key(model):
    return tuple(sorted((o.domain, o.version) for o in model.opset_import))


def add_prefix(graph, prefix):
    """Renames every value, also in subgraphs (which onnx.compose does in part)."""
    for nested in graphs_of(graph):
        for values in (nested.input, nested.output, nested.value_info, nested.initializer):
            for value in values:
                value.name = prefix + value.name
        for tensor in nested.sparse_initializer:
            tensor.values.name = prefix + tensor.values.name
        for node in nested.node:
            for names in (node.input, node.output):
                names[:] = [name and prefix + name for name in names]


def join(models):
    """One model of several, of the same opsets; their values get prefixes."""
    joined = onnx.ModelProto()
    joined.ir_version = max(model.ir_version for _, model in models)
    joined.opset_import.extend(models[0][1].opset_import)
    joined.graph.name = "joined"
    for prefix, model in models:
        part = onnx.GraphProto()
        part.CopyFrom(model.graph)
        add_prefix(part, prefix)
        for field in ("node", "initializer", "sparse_initializer", "input", "output",
                      "value_info"):
            getattr(joined.graph, field).extend(getattr(part, field))
    return joined


def groups(models):
    """[[(prefix, model), …]] of at most JOINED models of the same opsets."""
    by_key = collections.defaultdict(list)
    for index, model in enumerate(models):
        if model.functions or not opset_key(model):
            continue
        by_key[opset_key(model)].append((f"c{index}_", model))
    for members in by_key.values():
        for begin in range(0, len(members), JOINED):
            yield members[begin : begin + JOINED]


def through_nibble(model, folder, *passes):
    """Returns (model, "") or (None, what a tool said)."""
    source = pathlib.Path(folder) / "source.onnx"
    imported, transformed = source.with_suffix(".mlirbc"), source.with_suffix(".out.mlirbc")
    result = source.with_suffix(".out.onnx")
    onnx.save(model, source)
    for command in (
        [TRANSLATE, "--import-onnx", source, "-o", imported],
        [OPT, imported, *passes, "--emit-bytecode", "-o", transformed],
        [TRANSLATE, "--export-onnx", transformed, "-o", result],
    ):
        done = support.run(*command)
        if done.code or done.timed_out:
            return None, str(done)[:2000]
    return onnx.load(result), ""


# --------------------------------------------------------------------------------------
# Inference


def check_inference(item):
    """Returns ([complaints], {op type: (outputs as complete, outputs)})."""
    name, model = item
    tally = collections.defaultdict(lambda: [0, 0])
    stripped = strip(model)
    with support.scratch() as folder:
        ours, complaint = through_nibble(
            stripped, folder, "--onnx-infer-shapes=record=true"
        )
    if ours is None:
        return [f"{name}: {complaint}"], {}
    reference = shape_inference.infer_shapes(stripped, strict_mode=False, data_prop=True)
    expected, found = types_of(reference.graph), types_of(ours.graph)
    complaints = []
    for node in nodes_of(reference.graph):
        for output in node.output:
            if output not in expected:
                continue
            mine = found.get(output, onnx.TypeProto())
            contradiction, complete = compare(expected[output], mine)
            if contradiction:
                complaints.append(f"{name}: {node.op_type} output {output}: {contradiction}")
            key = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
            tally[key][0] += complete
            tally[key][1] += 1
    return complaints, dict(tally)


def report_inference(label, items, pool, checks, verbose):
    total = collections.defaultdict(lambda: [0, 0])
    for complaints, tally in pool.imap_unordered(check_inference, items):
        checks.check(not complaints, "\n  ".join(complaints[:12]))
        for op_type, (complete, count) in tally.items():
            total[op_type][0] += complete
            total[op_type][1] += count
    complete = sum(c for c, _ in total.values())
    count = sum(n for _, n in total.values())
    print(f"{label}: of {count} outputs that onnx infers, {complete} as much or more", flush=True)
    missing = sorted(((n - c, op) for op, (c, n) in total.items() if c < n), reverse=True)
    print("  less: " + ", ".join(f"{op} {n}" for n, op in missing[: None if verbose else 20]))
    checks.check(count > 0, f"{label}: nothing to compare")


# --------------------------------------------------------------------------------------
# Folding


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # Bits are compared: the runtime must not fold or fuse by itself.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def bits(value):
    if isinstance(value, (list, tuple)):
        return [bits(element) for element in value]
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, (
            value.tolist() if value.dtype == object else value.tobytes()
        )
    return value


def run_all(loaded, feeds):
    known = {value.name for value in loaded.get_inputs()}
    outputs = loaded.run(None, {name: v for name, v in feeds.items() if name in known})
    return {o.name: bits(v) for o, v in zip(loaded.get_outputs(), outputs)}


def restamp(model):
    """Lowers versions that the runtime does not know yet."""
    model.ir_version = min(model.ir_version, RUNTIME_IR)
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = min(opset.version, RUNTIME_OPSET)
    return model


RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
          "Bernoulli", "Multinomial", "Dropout"}


def runs(item):
    """Whether the runtime runs a case, which one node of a joined model may prevent."""
    model, feeds = item
    if any(node.op_type in RANDOM for node in nodes_of(model.graph)):
        return False
    try:
        run_all(session(model), feeds)
    except Exception:  # ONNX Runtime raises a class for each status code
        return False
    return True


def check_folding(item):
    """Returns (complaints, outputs compared, nodes before, nodes after)."""
    name, model, feeds = item
    with support.scratch() as folder:
        folded, complaint = through_nibble(
            model, folder, "--onnx-infer-shapes", "--onnx-fold-constants"
        )
    if folded is None:
        return [f"{name}: {complaint}"], 0, 0, 0
    expected = run_all(session(model), feeds)
    try:
        found = run_all(session(folded), feeds)
    except Exception as error:
        return [f"{name}: the folded model does not run: {error}"], 0, 0, 0
    complaints = [
        f"{name}: output {output} differs: {str(found.get(output))[:200]} instead of "
        f"{str(value)[:200]}"
        for output, value in expected.items()
        if found.get(output) != value
    ]
    return complaints, len(expected), len(model.graph.node), len(folded.graph.node)


def report_folding(models, pool, checks):
    items = [(restamp(model), feeds) for model, feeds in models]
    running = pool.map(runs, items, chunksize=8)
    runnable = [item for item, runs_here in zip(items, running) if runs_here]
    joined = []
    for index, members in enumerate(groups([model for model, _ in runnable])):
        feeds = {}
        for prefix, _ in members:
            for key, value in runnable[int(prefix[1:-1])][1].items():
                feeds[prefix + key] = value
        joined.append((f"folding {index}", join(members), feeds))
    outputs = before = after = 0
    for complaints, compared, nodes, left in pool.imap_unordered(check_folding, joined):
        checks.check(not complaints, "\n  ".join(complaints[:12]))
        outputs, before, after = outputs + compared, before + nodes, after + left
    print(f"folding: {len(runnable)} of {len(items)} cases run; {outputs} outputs compared; "
          f"{before} nodes became {after}")
    checks.check(outputs > 0 and after < before, "nothing was folded")


# --------------------------------------------------------------------------------------
# Shapes at run time


def small_decoder():
    """One attention block as exporters write it: shapes are computed in the graph."""
    random = np.random.default_rng(0)
    weights = {
        "table": random.standard_normal((50, 24)), "query": random.standard_normal((24, 24)),
        "key": random.standard_normal((24, 8)), "value": random.standard_normal((24, 8)),
        "cosine": random.standard_normal((64, 8)),
    }
    integers = {"zero": [0], "one": [1], "two": [2], "minus": [-1], "three": [3],
                "size": [8], "hidden": [24], "heads": [1]}
    initializers = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    initializers += [numpy_helper.from_array(np.array(v, np.int64), n)
                     for n, v in integers.items()]
    graph = onnx.parser.parse_graph("""
      decoder (int64[batch, sequence] ids, float[batch, 1, past, 8] past_key) => (float[batch, s, h] y)
      {
        x = Gather <axis = 0> (table, ids)
        shape = Shape (x)
        b = Gather <axis = 0> (shape, zero)
        length = Gather <axis = 0> (shape, one)
        q = MatMul (x, query)
        split = Concat <axis = 0> (b, length, three, size)
        q4 = Reshape (q, split)
        qt = Transpose <perm = [0, 2, 1, 3]> (q4)
        rows = Slice (cosine, zero, length, zero, one)
        rotated = Mul (qt, rows)
        k = MatMul (x, key)
        one_head = Concat <axis = 0> (b, length, heads, minus)
        k4 = Reshape (k, one_head)
        kt = Transpose <perm = [0, 2, 1, 3]> (k4)
        present = Concat <axis = 2> (past_key, kt)
        columns = Transpose <perm = [0, 1, 3, 2]> (present)
        scores = MatMul (rotated, columns)
        weights = Softmax <axis = -1> (scores)
        mixed = MatMul (weights, present)
        back = Transpose <perm = [0, 2, 1, 3]> (mixed)
        merged = Concat <axis = 0> (b, length, minus)
        y = Reshape (back, merged)
      }""")
    graph.initializer.extend(initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    model.ir_version = RUNTIME_IR
    return model, decoder_feeds


def decoder_feeds(_):
    random = np.random.default_rng(1)
    return {"ids": random.integers(0, 50, (2, 5)),
            "past_key": random.standard_normal((2, 1, 7, 8)).astype(np.float32)}


def check_run(item):
    """Returns (complaints, values compared, names of dimensions seen)."""
    name, model, feeds = item
    with support.scratch() as folder:
        ours, complaint = through_nibble(
            strip(model), folder, "--onnx-infer-shapes=record=true"
        )
    if ours is None:
        return [f"{name}: {complaint}"], 0, 0
    types = types_of(ours.graph)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for node in model.graph.node:
        for output in node.output:
            if types.get(output, onnx.TypeProto()).tensor_type.HasField("shape"):
                watched.graph.output.add(name=output)
    loaded = session(restamp(watched))
    fed = feeds(loaded)
    values = dict(zip([o.name for o in loaded.get_outputs()], loaded.run(None, fed)))
    values.update({k: v for k, v in fed.items() if types[k].tensor_type.HasField("shape")})
    complaints, sizes = [], {}
    for output, value in values.items():
        dims = types[output].tensor_type.shape.dim
        expected = []
        for dim, size in zip(dims, value.shape):
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                size = dim.dim_value
            elif dim.dim_param not in ("", "?"):
                size = sizes.setdefault(dim.dim_param, size)
            expected.append(size)
        if len(dims) != value.ndim or tuple(expected) != value.shape:
            complaints.append(f"{name}: {output} has shape {value.shape}, not {expected}")
    return complaints, len(values), len(sizes)


def report_runs(items, pool, checks):
    for (name, model, _), (complaints, compared, names) in zip(items, pool.imap(check_run, items)):
        checks.check(not complaints, "\n  ".join(complaints[:12]))
        checks.check(compared > 0, f"{name}: nothing to compare")
        print(f"{name}: shapes of {compared} values at run time, {names} named sizes")


# --------------------------------------------------------------------------------------


def backend_cases():
    from onnx.backend.test.loader import load_node_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return [(case.model, to_arrays(case)) for case in load_node_model_tests()]


def real_models():
    for requirement in ("rapidocr-onnxruntime==1.4.4", "silero-vad==6.2.3"):
        folder, reason = support.package(requirement)
        if folder is None:
            print(f"not compared: {reason}")
            continue
        for path in sorted(folder.rglob("*.onnx")):
            feeds = functools.partial(onnx_roundtrip.real_feeds, path)
            yield path.name, onnx.load(path), feeds


def main():
    verbose = "-v" in sys.argv
    checks = support.Checks()
    cases = backend_cases()
    constant_cases = [(with_constants(model, data), data) for model, data in cases]
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        for label, models in (
            ("cases with inputs", [model for model, _ in cases]),
            ("cases with constants", [model for model, _ in constant_cases]),
        ):
            items = [(f"{label} {index}", join(members))
                     for index, members in enumerate(groups(models))]
            report_inference(label, items, pool, checks, verbose)
        models = list(real_models())
        report_inference("real models", [item[:2] for item in models], pool, checks, verbose)
        report_runs([("decoder", *small_decoder()), *models], pool, checks)
        feeds = [
            {info.name: value for info, value in zip(case.graph.input, data)}
            for (case, data) in cases
        ]
        report_folding(zip([model for model, _ in constant_cases], feeds), pool, checks)
    checks.finish()


if __name__ == "__main__":
    sys.exit(main())
