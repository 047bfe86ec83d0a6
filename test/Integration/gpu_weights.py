"""Weights as the kernels of `nibble kernels` take them, for the GPU tests. Not a test itself.

The packing is written anew here, after include/nibble/Numerics/FragmentPacking.h. `kernel` is
a kernel's entry in kernels.json.
"""

import ml_dtypes
import numpy as np

# The code books of bitsandbytes.
CODE_BOOKS = {
    "nf4": (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
            -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
            0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
            0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
            0.7229568362236023, 1.0),
    "fp4": (0.0, 0.0052083334885537624, 0.6666666865348816, 1.0, 0.3333333432674408, 0.5,
            0.1666666716337204, 0.25, -0.0, -0.0052083334885537624, -0.6666666865348816, -1.0,
            -0.3333333432674408, -0.5, -0.1666666716337204, -0.25),
}
FLOATS = {"f4E2M1FN": ml_dtypes.float4_e2m1fn, "f8E4M3FN": ml_dtypes.float8_e4m3fn,
          "f8E5M2": ml_dtypes.float8_e5m2}


def round_up(value, multiple):
    return -(-value // multiple) * multiple


def values_of(storage):
    """What the codes as they are stored stand for; NaN and infinity: no number."""
    if storage in CODE_BOOKS:
        return np.array(CODE_BOOKS[storage]).astype(np.float16).astype(np.float64)
    if storage in FLOATS:
        count = 16 if storage.startswith("f4") else 256
        return np.arange(count, dtype=np.uint8).view(FLOATS[storage]).astype(np.float64)
    bits = int(storage[1:])
    return np.arange(1 << bits) - (1 << bits >> 1 if storage[0] == "i" else 0.0)


def draw_weight(K, N, kernel, generator):
    """Codes [K, N], scales and zero points [groups, N], and the numbers they stand for."""
    group = kernel["group"] or K
    groups = -(-K // group)
    values = values_of(kernel["storage"])
    usable, exponents = np.arange(len(values)), (-5, -1)
    if kernel["storage"] in CODE_BOOKS:
        exponents = (-4, -2)
    if kernel["storage"] in FLOATS:
        usable = np.flatnonzero(np.where(np.abs(values) <= 16, values, 0.5**99) * 1024 % 1 == 0)
    codes = generator.choice(usable, (K, N))
    scales = np.exp2(generator.integers(*exponents, (groups, N))).astype(np.float16)
    zeros = np.zeros((groups, N))
    if kernel["has_zeros"]:
        zeros = generator.integers(0, len(values), (groups, N))
    expand = lambda values: np.repeat(values, group, 0)[:K].astype(np.float64)
    return codes, scales, zeros, (values[codes] - expand(zeros)) * expand(scales)


def draw_inputs(M, K, kernel, generator):
    """Rows of small integers: fewer where the numbers of codes have many bits."""
    largest = 1 if kernel["storage"] in CODE_BOOKS else 8
    return generator.integers(-largest, largest + 1, (M, K)).astype(np.float16)


def padded_inputs(K, group):
    return round_up(K, 64 if 0 < group < 128 else 128)


def pack_codes(codes, kernel):
    K, N = padded_inputs(codes.shape[0], kernel["group"]), round_up(codes.shape[1], 16)
    bits = 4 if len(values_of(kernel["storage"])) == 16 else 8
    padded = np.zeros((K, N), np.uint32)
    padded[: codes.shape[0], : codes.shape[1]] = codes
    # 0 inputs: chunk, 1 step, 2 half, 3 pair, 4 parity; 5 outputs: tile, 6 half, 7 row
    parts = padded.reshape(K // 64, 4, 2, 4, 2, N // 16, 2, 8)
    # to: tile, chunk, row, pair (the lane), step, then the codes of a word from the low
    # one up
    if bits == 8:
        # A row of 512 bytes is half a chunk, and a word half a step.
        parts = padded.reshape(K // 64, 2, 2, 2, 4, 2, N // 16, 2, 8)
        parts = parts.transpose(6, 0, 1, 8, 4, 2, 3, 5, 7)
    elif kernel["storage"][0] in "iu":
        parts = parts.transpose(5, 0, 7, 3, 1, 4, 2, 6)
    else:
        parts = parts.transpose(5, 0, 7, 3, 1, 2, 6, 4)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return (parts.reshape(-1, 32 // bits) << shifts).sum(1, dtype=np.uint32)


def pack_scales(scales, zeros, K, kernel):
    columns = round_up(scales.shape[1], 16)
    group = kernel["group"]
    groups = -(-padded_inputs(K, group) // group) if group else 1

    def tiles(values):
        padded = np.zeros((groups, columns))
        padded[: values.shape[0], : values.shape[1]] = values
        # tile, group, row, half of the tile
        return padded.reshape(groups, columns // 16, 2, 8).transpose(1, 0, 3, 2)

    parts = [tiles(scales)]
    if kernel["has_zeros"]:
        second = 64 if kernel["storage"] == "u4" else 1024
        parts.append(-(np.array([1024, second]) + tiles(zeros)))
    return np.concatenate(parts, 3).astype(np.float16)
