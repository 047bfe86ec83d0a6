#!/usr/bin/env python3
"""Compares quantized decoders with the original, both run by ONNX Runtime.

usage: evaluate.py ORIGINAL.onnx [QUANTIZED.onnx...] --tokens WINDOWS.npz
                   [--windows N] [--threads N] [--accuracy-level N] [--json OUT.json]

WINDOWS.npz holds input_ids int64[windows, length]; each position predicts the next.

  bytes        the .onnx file and the external data that it names
  bits/weight  8 * bytes / parameters of the original (elements of its float weights,
               a tied weight counted once)
  perplexity   exp of the mean negative log likelihood
  rise         of the perplexity over the original's, on the same windows
  KL           KL(original || quantized) in nats, mean and 99th percentile over positions
  top-1        how often both predict the same next token

"±" is one standard error. Positions of a window are not independent, so it is taken
from the differences between windows.
"""

import argparse
import json
import math
import os
import pathlib
import sys
import time

import numpy as np
import onnx
import onnxruntime

FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}
# Positions taken to float64 at a time.
CHUNK = 64


class EvaluationError(Exception):
    """A model or the windows cannot be used; says why."""


def graphs(graph):
    """A graph and all the graphs nested in its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for nested in [attribute.g, *attribute.graphs]:
                yield from graphs(nested)


def constants(model):
    """Every tensor that the model holds, initializers and Constant nodes alike."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            if node.op_type == "Constant":
                yield from (a.t for a in node.attribute if a.name == "value")


def load(path):
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common class of their own
        raise EvaluationError(f"{path}: not a readable ONNX file: {error}") from error


def size_in_bytes(path):
    """The model file and the external files that its tensors name."""
    files = {path.name}
    for tensor in constants(load(path)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            files |= {e.value for e in tensor.external_data if e.key == "location"}
    return sum(os.path.getsize(path.parent / name) for name in files)


def count_parameters(path):
    return sum(math.prod(t.dims) for t in constants(load(path)) if t.data_type in FLOATS)


def open_session(path, threads, accuracy_level):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if accuracy_level is not None:
        options.add_session_config_entry(
            "session.qdq_matmulnbits_accuracy_level", str(accuracy_level)
        )
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a class for each status code
        raise EvaluationError(f"{path}: ONNX Runtime cannot load it: {error}") from error


def empty_caches(session):
    """A decoder with a cache starts without past keys and values."""
    return {
        value.name: np.zeros([1, *(n if isinstance(n, int) else 0 for n in value.shape[1:])],
                             np.float32)
        for value in session.get_inputs()[1:]
    }


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


class Tally:
    """What is kept of one model: a few numbers for each position, never its logits."""

    def __init__(self):
        self.loss, self.divergence, self.agreement = [], [], []

    def add(self, logits, targets, reference=None):
        """logits and reference [positions, vocabulary], targets [positions]."""
        loss, divergence, agreement = [], [], []
        for begin in range(0, len(targets), CHUNK):
            rows = slice(begin, begin + CHUNK)
            mine = log_softmax(logits[rows])
            loss.append(-mine[np.arange(len(mine)), targets[rows]])
            if reference is not None:
                theirs = log_softmax(reference[rows])
                divergence.append((np.exp(theirs) * (theirs - mine)).sum(axis=-1))
                agreement.append(mine.argmax(axis=-1) == theirs.argmax(axis=-1))
        self.loss.append(np.concatenate(loss))
        if reference is not None:
            self.divergence.append(np.concatenate(divergence))
            self.agreement.append(np.concatenate(agreement).astype(np.float64))

    def summary(self, original):
        """Results by name; errors are NaN where one window says nothing of others."""
        loss, loss_error = mean_and_error(self.loss)
        perplexity = math.exp(loss)
        result = {"perplexity": perplexity, "perplexity_error": perplexity * loss_error}
        if self.divergence:
            pairs = zip(self.loss, original.loss)
            excess, excess_error = mean_and_error([mine - theirs for mine, theirs in pairs])
            result["rise"] = math.expm1(excess)
            result["rise_error"] = math.exp(excess) * excess_error
            result["kl"], result["kl_error"] = mean_and_error(self.divergence)
            result["kl_p99"] = float(np.percentile(np.concatenate(self.divergence), 99))
            result["top1"], result["top1_error"] = mean_and_error(self.agreement)
        return result


def mean_and_error(windows):
    """Mean over all positions, and its standard error with windows as clusters (NaN
    for one window, which says nothing about others)."""
    means = np.array([window.mean() for window in windows])
    if len(means) < 2:
        return float(means.mean()), math.nan
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means)))


