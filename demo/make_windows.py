#!/usr/bin/env python3
"""Cuts prose into fixed windows of tokens, with the tokenizer of a GGUF file.

usage: make_windows.py MODEL.gguf TEXT OUT.npz [--windows 16] [--length 512] [--between]
                       [--cache-of MODEL.onnx] [--tokenizer OUT.json]

TEXT is plain text, or gzip of it, with blank lines between paragraphs. Only its
prose is taken: headings, lists, tables and listings are left out and the lines of a
paragraph are joined. OUT.npz holds input_ids int64[windows, length], spread evenly
over the text. With --between they are the ones midway between those that the same command
takes without it, one less. A model that wants a token at the start of a text gets it in
every window. --cache-of adds an empty array for each other input of a decoder with a cache.
--tokenizer writes the tokenizer for other programs, with the tokens that control a text as
special ones.
"""

import argparse
import gzip
import os
import pathlib
import sys

import gguf
import numpy as np
import onnx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# Pre-tokenizers of GGUF, by name, that split digits from one another and then follow
# GPT-2's pattern; "gpt-2" itself leaves digits together.
SPLITS_DIGITS = {"smollm", "starcoder", "refact", "command-r"}
# Paragraphs below this many characters are headings or remains of lists.
SHORTEST_PARAGRAPH = 120


class WindowsError(Exception):
    """The windows cannot be made; says why."""


def paragraphs(text):
    """The paragraphs of prose in `text`, each as one line."""
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line for line in block.split("\n") if line.strip()]
        indented = any(line[0] in " \t*|+-=" for line in lines)
        paragraph = " ".join(line.strip() for line in lines)
        if not indented and len(paragraph) >= SHORTEST_PARAGRAPH and paragraph[-1] in ".!?":
            yield paragraph


def load_tokenizer(path):
    """Returns (tokenizer, ids that start every text) of a GGUF file."""
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        raise WindowsError(f"{path}: not a readable GGUF file: {error}") from error

    def field(key, default=None):
        found = reader.fields.get(f"tokenizer.ggml.{key}")
        return default if found is None else found.contents()

    if field("model") != "gpt2":
        raise WindowsError(f"{path}: tokenizer '{field('model')}', expected 'gpt2' (byte-level BPE)")
    split = field("pre", "gpt-2")
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if split in SPLITS_DIGITS:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif split not in ("gpt-2", "default"):
        raise WindowsError(f"{path}: pre-tokenizer '{split}' is not supported")
    vocabulary = {token: index for index, token in enumerate(field("tokens"))}
    merges = [tuple(merge.split(" ")) for merge in field("merges")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, [field("bos_token_id")] if field("add_bos_token", False) else []


def read_text(path):
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise WindowsError(f"{path}: not readable as text: {error}") from error


def make_windows(source, text_path, windows, length, between=False):
    """Returns int64[windows, length], or int64[windows - 1, length] between those."""
    tokenizer, start = load_tokenizer(source)
    prose = "\n\n".join(paragraphs(read_text(text_path)))
    ids = np.array(tokenizer.encode(prose, add_special_tokens=False).ids, np.int64)
    content = length - len(start)
    if len(ids) < windows * content:
        raise WindowsError(
            f"{text_path}: {len(ids)} tokens of prose, {windows * content} needed for "
            f"{windows} windows"
        )
    first = np.linspace(0, len(ids) - content, windows).astype(np.int64)
    if between:
        if windows < 2 or np.diff(first).min() < 2 * content:
            raise WindowsError(f"{text_path}: no room between {windows} windows of it")
        first = (first[1:] + first[:-1]) // 2
    rows = ids[first[:, None] + np.arange(content)]
    return np.concatenate([np.tile(np.array(start, np.int64), (len(rows), 1)), rows], axis=1)


def empty_caches(model, windows):
    """{input: float32[windows, heads, 0, size]} of a decoder's inputs behind the first."""
    inputs = onnx.load(model, load_external_data=False).graph.input
    shapes = {value.name: value.type.tensor_type.shape.dim for value in list(inputs)[1:]}
    return {name: np.zeros([windows, *(d.dim_value for d in dims[1:])], np.float32)
            for name, dims in shapes.items()}


def save_tokenizer(source, path):
    tokenizer, _ = load_tokenizer(source)
    fields = gguf.GGUFReader(source).fields
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokenizer.add_special_tokens([
        AddedToken(tokenizer.id_to_token(index), special=True)
        for index, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL
    ])
    tokenizer.save(str(path))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("npz", type=pathlib.Path)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--between", action="store_true")
    parser.add_argument("--cache-of", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        ids = make_windows(arguments.gguf, arguments.text, arguments.windows, arguments.length,
                           arguments.between)
    except WindowsError as error:
        sys.exit(f"error: {error}")
    unfinished = arguments.npz.with_name(arguments.npz.name + ".unfinished.npz")
    caches = empty_caches(arguments.cache_of, len(ids)) if arguments.cache_of else {}
    np.savez_compressed(unfinished, input_ids=ids, **caches)
    if arguments.tokenizer:
        save_tokenizer(arguments.gguf, arguments.tokenizer)
    os.replace(unfinished, arguments.npz)
    print(f"{arguments.npz}: {ids.shape[0]} windows of {ids.shape[1]} tokens")


if __name__ == "__main__":
    main()
