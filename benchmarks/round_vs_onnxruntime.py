"""Rounding of an f32 weight to 4 bits: ours beside ONNX Runtime's own quantizer.

Both make what MatMulNBits takes (packed codes, f32 scales and, asymmetric, packed zero
points) from the same row-major [K, N] matrix by min/max, in one thread each, in turns; the
figures are medians. ONNX Runtime's side is the C++ kernel alone, called as its Python
quantizer calls it, with its output arrays allocated; ours includes its allocations and
the check for NaN and infinity. GB/s counts the f32 input. The last column is the squared
error of our result over that of ONNX Runtime's.

usage: NIBBLE_BUILD_DIR=build/release python benchmarks/round_vs_onnxruntime.py [--size 4096]
needs: numpy, onnxruntime, and the target NibbleNumericsTestSupport
"""
import argparse
import ctypes
import os
import time

# Before the import: ONNX Runtime reads the size of its thread pool from the CPUs it may use.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
from onnxruntime.capi._pybind_state import quantize_matmul_4bits

LIBRARY = ctypes.CDLL(
    os.path.join(os.environ["NIBBLE_BUILD_DIR"], "lib", "libNibbleNumericsTestSupport.so")
)


def pointer(array):
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def outputs(K, N, block):
    blocks = -(-K // block)
    return (
        np.zeros((N, blocks, block // 2), np.uint8),
        np.zeros(N * blocks, np.float32),
        np.zeros(N * ((blocks + 1) // 2), np.uint8),
    )


def run_theirs(weight, block, symmetric, packed, scales, zeros):
    K, N = weight.shape
    quantize_matmul_4bits(packed, weight, scales, zeros, block, N, K, symmetric)


def run_ours(weight, block, symmetric, packed, scales, zeros):
    K, N = weight.shape
    failed = LIBRARY.nibbleTestQuantizeMatMulNBits(
        pointer(weight),
        ctypes.c_size_t(K),
        ctypes.c_size_t(N),
        ctypes.c_size_t(block),
        1,
        pointer(packed),
        pointer(scales),
        None if symmetric else pointer(zeros),
    )
    assert not failed


def nibbles(packed):
    return np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:-1], -1)


def squared_error(weight, block, symmetric, packed, scales, zeros):
    """Of what MatMulNBits makes of the arrays; symmetric: zero point 8."""
    K, N = weight.shape
    blocks = packed.shape[1]
    zero = 8 if symmetric else nibbles(zeros.reshape(N, -1))[:, :blocks, None]
    values = (nibbles(packed).astype(np.float64) - zero) * scales.reshape(N, blocks, 1)
    return ((values.reshape(N, -1)[:, :K].T - weight) ** 2).sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=4096, help="K and N of the weight")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    size = arguments.size
    weight = np.random.default_rng(0).normal(0, 0.02, (size, size)).astype(np.float32)
    print(f"{size} x {size} f32, medians of {arguments.repeats}, one thread")
    print("block  kind        ours     ONNX Runtime  speed ratio  error ratio")
    for block in (32, 128):
        for symmetric in (False, True):
            seconds = {run_ours: [], run_theirs: []}
            arrays = {run: outputs(size, size, block) for run in seconds}
            for repeat in range(arguments.repeats + 1):
                for run, times in seconds.items():
                    start = time.perf_counter()
                    run(weight, block, symmetric, *arrays[run])
                    if repeat > 0:  # the first run warms up
                        times.append(time.perf_counter() - start)
            ours, theirs = (
                weight.nbytes / 1e9 / np.median(seconds[run]) for run in (run_ours, run_theirs)
            )
            errors = [
                squared_error(weight, block, symmetric, *arrays[run])
                for run in (run_ours, run_theirs)
            ]
            kind = "symmetric" if symmetric else "asymmetric"
            print(
                f"{block:5}  {kind:10}  {ours:4.2f} GB/s  {theirs:4.2f} GB/s"
                f"     {ours / theirs:6.2f}x      {errors[0] / errors[1]:.4f}"
            )


if __name__ == "__main__":
    main()
