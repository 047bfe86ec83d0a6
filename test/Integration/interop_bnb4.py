# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""com.microsoft.MatMulBnb4 as Nibble writes it: NF4 and FP4, high bits first, blocks
over the flattened [N, K]. ONNX Runtime and an independent reading agree, and each
weight has the nearest entry of the code book."""

import linear_layers
import support

# Rows of whole blocks, for which blocks along K are blocks of the flattened weight.
WHOLE = ((256, 5), (512, 17), (768, 32))
# Here a block of the flattened weight crosses rows. Nibble may refuse, and say so.
CROSSING = ((67, 5), (131, 48))

checks = support.Checks()


def check_scheme(scheme, shapes, folder, may_refuse):
    model, weights = linear_layers.layers(shapes)
    quantized, done = linear_layers.quantize(model, folder, "--scheme", scheme)
    if quantized is None and may_refuse:
        # Exit code 3: nothing could be quantized, with the reason.
        checks.check(
            done.code in (1, 3) and done.stderr.strip(), f"{scheme}: refused without a word"
        )
        return False
    if not checks.check(quantized, f"{scheme}: {done}"):
        return False
    found = linear_layers.check_results(scheme, quantized, weights, checks)
    if may_refuse:
        weights = {x: weight for x, weight in weights.items() if x in found}
    # No step in a code book: only the nearest entry counts.
    linear_layers.check_rounding(scheme, found, weights, checks, None, "MatMulBnb4")
    return bool(found)


crossing = 0
with support.scratch() as folder:
    for book in ("nf4", "fp4"):
        for block in linear_layers.BLOCKS:
            check_scheme(f"{book}g{block}", WHOLE, folder, False)
            crossing += check_scheme(f"{book}g{block}", CROSSING, folder, True)
print(f"{crossing} of {2 * len(linear_layers.BLOCKS)} schemes take blocks that cross rows")
checks.finish()
