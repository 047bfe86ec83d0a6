# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime, shared-models
"""The demo's language model, on the first windows of a fixed set of tokens: the float
model has the perplexity that was measured with llama.cpp, and rounding its 210 block
weights to 4 bits costs no more than it must.

Perplexities compare only on equal windows, so their number is part of the bounds.
"""

import pathlib
import sys

import numpy as np
import onnx

import support

sys.path.insert(0, str(support.SOURCE_DIR / "demo"))
import evaluate  # noqa: E402

WINDOWS = 4
FLOAT_PERPLEXITY = 25.49
BLOCK_WEIGHTS = 210
# Scheme: the perplexity that plain rounding between minimum and maximum reaches.
ROUNDED = {"w4g32": 29.7, "w4g128": 32.1}
EMBEDDING = "model.embed_tokens.weight"


def quantize(source, target, scheme, *options):
    done = support.must_run(
        support.tool("nibble"), "quantize", source, "-o", target, "--scheme", scheme,
        "--method", "round", "--keep", EMBEDDING, *options, timeout=300,
    )
    print(f"{target.name}: {done.seconds:.1f} s, {done.peak_bytes >> 20} MiB", flush=True)
    return target


def count_quantized(path):
    model = onnx.load(path, load_external_data=False)
    kinds = ("MatMulNBits", "DequantizeLinear")
    return sum(node.op_type in kinds for node in model.graph.node)


def main():
    source, reason = support.demo_model()
    if source is None:
        support.skip(reason)
    tokens_file = support.SHARED_DIR / "models/smollm2.eval.npz"
    if not tokens_file.exists():
        support.skip(f"no {tokens_file.name} in the shared folder")
    tokens = np.load(tokens_file)["input_ids"][:WINDOWS]

    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        quantized = {}
        for scheme in ROUNDED:
            for scale, options in (("minmax", ["--scale", "minmax"]), ("search", [])):
                target = folder / f"{scheme}.{scale}.onnx"
                quantized[scheme, scale] = quantize(source, target, scheme, *options)
        results = evaluate.evaluate([source, *quantized.values()], tokens)
        print(evaluate.table(results))
        for path in quantized.values():
            count = count_quantized(path)
            checks.check(count == BLOCK_WEIGHTS, f"{path.name}: {count} quantized weights")

    perplexity = dict(zip(quantized, (r["perplexity"] for r in results[1:])))
    original = results[0]["perplexity"]
    checks.check(abs(original - FLOAT_PERPLEXITY) <= 0.02, f"float perplexity {original:.3f}")
    for scheme, bound in ROUNDED.items():
        rounded, searched = perplexity[scheme, "minmax"], perplexity[scheme, "search"]
        # The bounds are measured figures with two digits behind the point.
        checks.check(round(rounded, 2) <= bound, f"{scheme}, minmax: {rounded:.3f}, more than {bound}")
        checks.check(searched < rounded, f"{scheme}: {searched:.3f} with the scale search")
    checks.finish()


main()
