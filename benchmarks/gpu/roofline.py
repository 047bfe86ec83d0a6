#!/usr/bin/env python3
"""Predicts from first principles what the kernels of `nibble kernels` can reach on a GPU.

    nibble kernels -o kernels --target nvidia-sm80 --scheme w4g128s
    python3 roofline.py kernels/kernels.json --gpu a100

For each shape and number of rows it finds, of the kernels for that number of rows, the one and
the number of parts that K is split into that take the least time: the most of

  - memory: weights, scales, X, Y and the sums of parts, at the rate of the GPU's memory;
  - cache: X once for each tile of outputs and weights once for each tile of rows, at the rate
    of the L2 cache;
  - tensor cores: the operations of all tiles, with what lies outside of the product, at the
    rate of f16 (of mma.sync on Hopper three quarters of it), over the waves of blocks;
  - unpacking: what turns codes into f16 numbers, once for each tile of rows, at four
    instructions of 32 lanes a clock and multiprocessor.

`fraction` is the least time that any kernel could take, that is the most of memory without
parts and of the product's own operations, over the predicted time. f16 is a dense product at
the rates of memory and of tensor cores. Launches, synchronisation and latency are not in the
model, so that all figures are upper bounds; benchmarks/gpu/matmul.py measures.
"""

import argparse
import dataclasses
import json
import pathlib


@dataclasses.dataclass(frozen=True)
class Gpu:
    """From NVIDIA's data sheets and architecture papers; dense f16 with f32 sums.

    The L2 cache: 5120 bytes a clock on the A100, and taken to be no more on Hopper.
    """

    name: str
    bytes_per_second: float
    operations_per_second: float
    multiprocessors: int
    clock: float
    shared_bytes: int
    # What mma.sync reaches of the peak (wgmma reaches all).
    mma_share: float = 1

    @property
    def cache_bytes_per_second(self):
        return 5120 * self.clock


GPUS = {
    "a100": Gpu("A100 SXM 80 GB", 2.039e12, 312e12, 108, 1.41e9, 164 << 10),
    "h100": Gpu("H100 SXM", 3.35e12, 989e12, 132, 1.83e9, 228 << 10, 0.75),
    "h200": Gpu("H200 SXM", 4.8e12, 989e12, 132, 1.83e9, 228 << 10, 0.75),
}
# Instructions a code: of FragmentCodes.cpp, for a word of 32 bits, over its codes.
UNPACKING = {"i4": 9 / 8, "u4": 9 / 8, "i8": 5 / 4, "u8": 5 / 4, "f8E5M2": 3 / 4,
             "f8E4M3FN": 9 / 4}
TABLE = 21 / 8


