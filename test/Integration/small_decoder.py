"""A decoder of random weights by the demo's builder, small enough for tests. Not a test."""

import importlib.util
import sys

import numpy as np

import support

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_SIZE, INNER, VOCABULARY = 2, 48, 6, 2, 8, 80, 67


def write_gguf(path, random):
    if not importlib.util.find_spec("gguf"):
        support.skip("the Python package gguf is not installed")
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


def build(gguf_file, *options):
    """Returns the path of the ONNX model of `gguf_file`."""
    name = "-".join([gguf_file.stem, *(option.strip("-") for option in options)])
    target = gguf_file.with_name(name + ".onnx")
    support.must_run(sys.executable, support.SOURCE_DIR / "demo/build_model.py", gguf_file, target,
                     *options)
    return target
