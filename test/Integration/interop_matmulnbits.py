# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""com.microsoft.MatMulNBits as Nibble writes it means what its specification says:
ONNX Runtime and an independent reading agree for all bits, blocks, zero points, odd
shapes and biases, and the weights are the nearest that their scales allow."""

from onnx import helper

import linear_layers
import support

BITS = (2, 4, 8)


def check_form(name, quantized, scheme, checks):
    """The attributes and inputs that leave nothing to a reader's defaults."""
    bits, block, symmetric = scheme
    for node in quantized.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        checks.check(attributes["bits"] == bits, f"{name}: bits = {attributes['bits']}")
        checks.check(
            attributes["block_size"] == block, f"{name}: block_size = {attributes['block_size']}"
        )
        checks.check("accuracy_level" in attributes, f"{name}: no accuracy_level")
        inputs = [*node.input, "", "", "", ""]
        checks.check(not inputs[4], f"{name}: g_idx makes ONNX Runtime ignore zero points")
        checks.check(symmetric or inputs[3], f"{name}: no zero points")
    imports = {opset.domain: opset.version for opset in quantized.opset_import}
    checks.check(imports[""] == 18, f"{name}: opset became {imports['']} without need")
    checks.check(imports.get("com.microsoft") == 1, f"{name}: com.microsoft is not imported")


checks = support.Checks()
model, weights = linear_layers.layers()
with support.scratch() as folder:
    for bits in BITS:
        for block in linear_layers.BLOCKS:
            for symmetric in (False, True):
                name = f"w{bits}g{block}{'s' if symmetric else ''}"
                for scale in ("minmax", "search"):
                    options = ["--scheme", name, "--format", "matmulnbits"]
                    options += ["--scale", "minmax"] if scale == "minmax" else []
                    quantized, done = linear_layers.quantize(model, folder, *options)
                    label = f"{name}, {scale}"
                    if not checks.check(quantized, f"{label}: {done}"):
                        continue
                    check_form(label, quantized, (bits, block, symmetric), checks)
                    found = linear_layers.check_results(label, quantized, weights, checks)
                    # A symmetric grid has one code more below zero than above, and a
                    # searched scale may clip: half a step binds only the rest.
                    bound = (1.0 if symmetric else 0.5) if scale == "minmax" else None
                    linear_layers.check_rounding(
                        label, found, weights, checks, bound, "MatMulNBits"
                    )
checks.finish()
