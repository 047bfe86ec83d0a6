# RUN: %python %s
# REQUIRES: numpy, ml_dtypes
# UNSUPPORTED: sanitizers
"""The small floats against ml_dtypes and NumPy, bit for bit.

Decoding: every code. Encoding: every f16 and bf16 number, every number half way
between two neighbours of a format and the f32 numbers beside it, and two million
random f32 bit patterns, each with the format's own overflow and saturating.
Only NaN needs a rule: NumPy's f16 keeps bits of a NaN's payload, so there the test
asks for a NaN of the same sign; and ml_dtypes swaps the sign of the zero that a NaN
becomes in the formats without NaN, so negative NaNs are left out for those. ml_dtypes
rounds f32 denormals just above 2^-127 up to 2^-126 in f8E8M0FNU, although 2^-127 is
nearer; we round to the nearest, and the test says so.
"""
import ctypes
import os

import ml_dtypes
import numpy as np

LIBRARY = ctypes.CDLL(
    os.path.join(os.environ["NIBBLE_BUILD_DIR"], "lib", "libNibbleNumericsTestSupport.so")
)
FORMATS = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f8E4M3FN": ml_dtypes.float8_e4m3fn,
    "f8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "f8E5M2": ml_dtypes.float8_e5m2,
    "f8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "f8E8M0FNU": ml_dtypes.float8_e8m0fnu,
    "f4E2M1FN": ml_dtypes.float4_e2m1fn,
    "f6E2M3FN": ml_dtypes.float6_e2m3fn,
    "f6E3M2FN": ml_dtypes.float6_e3m2fn,
}
WITHOUT_NAN = ("f4E2M1FN", "f6E2M3FN", "f6E3M2FN")


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def encode(name, values, saturate):
    codes = np.empty(values.shape, code_type(name))
    count = ctypes.c_size_t(values.size)
    assert not LIBRARY.nibbleTestEncode(
        name.encode(), pointer(values), count, pointer(codes), int(saturate)
    )
    return codes


def decode(name, codes):
    values = np.empty(codes.shape, np.float32)
    count = ctypes.c_size_t(codes.size)
    assert not LIBRARY.nibbleTestDecode(name.encode(), pointer(codes), count, pointer(values))
    return values


def code_type(name):
    return np.dtype(f"u{np.dtype(FORMATS[name]).itemsize}")


def all_codes(name):
    bits = ml_dtypes.finfo(FORMATS[name]).bits
    return np.arange(1 << bits, dtype=code_type(name))


def expect_equal(name, what, inputs, ours, theirs):
    wrong = np.flatnonzero(ours != theirs)
    assert not wrong.size, (
        f"{name}, {what}: {wrong.size} of {ours.size} differ, first "
        f"{inputs[wrong[0]]!r}: {ours[wrong[0]]:#x}, expected {theirs[wrong[0]]:#x}"
    )


def check_decode(name):
    codes = all_codes(name)
    ours, theirs = decode(name, codes), codes.view(FORMATS[name]).astype(np.float32)
    assert np.array_equal(np.isnan(ours), np.isnan(theirs)), name
    keep = ~np.isnan(ours)
    expect_equal(
        name, "decode", codes[keep], ours[keep].view(np.uint32), theirs[keep].view(np.uint32)
    )


def encode_inputs(name, random):
    numbers = np.unique(decode(name, all_codes(name)).astype(np.float64))
    numbers = numbers[np.isfinite(numbers)]
    step = numbers[-1] - numbers[-2]
    numbers = np.append(numbers, [numbers[-1] + step, numbers[-1] + 2 * step])
    with np.errstate(over="ignore"):
        ties = ((numbers[1:] + numbers[:-1]) / 2).astype(np.float32)
    ties = np.concatenate([ties, -ties])
    special = np.float32(
        [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38]
    )
    return np.concatenate(
        [
            special,
            ties,
            np.nextafter(ties, np.float32(np.inf)),
            np.nextafter(ties, np.float32(-np.inf)),
            np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32),
            (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32),
            random,
        ]
    )


def check_encode(name, random):
    inputs = encode_inputs(name, random)
    is_nan = np.isnan(inputs)
    if name in WITHOUT_NAN:
        keep = ~(is_nan & np.signbit(inputs))
        inputs, is_nan = inputs[keep], is_nan[keep]
    if name == "f8E8M0FNU":
        low = (inputs > 2.0**-127) & (inputs < 1.5 * 2.0**-127)
        assert low.any() and not encode(name, inputs[low], False).any()
        inputs, is_nan = inputs[~low], is_nan[~low]
    numbers = decode(name, all_codes(name))
    largest = numbers[np.isfinite(numbers)].max()
    saturated = np.clip(inputs, -largest, largest)
    for saturate, oracle_inputs in ((False, inputs), (True, saturated)):
        ours = encode(name, inputs, saturate)
        theirs = oracle_inputs.astype(FORMATS[name]).view(code_type(name))
        what = "saturating encode" if saturate else "encode"
        if name == "f16":
            assert np.isnan(ours[is_nan].view(np.float16)).all()
            assert np.array_equal(ours[is_nan] >> 15, np.signbit(inputs[is_nan]))
            keep = ~is_nan
            expect_equal(name, what, inputs[keep], ours[keep], theirs[keep])
        else:
            expect_equal(name, what, inputs, ours, theirs)
    return inputs.size


def main():
    generator = np.random.default_rng(0)
    random = generator.integers(0, 1 << 32, 2_000_000, dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        for name in FORMATS:
            check_decode(name)
            # Most patterns are far outside a small format, so as many again are near it.
            largest = min(float(ml_dtypes.finfo(FORMATS[name]).max), 1e38)
            near = generator.uniform(-1, 1, 1_000_000) * generator.choice(
                largest * 2.0 ** np.arange(-20, 2), 1_000_000
            )
            count = check_encode(name, np.concatenate([random, near.astype(np.float32)]))
            print(f"{name}: {len(all_codes(name))} codes decoded, {count} numbers encoded")


if __name__ == "__main__":
    main()
