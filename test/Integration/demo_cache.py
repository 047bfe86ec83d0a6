# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""The demo's decoder with a cache computes what the decoder without one does: a text given
in pieces, each with the keys and values that the pieces before it left, has the logits of
the whole text. Both are built from a small GGUF file of random weights and run by ONNX
Runtime; demo_model.py judges the decoder without a cache by a real model's perplexity.
"""

import importlib.util
import itertools
import pathlib
import sys

import numpy as np
import onnxruntime

import support

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_SIZE, INNER, VOCABULARY = 2, 48, 6, 2, 8, 80, 67
BATCH, LENGTH = 2, 23
# Where the text is cut: a long piece, single tokens, a few at once, and one piece alone.
CUTS = ([0, 9, 10, 11, 17, 18, 23], [0, 1, 23], [0, 23])
# Sums in another order than those of the whole text, relative to the largest logit.
TOLERANCE = 1e-5


def write_gguf(path, random):
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_SIZE)
    writer.add_value_length(HEAD_SIZE)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-5)

    def add(name, *shape):
        values = random.standard_normal(shape) / np.sqrt(shape[-1])
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def add_gain(name):
        values = random.uniform(0.5, 1.5, WIDTH)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    add("token_embd", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add_gain(f"{block}.attn_norm")
        add(f"{block}.attn_q", HEADS * HEAD_SIZE, WIDTH)
        add(f"{block}.attn_k", KV_HEADS * HEAD_SIZE, WIDTH)
        add(f"{block}.attn_v", KV_HEADS * HEAD_SIZE, WIDTH)
        add(f"{block}.attn_output", WIDTH, HEADS * HEAD_SIZE)
        add_gain(f"{block}.ffn_norm")
        add(f"{block}.ffn_gate", INNER, WIDTH)
        add(f"{block}.ffn_up", INNER, WIDTH)
        add(f"{block}.ffn_down", WIDTH, INNER)
    add_gain("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def build(gguf_file, target, *options):
    builder = support.SOURCE_DIR / "demo/build_model.py"
    support.must_run(sys.executable, builder, gguf_file, target, *options)
    return onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])


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
    if not importlib.util.find_spec("gguf"):
        support.skip("the Python package gguf is not installed")
    random = np.random.default_rng(7)
    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        gguf_file = folder / "small.gguf"
        write_gguf(gguf_file, random)
        plain = build(gguf_file, folder / "plain.onnx")
        cached = build(gguf_file, folder / "cached.onnx", "--cache")

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
