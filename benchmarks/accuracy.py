#!/usr/bin/env python3
"""What quantization costs a language model: nibble beside ONNX Runtime's own quantizer.

usage: accuracy.py MODEL.onnx --calib CALIB.npz --eval EVAL.npz [--samples 32] [--windows 20]
                   [--work FOLDER] [--nibble build/release/bin/nibble] [--only PATTERN]

MODEL takes token ids [batch, tokens] and gives logits as its first output; the archives hold
windows of token ids under the name of its input. Every file is judged by one evaluator: in
ONNX Runtime, on the same windows, by the divergence from the float model's distributions (in
nats a position), agreement of the most likely token, and perplexity. Prints a table in
Markdown. Needs numpy, onnx and onnxruntime; the peer is left out where its package is missing.
"""
import argparse
import fnmatch
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime

# The label, and the options of nibble quantize (with %C for those of calibration).
NIBBLE = {
    "w4g32s nearest": "--scheme w4g32s --method round --scale minmax",
    "w4g32s gptq": "--scheme w4g32s --method gptq %C",
    "w4g32s": "--scheme w4g32s %C",
    "w4g128 nearest": "--scheme w4g128 --method round --scale minmax",
    "w4g128 gptq": "--scheme w4g128 --method gptq %C",
    "w4g128 awq": "--scheme w4g128 --method awq %C",
    "w4g128 recipe": "--scheme w4g128 --method recipe %C",
    "w4g128": "--scheme w4g128 %C",
    "w4g32s recipe": "--scheme w4g32s --method recipe %C",
    "w3g128 awq+recipe": "--scheme w3g128 --method awq+recipe %C",
    "w2g32 awq+recipe": "--scheme w2g32 --method awq+recipe %C",
    "w4g128 sequential": "--scheme w4g128 --sequential %C",
    "w4g128 damping .003": "--scheme w4g128 --damping .003 %C",
    "w4g128 damping .05": "--scheme w4g128 --damping .05 %C",
    "w4g64": "--scheme w4g64 %C",
    "w4cs": "--scheme w4cs %C",
    "w4cs recipe": "--scheme w4cs --method recipe %C",
    "nf4g64 recipe": "--scheme nf4g64 --method recipe %C",
    "w3g128 gptq": "--scheme w3g128 --method gptq %C",
    "w3g128": "--scheme w3g128 %C",
    "w2g32": "--scheme w2g32 %C",
    "w4g128 spqr": "--scheme w4g128 --method spqr+recipe --outlier-share .5 %C",
    "w3g128 spqr": "--scheme w3g128 --method spqr+recipe %C",
    "w3g64": "--scheme w3g64 %C",
    "w2g32 spqr": "--scheme w2g32 --method spqr+recipe %C",
    "nf4g64": "--scheme nf4g64 %C",
    "w4g64s doubly": "--scheme w4g64s --double-quantization %C",
    "w8a8 round": "--scheme w8cs --activations dynamic --method round",
    "w8a8 smoothquant": "--scheme w8cs --activations dynamic %C",
    "w8a8 llm-int8": "--scheme w8cs --activations dynamic --method llm-int8 %C",
    "mixed, 4.5 bits": "--target-bpw 4.5 %C",
    "mixed, 3.5 bits": "--target-bpw 3.5 %C",
    "mixed, 3.45 bits": "--target-bpw 3.45 %C",
}
PEER = {"onnxruntime w4g32s": (32, True), "onnxruntime w4g128": (128, False)}


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def log_probabilities(session, window):
    logits = session.run(None, {session.get_inputs()[0].name: window[None]})[0][0]
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True, dtype=np.float64)).astype("f")


