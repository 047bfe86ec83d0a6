#!/usr/bin/env python3
"""Builds a plain float32 ONNX decoder from a llama-architecture GGUF file.

usage: build_model.py MODEL.gguf OUT.onnx [--opset 18] [--cache]

Input  input_ids int64[batch, sequence]: token ids.
Output logits float32[batch, sequence, vocabulary]: for each position, of the next token.

With --cache, a call goes on where an earlier one stopped. For each layer N there are
Inputs  past_key_values.N.key and .value float32[batch, kv_heads, past, head_size]: what
        earlier calls returned; the first call has a past of 0 tokens.
Outputs present.N.key and .value, the same with the tokens of this call behind them.
The names are those of Hugging Face's exports. Positions follow from the length of the
past, so there is no mask of padding: all sequences of a batch have the same length.

Weights go to OUT.onnx.data beside OUT.onnx. Every projection is MatMul(x, W[in, out])
under the name that Hugging Face gives it; a head tied to the embedding stays one
tensor. What the GGUF holds in a quantized form is dequantized, so the model is as
good as that file and not as good as the one it was made from.
"""

import argparse
import collections
import os
import pathlib
import sys

import gguf
import numpy as np
import onnx
from onnx import TensorProto, helper

# Tensors below this many bytes stay in the .onnx file.
INLINE_BYTES = 1024
ALIGNMENT = 4096
# Added to the scores of later positions. Finite, so that ranges of activations stay
# meaningful; far below any score, so that Softmax gives exactly 0.
MASKED = -1e9


class BuildError(Exception):
    """The file cannot be built into a decoder; says why."""


