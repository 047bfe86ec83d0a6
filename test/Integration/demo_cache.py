# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""The demo's decoder with a cache computes what the decoder without one does: a text given
in pieces, each with the keys and values that the pieces before it left, has the logits of
the whole text. Both are built from a small GGUF file of random weights and run by ONNX
Runtime; demo_model.py judges the decoder without a cache by a real model's perplexity.
"""

import itertools
import pathlib

import numpy as np
import onnxruntime

import small_decoder
import support
from small_decoder import HEAD_SIZE, KV_HEADS, LAYERS, VOCABULARY

BATCH, LENGTH = 2, 23
# Where the text is cut: a long piece, single tokens, a few at once, and one piece alone.
CUTS = ([0, 9, 10, 11, 17, 18, 23], [0, 1, 23], [0, 23])
# Sums in another order than those of the whole text, relative to the largest logit.
TOLERANCE = 1e-5


def open_session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def empty_cache(session):
    past = [value for value in session.get_inputs() if value.name != "input_ids"]
    return {v.name: np.zeros((BATCH, v.shape[1], 0, v.shape[3]), np.float32) for v in past}


def continue_text(session, tokens, cache):
    """Returns the logits of `tokens` and the cache with them behind the past."""
    names = [value.name for value in session.get_outputs()]
    results = dict(zip(names, session.run(names, {"input_ids": tokens, **cache})))
    logits = results.pop("logits")
    return logits, {name.replace("present", "past_key_values"): v for name, v in results.items()}


def run_in_pieces(session, tokens, cuts):
    cache, logits = empty_cache(session), []
    for begin, end in itertools.pairwise(cuts):
        piece, cache = continue_text(session, tokens[:, begin:end], cache)
        logits.append(piece)
    return np.concatenate(logits, axis=1), cache


def main():
    random = np.random.default_rng(7)
    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        small_decoder.write_gguf(folder / "small.gguf", random)
        plain = open_session(small_decoder.build(folder / "small.gguf"))
        cached = open_session(small_decoder.build(folder / "small.gguf", "--cache"))

        tokens = random.integers(0, VOCABULARY, (BATCH, LENGTH))
        expected = plain.run(["logits"], {"input_ids": tokens})[0]
        bound = TOLERANCE * np.abs(expected).max()
        for cuts in CUTS:
            logits, cache = run_in_pieces(cached, tokens, cuts)
            error = np.abs(logits - expected).max()
            checks.check(error <= bound, f"cut at {cuts}: logits differ by {error}")
            checks.check(len(cache) == 2 * LAYERS, f"{len(cache)} tensors in the cache")
            for name, values in cache.items():
                shape = (BATCH, KV_HEADS, LENGTH, HEAD_SIZE)
                checks.check(values.shape == shape, f"{name}: shape {values.shape}")

        # A cache that were not read would go unnoticed if the past did not matter.
        forgotten, _ = continue_text(cached, tokens[:, 9:], empty_cache(cached))
        difference = np.abs(forgotten - expected[:, 9:]).max()
        checks.check(difference > 100 * bound, f"without its past the text differs by {difference}")
    checks.finish()


main()
