# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""`nibble generate` adds the tokens that ONNX Runtime finds likeliest, with a cache that is
written in place, with one that is handed on, and with none; it streams text; and what is
wrong with a model, a prompt or a tokenizer is said. The library that it runs is called
directly too: buffers with room, batches, pieces of a text, a buffer that is full.
"""

import itertools
import json
import os
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import compiled
import small_decoder
import support

NIBBLE = support.tool("nibble")
PROMPT = [5, 17, 3, 44, 9]
TOKENS = 12
BATCH, LENGTH, CAPACITY = 2, 23, 30
# Sums in another order, relative to the largest logit.
TOLERANCE = 1e-5


def open_session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def continue_greedily(session):
    """The tokens that follow PROMPT, each the likeliest one behind the whole text."""
    tokens = list(PROMPT)
    for _ in range(TOKENS):
        logits = session.run(["logits"], {"input_ids": np.array([tokens])})[0][0, -1]
        best, second = np.sort(logits)[[-1, -2]]
        assert best - second > 1e-3, "a near tie, which rounding may decide"
        tokens.append(int(logits.argmax()))
    return tokens[len(PROMPT):]


def generate(model, *options):
    return support.run(NIBBLE, "generate", model, "--no-cache", *options)


def check_tokens(model, expected, cached, checks, *options):
    ids = ",".join(map(str, PROMPT))
    done = generate(model, "--prompt-ids", ids, "--tokens", TOKENS, "--json", *options)
    if not checks.check(done.code == 0, f"{model.name}: {done}"):
        return
    found = json.loads(done.stdout)
    checks.check(found["prompt"] == PROMPT, f"{model.name}: prompt {found['prompt']}")
    checks.check(found["generated"] == expected,
                 f"{model.name}: {found['generated']} instead of {expected}")
    checks.check(found["cache"] == cached, f"{model.name}: cache is {found['cache']}")


def read_by_gather(model, target):
    """The same decoder where something else reads the past too, so that no buffer can
    take its place: caches are handed on from run to run."""
    graph = model.graph
    for value in [v.name for v in graph.input if v.name.startswith("past")]:
        graph.node.insert(0, helper.make_node("Identity", [value], [value + ".same"]))
        for node in graph.node[1:]:
            if node.op_type == "Concat":
                node.input[:] = [value + ".same" if i == value else i for i in node.input]
    onnx.save(model, target)


def with_mask_and_positions(model, target):
    """The same decoder with the inputs that other exporters add; both change nothing."""
    graph = model.graph
    for name, length in (("attention_mask", "total"), ("position_ids", "sequence")):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", length]))
    graph.node.append(helper.make_node("ReduceMin", ["attention_mask"], ["mask.least"], keepdims=0))
    graph.node.append(helper.make_node("Cast", ["mask.least"], ["mask.one"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Mul", ["logits", "mask.one"], ["masked"]))
    graph.output[0].name = "masked"
    onnx.save(model, target)


def check_library(model, session, folder, checks):
    library = folder / "decoder.so"
    support.must_run(NIBBLE, "compile", model, "-o", library, "--update-caches", "--compute", "f32")
    header = library.with_suffix(".h").read_text()
    checks.check("updated in place" in header, "the header does not say what is updated")
    decoder = compiled.Model(library, "decoder")
    names = [value.name.decode() for value in decoder.inputs]
    checks.check(names[-1] == "past_length", f"inputs {names}")
    updated = [name for name, value in zip(names, decoder.inputs) if value.updated]
    checks.check(updated == [n for n in names if n.startswith("past_key_values")],
                 f"updated: {updated}")
    checks.check([v.name for v in decoder.outputs] == [b"logits"], "outputs besides the logits")

    tokens = np.random.default_rng(1).integers(0, small_decoder.VOCABULARY, (BATCH, LENGTH))
    expected = session.run(["logits"], {"input_ids": tokens})[0]
    bound = TOLERANCE * np.abs(expected).max()
    shape = (BATCH, small_decoder.KV_HEADS, CAPACITY, small_decoder.HEAD_SIZE)
    for cuts in ([0, 9, 10, 11, 17, 18, 23], [0, 1, 23], [0, 23]):
        # What lies behind the entries must not matter.
        buffers = [np.full(shape, np.nan, np.float32) for _ in updated]
        pieces = [decoder.run(tokens[:, begin:end].copy(), *buffers, np.array([begin]))[0]
                  for begin, end in itertools.pairwise(cuts)]
        error = np.abs(np.concatenate(pieces, axis=1) - expected).max()
        checks.check(error <= bound, f"cut at {cuts}: logits differ by {error}")
        for buffer in buffers:
            filled = ~np.isnan(buffer).any(axis=(0, 1, 3))
            checks.check(filled.sum() == LENGTH and filled[:LENGTH].all(),
                         f"cut at {cuts}: entries {np.flatnonzero(filled)} are filled")
    for length in (CAPACITY - LENGTH + 1, -1, 100):
        before = [np.zeros(shape, np.float32) for _ in updated]
        try:
            decoder.run(tokens, *before, np.array([length]))
            checks.check(False, f"past_length {length} is taken")
        except compiled.ModelError as error:
            checks.check("no room" in error.message, f"past_length {length}: {error}")
        checks.check(not any(b.any() for b in before), f"past_length {length}: a buffer changed")
    decoder.close()


def write_tokenizer(path):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    words = {f"w{i}": i for i in range(small_decoder.VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.save(str(path / "tokenizer.json"))
    return tokenizer, AddedToken


def check_text(model, expected, folder, checks):
    tokenizer, special = write_tokenizer(folder)
    prompt = " ".join(f"w{i}" for i in PROMPT)
    options = ["--tokenizer", folder / "tokenizer.json", "--prompt", prompt, "--tokens", TOKENS]
    done = generate(model, *options)
    text = " ".join(f"w{i}" for i in PROMPT + expected) + "\n"
    checks.check(done.code == 0 and done.stdout == text, f"text: {done}")
    checks.check("tokens in" in done.stderr, f"no speed is shown: {done}")
    done = generate(model, *options, "--quiet")
    checks.check(done.stdout == text and not done.stderr, f"quiet: {done}")
    # A special token ends the text.
    stop = next(i for i in expected if i not in PROMPT)
    tokenizer.add_special_tokens([special(f"w{stop}", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    done = generate(model, *options, "--json")
    found = json.loads(done.stdout)["generated"] if done.code == 0 else done
    checks.check(found == expected[:expected.index(stop)], f"behind a special token: {found}")


def check_seeds(model, checks):
    """What is drawn depends on the seed, and on nothing else."""
    options = ["--prompt-ids", "1,2", "--tokens", 16, "--json", "--temperature", 2]
    drawn = [json.loads(generate(model, *options, "--seed", seed, "--threads", threads).stdout)
             ["generated"] for seed, threads in ((1, 1), (1, 2), (2, 1))]
    checks.check(drawn[0] == drawn[1], f"threads change what is drawn: {drawn}")
    checks.check(drawn[0] != drawn[2], "the seed changes nothing")


def check_errors(model, folder, checks):
    def expect(code, text, *options, model=model):
        done = generate(model, *options)
        checks.check(done.code == code and text in done.stderr, f"'{text}' expected: {done}")

    expect(2, "--prompt", )
    expect(2, "excludes", "--prompt-ids", "1", "--tokenizer", "x", "--prompt", "x")
    expect(1, "no tokenizer.json", "--tokenizer", folder / "none.json", "--prompt", "x")
    expect(1, "out of range", "--prompt-ids", "1,1000")
    identity = helper.make_model(helper.make_graph(
        [helper.make_node("Identity", ["image"], ["same"])], "image",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, ["n", 3])]))
    onnx.save(identity, folder / "image.onnx")
    expect(1, "input 'image' is none that a causal language model has", "--prompt-ids", "1",
           model=folder / "image.onnx")
    os.environ["NIBBLE_PYTHON"] = str(folder / "python")
    (folder / "python").write_text("#!/bin/sh\nexec " + sys.executable + " -S -E \"$@\"\n")
    (folder / "python").chmod(0o755)
    expect(1, "pip install tokenizers", "--tokenizer", folder / "tokenizer.json", "--prompt", "x")


def main():
    os.environ["NIBBLE_PYTHON"] = sys.executable
    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        small_decoder.write_gguf(folder / "small.gguf", np.random.default_rng(7))
        plain = small_decoder.build(folder / "small.gguf")
        cached = small_decoder.build(folder / "small.gguf", "--cache")
        read_by_gather(onnx.load(cached), folder / "handed-on.onnx")
        with_mask_and_positions(onnx.load(cached), folder / "masked.onnx")
        session = open_session(plain)
        expected = continue_greedily(session)
        check_tokens(cached, expected, True, checks)
        check_tokens(folder / "handed-on.onnx", expected, True, checks)
        check_tokens(folder / "masked.onnx", expected, True, checks)
        check_tokens(plain, expected, False, checks, "--threads", 2)
        check_library(cached, session, folder, checks)
        check_text(cached, expected, folder, checks)
        check_seeds(cached, checks)
        check_errors(cached, folder, checks)
    checks.finish()


main()