class Checkpoint:
    """The hyper-parameters and the dequantized weights of a llama-architecture GGUF."""

    def __init__(self, path):
        try:
            self.reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError) as error:
            raise BuildError(f"{path}: not a readable GGUF file: {error}") from error
        self.path = path
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        architecture = self._field("general.architecture")
        if architecture != "llama":
            raise BuildError(f"{path}: architecture '{architecture}', expected 'llama'")

        self.layers = self.get("block_count")
        self.width = self.get("embedding_length")
        self.heads = self.get("attention.head_count")
        self.kv_heads = self.get("attention.head_count_kv", self.heads)
        self.epsilon = float(self.get("attention.layer_norm_rms_epsilon"))
        self.head_size = self.get("attention.key_length", self.width // self.heads)
        self._check()

    def _field(self, key):
        field = self.reader.fields.get(key)
        return None if field is None else field.contents()

    def get(self, key, default=None):
        value = self._field(f"llama.{key}")
        if value is None and default is None:
            raise BuildError(f"{self.path}: metadata 'llama.{key}' is missing")
        return default if value is None else value

    def _check(self):
        """Refuses the variants of the architecture that the graph below lacks."""
        if self.get("expert_count", 0):
            raise BuildError(f"{self.path}: mixture of experts is not supported")
        if self.heads % self.kv_heads:
            raise BuildError(
                f"{self.path}: {self.heads} heads do not share {self.kv_heads} "
                "key/value heads evenly"
            )
        rotated = self.get("rope.dimension_count", self.head_size)
        if rotated != self.head_size:
            raise BuildError(
                f"{self.path}: rotary embedding of {rotated} of {self.head_size} "
                "dimensions is not supported"
            )
        if self.get("attention.value_length", self.head_size) != self.head_size:
            raise BuildError(f"{self.path}: keys and values of different sizes")
        if any(name.endswith(("attn_q.bias", "attn_k.bias")) for name in self.tensors):
            raise BuildError(f"{self.path}: biases of q and k are not supported")
        if self.get("rope.scaling.type", "none") not in ("none", "linear"):
            raise BuildError(
                f"{self.path}: rope scaling '{self.get('rope.scaling.type')}' is not "
                "supported"
            )

    def weight(self, name):
        """The tensor as float32, in the order [out, in] of its projection."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise BuildError(f"{self.path}: tensor '{name}' is missing")
        try:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise BuildError(
                f"{self.path}: tensor '{name}' has type {tensor.tensor_type.name}, "
                "which cannot be dequantized"
            ) from error
        shape = tuple(int(extent) for extent in reversed(tensor.shape))
        return np.asarray(values, np.float32).reshape(shape)

    def rotated_weight(self, name, heads):
        """A q or k weight in rotate-half order.

        GGUF keeps the two halves of a head interleaved: row 2 i + j of a head is
        row j * head_size / 2 + i of the usual order.
        """
        stored = self.weight(name)
        pairs = stored.reshape(heads, self.head_size // 2, 2, -1)
        return pairs.swapaxes(1, 2).reshape(stored.shape)

    def inverse_frequencies(self):
        """Radians a position for each pair of dimensions, float32[head_size / 2]."""
        base = float(self.get("rope.freq_base", 10000.0))
        exponents = np.arange(0, self.head_size, 2, dtype=np.float64) / self.head_size
        frequencies = base**-exponents
        if "rope_freqs.weight" in self.tensors:
            frequencies /= self.weight("rope_freqs.weight")
        if self.get("rope.scaling.type", "none") == "linear":
            frequencies /= float(self.get("rope.scaling.factor"))
        return frequencies.astype(np.float32)

    def types(self):
        """Counts of tensors by storage type, such as {'Q4_1': 210, 'F32': 61}."""
        return collections.Counter(t.tensor_type.name for t in self.tensors.values())


class GraphBuilder:
    """Collects nodes and weights; writes weights to the data file as they come."""

    def __init__(self, data_file, location):
        self.data_file = data_file
        self.location = location
        self.nodes = []
        self.initializers = {}

    def weight(self, name, values):
        values = np.ascontiguousarray(values)
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
        )
        if values.nbytes < INLINE_BYTES:
            tensor.raw_data = values.tobytes()
        else:
            self.data_file.write(bytes(-self.data_file.tell() % ALIGNMENT))
            tensor.data_location = TensorProto.EXTERNAL
            place = {
                "location": self.location,
                "offset": self.data_file.tell(),
                "length": values.nbytes,
            }
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            self.data_file.write(values.data)
        self.initializers[name] = tensor
        return name

    def constant(self, values):
        """A small constant, shared by all its users."""
        values = np.asarray(values)
        shown = "_".join(f"{value:g}" for value in values.flat)
        rank = f"{values.ndim}d_" if values.ndim != 1 else ""
        name = f"const_{values.dtype}_{rank}{shown}"
        return name if name in self.initializers else self.weight(name, values)

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def float(self, value):
        return self.constant(np.array(value, np.float32))

    def node(self, kind, inputs, name, output=None, **attributes):
        output = output or f"{name}/{kind}"
        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=f"{name}/{kind}", **attributes)
        )
        return output


def declare(values, name, element, *shape):
    """Adds an input or output of the graph to `values`."""
    values.append(helper.make_tensor_value_info(name, element, shape))


class Decoder:
    """Emits the graph of a checkpoint."""

    def __init__(self, checkpoint, builder, cache=False):
        self.checkpoint = checkpoint
        self.g = builder
        self.cache = cache
        self.inputs = []
        self.outputs = []

    def build(self):
        g, c = self.g, self.checkpoint
        table = c.weight("token_embd.weight")
        declare(self.inputs, "input_ids", TensorProto.INT64, "batch", "sequence")
        declare(self.outputs, "logits", TensorProto.FLOAT, "batch", "sequence", len(table))
        self._positions()
        embedding = g.weight("model.embed_tokens.weight", table)
        hidden = g.node("Gather", [embedding, "input_ids"], "model.embed_tokens")
        for layer in range(c.layers):
            name, block = f"model.layers.{layer}", f"blk.{layer}"
            update = self._attention(self._norm(hidden, f"{name}.input_layernorm",
                                                f"{block}.attn_norm"), layer)
            hidden = g.node("Add", [hidden, update], f"{name}.attention_residual")
            update = self._mlp(self._norm(hidden, f"{name}.post_attention_layernorm",
                                          f"{block}.ffn_norm"), f"{name}.mlp", block)
            hidden = g.node("Add", [hidden, update], f"{name}.mlp_residual")
            progress(f"layer {layer + 1} of {c.layers}")
        hidden = self._norm(hidden, "model.norm", "output_norm")
        if "output.weight" in c.tensors:
            head = g.weight("lm_head.weight", c.weight("output.weight").T)
        else:
            head = g.node("Transpose", [embedding], "lm_head", perm=[1, 0])
        g.node("MatMul", [hidden, head], "lm_head", output="logits")

    def _positions(self):
        """Cosines and sines [sequence, head_size] and the causal mask [sequence, past +
        sequence], computed from the lengths so that no length is built in."""
        g, c = self.g, self.checkpoint
        length = total = g.node("Shape", ["input_ids"], "length", start=1, end=2)
        one = g.constant(np.array(1, np.int64))
        if self.cache:
            past = g.node("Shape", ["past_key_values.0.key"], "past", start=2, end=3)
            total = g.node("Add", [past, length], "total")
            first = g.node("Squeeze", [past], "past")
            end = g.node("Squeeze", [total], "total")
            hidden_from = g.node("Add", [first, one], "mask")
        else:
            first = g.constant(np.array(0, np.int64))
            end = g.node("Squeeze", [length], "length")
            hidden_from = one
        positions = g.node("Range", [first, end, one], "position")
        positions = g.node("Cast", [positions], "position", to=TensorProto.FLOAT)
        positions = g.node("Unsqueeze", [positions, g.ints(1)], "position")
        frequencies = np.tile(c.inverse_frequencies(), 2)
        angles = g.node(
            "Mul", [positions, g.weight("rotary.inverse_frequency", frequencies)], "rotary"
        )
        self.cosine = g.node("Cos", [angles], "rotary")
        self.sine = g.node("Sin", [angles], "rotary")

        extents = g.node("Concat", [length, total], "mask", axis=0)
        fill = helper.make_tensor("value", TensorProto.FLOAT, [1], [MASKED])
        full = g.node("ConstantOfShape", [extents], "mask", value=fill)
        self.mask = g.node("Trilu", [full, hidden_from], "mask", upper=1)

    def _norm(self, x, name, source):
        """RMS norm: x / sqrt(mean(x^2) + epsilon) * gain over the last axis."""
        g, c = self.g, self.checkpoint
        square = g.node("Mul", [x, x], f"{name}.square")
        mean = g.node("ReduceMean", [square, g.ints(-1)], name, keepdims=1)
        shifted = g.node("Add", [mean, g.float(c.epsilon)], name)
        root = g.node("Sqrt", [shifted], name)
        normal = g.node("Div", [x, root], name)
        gain = g.weight(f"{name}.weight", c.weight(f"{source}.weight"))
        return g.node("Mul", [normal, gain], name)

    def _linear(self, x, name, source, values=None):
        """x W [+ b]; `values`, if given, stand for the weight [out, in] of `source`."""
        g, c = self.g, self.checkpoint
        if values is None:
            values = c.weight(f"{source}.weight")
        y = g.node("MatMul", [x, g.weight(f"{name}.weight", values.T)], name)
        if f"{source}.bias" in c.tensors:
            bias = g.weight(f"{name}.bias", c.weight(f"{source}.bias"))
            y = g.node("Add", [y, bias], name)
        return y

    def _rotate(self, x, name):
        """Rotary position embedding of x [..., sequence, head_size], rotate-half."""
        g, size = self.g, self.checkpoint.head_size
        axis = g.ints(-1)
        low = g.node("Slice", [x, g.ints(0), g.ints(size // 2), axis], f"{name}.low")
        high = g.node("Slice", [x, g.ints(size // 2), g.ints(size), axis], f"{name}.high")
        turned = g.node("Concat", [g.node("Neg", [high], name), low], name, axis=-1)
        straight = g.node("Mul", [x, self.cosine], f"{name}.cosine")
        turned = g.node("Mul", [turned, self.sine], f"{name}.sine")
        return g.node("Add", [straight, turned], name)

    def _heads(self, x, name, per_group):
        """[batch, sequence, width] -> [batch, kv_heads, per_group, sequence, size]."""
        g, c = self.g, self.checkpoint
        split = g.ints(0, 0, c.kv_heads, per_group, c.head_size)
        x = g.node("Reshape", [x, split], name)
        return g.node("Transpose", [x], name, perm=[0, 2, 3, 1, 4])

    def _with_past(self, new, layer, kind):
        """The keys or values of a layer, [batch, kv_heads, 1, sequence, size], behind those
        of the past. Declares the input and the output, which have no axis of 1."""
        if not self.cache:
            return new
        g, c = self.g, self.checkpoint
        past, present = f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}"
        for values, name, length in ((self.inputs, past, "past_sequence"),
                                     (self.outputs, present, "total_sequence")):
            declare(values, name, TensorProto.FLOAT, "batch", c.kv_heads, length, c.head_size)
        name = f"model.layers.{layer}.self_attn.{kind}_cache"
        new = g.node("Squeeze", [new, g.ints(2)], name)
        g.node("Concat", [past, new], name, output=present, axis=2)
        return g.node("Unsqueeze", [present, g.ints(2)], name)

    def _attention(self, x, layer):
        """Causal attention. The heads that share a key/value head are one axis over
        which MatMul broadcasts, so keys and values are never repeated."""
        g, c = self.g, self.checkpoint
        name, block = f"model.layers.{layer}.self_attn", f"blk.{layer}"
        group = c.heads // c.kv_heads
        query = self._linear(x, f"{name}.q_proj", f"{block}.attn_q",
                             c.rotated_weight(f"{block}.attn_q.weight", c.heads))
        key = self._linear(x, f"{name}.k_proj", f"{block}.attn_k",
                           c.rotated_weight(f"{block}.attn_k.weight", c.kv_heads))
        value = self._linear(x, f"{name}.v_proj", f"{block}.attn_v")
        query = self._rotate(self._heads(query, f"{name}.query", group), f"{name}.query_rotary")
        key = self._rotate(self._heads(key, f"{name}.key", 1), f"{name}.key_rotary")
        value = self._heads(value, f"{name}.value", 1)
        key = self._with_past(key, layer, "key")
        value = self._with_past(value, layer, "value")

        key = g.node("Transpose", [key], f"{name}.key_columns", perm=[0, 1, 2, 4, 3])
        scores = g.node("MatMul", [query, key], f"{name}.scores")
        scores = g.node("Mul", [scores, g.float(c.head_size**-0.5)], f"{name}.scores")
        scores = g.node("Add", [scores, self.mask], f"{name}.scores")
        share = g.node("Softmax", [scores], f"{name}.scores", axis=-1)
        mixed = g.node("MatMul", [share, value], f"{name}.mix")
        mixed = g.node("Transpose", [mixed], f"{name}.mix", perm=[0, 3, 1, 2, 4])
        joined = g.node("Reshape", [mixed, g.ints(0, 0, c.heads * c.head_size)], f"{name}.mix")
        return self._linear(joined, f"{name}.o_proj", f"{block}.attn_output")

    def _mlp(self, x, name, block):
        """SwiGLU: down(silu(gate(x)) * up(x))."""
        g = self.g
        gate = self._linear(x, f"{name}.gate_proj", f"{block}.ffn_gate")
        up = self._linear(x, f"{name}.up_proj", f"{block}.ffn_up")
        silu = g.node("Mul", [gate, g.node("Sigmoid", [gate], name)], f"{name}.silu")
        return self._linear(g.node("Mul", [silu, up], name), f"{name}.down_proj",
                            f"{block}.ffn_down")


def progress(text):
    """Shows how far the work is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def build(source, target, opset, cache=False):
    """Builds the decoder of the GGUF `source` at `target`; returns a line about it.

    The .onnx file gets its name last, so whoever sees it sees a whole model.
    """
    if opset < 18:
        raise BuildError(f"opset {opset}: the graph uses ops as they are from opset 18")
    checkpoint = Checkpoint(source)
    data = target.with_name(target.name + ".data")
    unfinished = {path: path.with_name(path.name + ".unfinished") for path in (target, data)}
    try:
        with open(unfinished[data], "wb") as data_file:
            builder = GraphBuilder(data_file, data.name)
            decoder = Decoder(checkpoint, builder, cache)
            decoder.build()
        graph = helper.make_graph(
            builder.nodes, "llama_decoder", decoder.inputs, decoder.outputs,
            list(builder.initializers.values()),
        )
        imports = [helper.make_opsetid("", opset)]
        model = helper.make_model(
            graph, opset_imports=imports, producer_name="nibble-demo",
            ir_version=helper.find_min_ir_version_for(imports),
        )
        onnx.save(model, unfinished[target])
        os.replace(unfinished[data], data)
        os.replace(unfinished[target], target)
    finally:
        for path in unfinished.values():
            path.unlink(missing_ok=True)
    onnx.checker.check_model(target)
    types = ", ".join(f"{count} {kind}" for kind, count in checkpoint.types().most_common())
    parameters = sum(int(tensor.n_elements) for tensor in checkpoint.tensors.values())
    return f"{parameters:,} parameters in {checkpoint.layers} layers, from tensors stored as {types}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("onnx", type=pathlib.Path)
    parser.add_argument("--opset", type=int, default=18)
    parser.add_argument("--cache", action="store_true",
                        help="take and return past keys and values")
    arguments = parser.parse_args()
    try:
        line = build(arguments.gguf, arguments.onnx, arguments.opset, arguments.cache)
    except (BuildError, OSError) as error:
        sys.exit(f"error: {error}")
    progress("")
    print(f"{arguments.onnx}: {line}")


if __name__ == "__main__":
    main()