def round_up(value, multiple):
    return -(-value // multiple) * multiple


def bits_of(storage):
    return 8 if "8" in storage else 4


def weight_bytes(kernel, N, K):
    padded = round_up(K, 64 if 0 < kernel["group"] < 128 else 128)
    groups = -(-padded // kernel["group"]) if kernel["group"] else 1
    parameters = 4 if kernel["has_zeros"] else 2
    return round_up(N, 16) * (padded * bits_of(kernel["storage"]) // 8 + groups * parameters)


@dataclasses.dataclass
class Prediction:
    kernel: str
    splits: int
    bytes: int
    operations: int
    memory: float
    cache: float
    tensor: float
    unpacking: float
    ideal: float
    dense: float

    @property
    def seconds(self):
        return max(self.memory, self.cache, self.tensor, self.unpacking)

    @property
    def bound(self):
        return max(("memory", "cache", "tensor", "unpacking"), key=lambda name: getattr(self, name))


def predict(gpu, kernel, M, N, K, splits):
    columns, rows = -(-N // kernel["outputs"]), -(-M // kernel["rows"])
    moved = weight_bytes(kernel, N, K) + 2 * M * (K + N)
    cached = rows * weight_bytes(kernel, N, K) + columns * 2 * M * K + 2 * M * N
    parts = 2 * 4 * splits * M * round_up(N, 16) if splits > 1 else 0
    performed = 2 * rows * kernel["rows"] * columns * kernel["outputs"] * round_up(K, 64)
    unpacked = rows * columns * kernel["outputs"] * round_up(K, 64)

    # Of blocks that run at once, the last wave has fewer.
    at_once = gpu.multiprocessors * max(1, min(2048 // kernel["threads"],
                                               gpu.shared_bytes // kernel["shared_bytes"]))
    blocks = columns * rows * splits
    busy = blocks / round_up(blocks, min(at_once, round_up(blocks, gpu.multiprocessors)))
    peak = gpu.operations_per_second * (1 if "_wg" in kernel["name"] else gpu.mma_share)
    lanes = 4 * 32 * gpu.multiprocessors * gpu.clock
    instructions = UNPACKING.get(kernel["storage"], TABLE)
    return Prediction(
        kernel["name"], splits, moved + parts, 2 * M * N * K,
        (moved + parts) / gpu.bytes_per_second,
        (cached + parts) / gpu.cache_bytes_per_second, performed / peak / busy,
        unpacked * instructions / lanes / busy,
        max(moved / gpu.bytes_per_second, 2 * M * N * K / gpu.operations_per_second),
        max(2 * (N * K + M * (K + N)) / gpu.bytes_per_second,
            2 * M * N * K / gpu.operations_per_second))


def predict_best(gpu, kernels, M, N, K):
    limits = [kernel["max_rows"] for kernel in kernels]
    limit = min((rows for rows in limits if rows >= M), default=max(limits))
    candidates = []
    for kernel in kernels:
        if kernel["max_rows"] != limit:
            continue
        blocks = -(-N // kernel["outputs"]) * -(-M // kernel["rows"])
        for splits in 1, 2, 4, 8, 16:
            if splits == 1 or (blocks * splits <= 2 * gpu.multiprocessors
                               and splits * kernel["warps_along_k"] * 128 <= K):
                candidates.append(predict(gpu, kernel, M, N, K, splits))
    return min(candidates, key=lambda p: (p.seconds, p.splits))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kernels", nargs="+", type=pathlib.Path, help="kernels.json")
    parser.add_argument("--gpu", choices=GPUS, default="a100")
    parser.add_argument("--shapes", nargs="*", default=["4096x4096", "4096x11008", "8192x8192"],
                        help="KxN")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 16, 64, 256, 1024, 4096])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    gpu = GPUS[arguments.gpu]
    found = []
    for path in arguments.kernels:
        listing = json.loads(path.read_text())
        for shape in arguments.shapes:
            K, N = map(int, shape.split("x"))
            for M in arguments.rows:
                best = predict_best(gpu, listing["kernels"], M, N, K)
                found.append({"scheme": listing["scheme"], "K": K, "N": N, "M": M,
                              **dataclasses.asdict(best), "seconds": best.seconds,
                              "bound": best.bound, "fraction": best.ideal / best.seconds,
                              "times_f16": best.dense / best.seconds})
    if arguments.json:
        print(json.dumps({"gpu": gpu.name, "predictions": found}, indent=1))
        return
    print(f"{gpu.name}\n\n| scheme | K × N | M | kernel | MB | GFLOP | bound by | µs | fraction "
          "| × f16 |\n" + "|---" * 10 + "|")
    for row in found:
        print(f"| `{row['scheme']}` | {row['K']} × {row['N']} | {row['M']} "
              f"| `{row['kernel'].split('_', 1)[1]}` / {row['splits']} "
              f"| {row['bytes'] / 1e6:.1f} | {row['operations'] / 1e9:.1f} | {row['bound']} "
              f"| {row['seconds'] * 1e6:.1f} | {row['fraction']:.2f} | {row['times_f16']:.2f} |")


if __name__ == "__main__":
    main()