class Evaluator:
    """Keeps the float model's distributions on disk."""

    def __init__(self, model, windows, folder):
        self.windows, self.files = windows, []
        session = open_session(model)
        for i, window in enumerate(windows):
            self.files.append(folder / f"float{i}.npy")
            np.save(self.files[-1], log_probabilities(session, window))

    def score(self, model):
        session = open_session(model)
        divergences, agreements, losses = [], [], []
        for window, file in zip(self.windows, self.files):
            reference = np.load(file, mmap_mode="r")
            other = log_probabilities(session, window)
            divergences.append(np.einsum("ij,ij->i", np.exp(reference), reference - other))
            agreements.append(reference.argmax(-1) == other.argmax(-1))
            losses.append(-other[np.arange(len(window) - 1), window[1:]])
        divergence = np.concatenate(divergences).astype(np.float64)
        return (f"{divergence.mean():.4f} ± {divergence.std() / len(divergence) ** .5:.4f} | "
                f"{np.percentile(divergence, 99):.2f} | {np.concatenate(agreements).mean():.3f} | "
                f"{np.exp(np.concatenate(losses).astype(np.float64).mean()):.2f}")


def count_bytes(path):
    return sum(file.stat().st_size for file in (path, pathlib.Path(f"{path}.data")) if file.exists())


def run_nibble(arguments, options, output):
    calibration = f"--calib {arguments.calib} --samples {arguments.samples} --no-evaluate"
    command = [arguments.nibble, "quantize", arguments.model, "-o", str(output), "--quiet"]
    subprocess.run(command + options.replace("%C", calibration).split(), check=True,
                   stdout=subprocess.DEVNULL)


def run_peer(arguments, scheme, output):
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    group, symmetric = scheme
    model = onnx.load(arguments.model)
    # The head shares the embedding's table, which nibble leaves alone too.
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    made = {output: node for node in model.graph.node for output in node.output}

    def reads_table(node):
        source = made.get(node.input[1])
        return node.input[1] in tables or (source is not None and source.input[0] in tables)

    heads = [node.name for node in model.graph.node
             if node.op_type == "MatMul" and reads_table(node)]
    quantizer = MatMulNBitsQuantizer(model, block_size=group, is_symmetric=symmetric,
                                     accuracy_level=1, nodes_to_exclude=heads)
    quantizer.process()
    quantizer.model.save_model_to_file(str(output), use_external_data_format=True)


def measure(label, produce, evaluator, output):
    for old in (output, pathlib.Path(f"{output}.data")):
        old.unlink(missing_ok=True)
    start = time.monotonic()
    try:
        produce()
    except (ImportError, subprocess.CalledProcessError) as error:
        print(f"| {label} | left out: {error} |", flush=True)
        return
    seconds = time.monotonic() - start
    print(f"| {label} | {evaluator.score(output)} | {count_bytes(output) / 1e6:.1f} | "
          f"{seconds:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calib", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--work", default="build/accuracy")
    parser.add_argument("--nibble", default="build/release/bin/nibble")
    parser.add_argument("--only", default="*", help="glob over the labels of rows")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.work)
    folder.mkdir(parents=True, exist_ok=True)
    name = open_session(arguments.model).get_inputs()[0].name
    windows = np.load(arguments.eval)[name][:arguments.windows]
    evaluator = Evaluator(arguments.model, windows, folder)
    output = folder / "quantized.onnx"
    print("| file | KL mean | KL p99 | top-1 | perplexity | MB | s |\n|---|---|---|---|---|---|---|")
    print(f"| float | {evaluator.score(arguments.model)} | "
          f"{count_bytes(pathlib.Path(arguments.model)) / 1e6:.1f} | |", flush=True)
    for label, options in NIBBLE.items():
        if fnmatch.fnmatch(label, arguments.only):
            measure(label, lambda: run_nibble(arguments, options, output), evaluator, output)
    for label, scheme in PEER.items():
        if fnmatch.fnmatch(label, arguments.only):
            measure(label, lambda: run_peer(arguments, scheme, output), evaluator, output)
    for file in evaluator.files:
        file.unlink()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"\n{os.cpu_count()} cores; most memory of a nibble: {children / 1024:.0f} MiB",
          file=sys.stderr)


main()