def show_progress(done, total, start):
    if not done:
        return
    left = (time.monotonic() - start) / done * (total - done)
    text = f"window {done} of {total}, {left:.0f} s left"
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if done < total else "\r\033[K", file=sys.stderr, flush=True)
    elif done % 4 == 0 or done == total:
        print(text, file=sys.stderr, flush=True)


def evaluate(paths, tokens, threads=0, accuracy_level=None):
    """Returns a dictionary of results for each path; the first is the original."""
    sessions = [open_session(path, threads, accuracy_level) for path in paths]
    tallies = [Tally() for _ in paths]
    start = time.monotonic()
    for done, window in enumerate(tokens):
        show_progress(done, len(tokens), start)
        reference = None
        for session, tally in zip(sessions, tallies):
            feed = empty_caches(session) | {session.get_inputs()[0].name: window[None]}
            logits = session.run(None, feed)[0][0, :-1]
            tally.add(logits, window[1:], reference)
            if reference is None:
                reference = logits
            del logits
    show_progress(len(tokens), len(tokens), start)

    parameters = count_parameters(paths[0])
    results = []
    for path, tally in zip(paths, tallies):
        size = size_in_bytes(path)
        result = {"model": str(path), "bytes": size, "bits_per_weight": 8 * size / parameters}
        results.append(result | tally.summary(tallies[0]))
    return results


def table(results):
    """The results as lines of aligned columns."""
    heads = ["model", "bytes", "bits/weight", "perplexity", "rise", "KL mean", "KL p99", "top-1"]
    rows = [heads]
    for r in results:
        row = [pathlib.Path(r["model"]).name, f"{r['bytes']:,}", f"{r['bits_per_weight']:.2f}"]
        row.append(f"{r['perplexity']:.3f} ± {r['perplexity_error']:.3f}")
        if "kl" in r:
            row.append(f"{100 * r['rise']:.1f} ± {100 * r['rise_error']:.1f} %")
            row.append(f"{r['kl']:.4f} ± {r['kl_error']:.4f}")
            row.append(f"{r['kl_p99']:.3f}")
            row.append(f"{100 * r['top1']:.1f} ± {100 * r['top1_error']:.1f} %")
        else:
            row += ["-"] * 4
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells))
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("original", type=pathlib.Path)
    parser.add_argument("quantized", type=pathlib.Path, nargs="*")
    parser.add_argument("--tokens", type=pathlib.Path, required=True, metavar="WINDOWS.npz")
    parser.add_argument("--windows", type=int, help="use the first N windows only")
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core")
    parser.add_argument(
        "--accuracy-level", type=int, choices=range(5), metavar="N",
        help="of MatMuls that ONNX Runtime makes from QDQ pairs (1: float32)",
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="OUT.json")
    arguments = parser.parse_args()
    try:
        try:
            tokens = np.load(arguments.tokens)["input_ids"]
        except (OSError, ValueError, KeyError) as error:
            raise EvaluationError(f"{arguments.tokens}: no input_ids in it: {error}") from error
        if arguments.windows is not None and not 1 <= arguments.windows <= len(tokens):
            raise EvaluationError(f"--windows {arguments.windows}: there are {len(tokens)}")
        results = evaluate(
            [arguments.original, *arguments.quantized],
            tokens[: arguments.windows],
            arguments.threads,
            arguments.accuracy_level,
        )
    except (EvaluationError, OSError) as error:
        sys.exit(f"error: {error}")
    print(table(results))
    if arguments.json:
        unfinished = arguments.json.with_name(arguments.json.name + ".unfinished")
        # JSON has no NaN.
        known = [{k: v for k, v in r.items() if v == v} for r in results]
        unfinished.write_text(json.dumps(known, indent=1) + "\n")
        os.replace(unfinished, arguments.json)


if __name__ == "__main__":
    main()
