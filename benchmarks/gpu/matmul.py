#!/usr/bin/env python3
"""Checks and times the kernels of `nibble kernels` on a machine with an NVIDIA GPU.

    nibble kernels -o kernels --target nvidia-sm90
    python3 matmul.py kernels [kernels...] --output results.json

Needs PyTorch with CUDA and the driver, nothing of Nibble: the folder of kernels and this
file may be carried to another machine. PTX is assembled by ptxas where there is one on
PATH, else by the driver.

Every kernel is compared with a product in f32 over odd shapes (the packing here is written
anew, after include/nibble/Numerics/FragmentPacking.h), then timed beside torch.matmul in
f16 (cuBLAS) with weights that are not in the caches: launches rotate over copies of the
weight that together are four times the L2 cache. Times are those of a CUDA graph divided by
its launches, the median of several replays.
"""

import argparse
import concurrent.futures
import ctypes
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

import torch

cuda = ctypes.CDLL("libcuda.so.1")


def call(name, *arguments):
    status = getattr(cuda, name)(*arguments)
    if status != 0:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(status, ctypes.byref(text))
        raise RuntimeError(f"{name}: {(text.value or b'?').decode()}")


def round_up(value, multiple):
    return (value + multiple - 1) // multiple * multiple


def assemble(path, chip):
    """A cubin from PTX, or the PTX for the driver to assemble; and what ptxas says."""
    if not shutil.which("ptxas"):
        return path.read_bytes() + b"\0", ""
    output = path.with_suffix(".cubin")
    done = subprocess.run(
        ["ptxas", f"-arch={chip}", "-v", path, "-o", output], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"ptxas {path}: {done.stderr}")
    return output.read_bytes(), " ".join(done.stderr.split())


class LaunchAttribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_int * 16)]


class LaunchConfig(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in
                ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared")]
    _fields_ += [("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(LaunchAttribute)),
                 ("num_attributes", ctypes.c_uint)]


class Kernel:
    def __init__(self, entry, image, report):
        self.__dict__.update(entry)
        self.report = report
        self.label = self.name + ("+" if self.overlaps else "")
        module = ctypes.c_void_p()
        call("cuModuleLoadData", ctypes.byref(module), image)
        self.function = ctypes.c_void_p()
        call("cuModuleGetFunction", ctypes.byref(self.function), module, self.name.encode())
        # 8: the largest dynamic shared memory.
        call("cuFuncSetAttribute", self.function, 8, self.shared_bytes)

    def pack(self, weight):
        """The arguments that stand for `weight`, a Weight."""
        return pack_codes(weight), pack_scales(weight, self.has_zeros)

    def launch(self, x, packed, bias, y, splits, scratch):
        codes, scales = packed
        M, K, N = x.shape[0], self.K, self.N
        pointers = [x, codes, scales, bias, y, scratch.partials, scratch.counters]
        values = [ctypes.c_void_p(p.data_ptr()) for p in pointers]
        unit = 1 if 0 < self.group < 128 else 2
        chunks = unit * -(-K // (64 * unit * splits * self.warps_along_k))
        values += [ctypes.c_int(v) for v in (M, N, K, x.stride(0), y.stride(0), chunks)]
        arguments = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        grid = -(-N // self.outputs), -(-M // self.rows), splits
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        # 6: programmatic stream serialization.
        overlap = LaunchAttribute(6, b"", (ctypes.c_int * 16)(1))
        config = LaunchConfig(*grid, self.threads, 1, 1, self.shared_bytes, stream,
                              ctypes.pointer(overlap), int(self.overlaps))
        call("cuLaunchKernelEx", ctypes.byref(config), self.function, arguments, None)


class Scratch:
    """What split sums need; one serves every launch of a stream."""

    def __init__(self):
        self.partials = torch.empty(64 << 20, dtype=torch.float32, device="cuda")
        self.counters = torch.zeros(1 << 16, dtype=torch.int32, device="cuda")


class Weight:
    """Random 4-bit codes [K, N] with scales and zero points [groups, N]."""

    def __init__(self, K, N, group, has_zeros, generator):
        self.K, self.N = K, N
        self.is_per_channel, self.group = group == 0, group or K
        groups = -(-K // self.group)
        draw = {"generator": generator, "device": "cuda"}
        self.codes = torch.randint(0, 16, (K, N), dtype=torch.int32, **draw)
        self.scales = (torch.rand(groups, N, **draw) * 0.02 + 0.005).half()
        self.zeros = torch.full((groups, N), 8, dtype=torch.int32, device="cuda")
        if has_zeros:
            self.zeros = torch.randint(0, 16, (groups, N), dtype=torch.int32, **draw)

    def dense(self):
        expand = lambda t: t.repeat_interleave(self.group, 0)[: self.K].float()
        return (self.codes - expand(self.zeros)) * expand(self.scales)


def padded_inputs(weight):
    is_small = not weight.is_per_channel and weight.group < 128
    return round_up(weight.K, 64 if is_small else 128)


def pack_codes(weight):
    K, N = padded_inputs(weight), round_up(weight.N, 16)
    codes = torch.zeros(K, N, dtype=torch.int32, device="cuda")
    codes[: weight.K, : weight.N] = weight.codes
    # inputs: chunk, step, half, pair, parity; outputs: tile, half, row
    parts = codes.view(K // 64, 4, 2, 4, 2, N // 16, 2, 8)
    # to: tile, chunk, row, pair (the lane), step, then the nibbles of a word from the
    # high one down: parity, half of the inputs, half of the outputs
    parts = parts.permute(5, 0, 7, 3, 1, 4, 2, 6).reshape(-1, 8)
    shifts = torch.arange(0, 32, 4, device="cuda")
    words = (parts.long() << shifts).sum(1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def pack_scales(weight, has_zeros):
    K, N = padded_inputs(weight), round_up(weight.N, 16)
    groups = 1 if weight.is_per_channel else -(-K // weight.group)

    def tiles(values):
        padded = torch.zeros(groups, N, dtype=torch.float32, device="cuda")
        padded[: values.shape[0], : weight.N] = values.float()
        # tile, group, row, half of the tile
        return padded.view(groups, N // 16, 2, 8).permute(1, 0, 3, 2)

    parts = [tiles(weight.scales)]
    if has_zeros:
        magic = torch.tensor([1024.0, 64.0], device="cuda")
        parts.append(-(magic + tiles(weight.zeros)))
    return torch.cat(parts, 3).half().contiguous()


def check(kernel, shapes, scratch):
    """The largest relative error over `shapes` and numbers of splits."""
    generator = torch.Generator("cuda").manual_seed(1)
    worst = 0.0
    for M, N, K in shapes:
        weight = Weight(K, N, kernel.group, kernel.has_zeros, generator)
        packed = kernel.pack(weight)
        kernel.N, kernel.K = N, K
        storage = torch.full((M, round_up(K, 8)), float("nan"), device="cuda").half()
        x = storage[:, :K]
        x.copy_(torch.randn(M, K, generator=generator, device="cuda"))
        bias = torch.zeros(round_up(N, 16), device="cuda").half()
        bias[:N] = torch.randn(N, generator=generator, device="cuda")
        expected = x.float() @ weight.dense() + (bias[:N].float() if kernel.has_bias else 0)
        for splits in 1, 3:
            y = torch.full((M, round_up(N, 8)), float("nan"), device="cuda").half()
            kernel.launch(x, packed, bias, y, splits, scratch)
            result = y[:, :N].float()
            error = ((result - expected).norm() / expected.norm()).item()
            worst = max(worst, error if error == error else float("inf"))
        if scratch.counters.any():
            worst = float("inf")
            scratch.counters.zero_()
    return worst


def time_launches(launch, count, replays=7):
    """Seconds of a launch: the median over replays of a graph of `count` launches."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        launch(0)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(count):
                launch(i)
        times = []
        for _ in range(replays + 1):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3 / count)
    return statistics.median(times[1:])


def copies(weight_bytes, cache_bytes):
    return max(2, -(-4 * cache_bytes // weight_bytes))


def time_dense(M, N, K, cache_bytes):
    count = copies(2 * N * K, cache_bytes)
    weights = [torch.randn(N, K, device="cuda").half() for _ in range(count)]
    x = torch.randn(M, K, device="cuda").half()
    y = torch.empty(M, N, device="cuda").half()
    return time_launches(lambda i: torch.matmul(x, weights[i % count].t(), out=y), count)


def time_kernel(kernel, M, N, K, splits, packed, scratch):
    kernel.N, kernel.K = N, K
    count = len(packed)
    x = torch.randn(M, K, device="cuda").half()
    y = torch.empty(M, N, device="cuda").half()
    bias = torch.zeros(N, device="cuda").half()
    return time_launches(
        lambda i: kernel.launch(x, packed[i % count], bias, y, splits, scratch), count
    )


def time_copy():
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    copy = lambda i: torch.bitwise_not(source, out=target)
    return 2 * source.numel() / time_launches(copy, 4)


def load(folder):
    listing = json.loads((folder / "kernels.json").read_text())
    entries = listing["kernels"]
    for entry in entries:
        if entry["storage"] not in ("i4", "u4") or entry["activation"] != "none":
            sys.exit(f"{folder}: there is no comparison yet for {entry['name']}, only for "
                     "4-bit integers without an activation")
    # PTX without an "a" runs on every later chip too.
    chip = listing["chip"]
    if not chip.endswith("a"):
        chip = "sm_%d%d" % torch.cuda.get_device_capability()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = list(
            pool.map(lambda e: assemble(folder / e["file"], chip), entries)
        )
    return [Kernel(entry, *image) for entry, image in zip(entries, images)]


ODD_SHAPES = [(1, 16, 64), (3, 37, 200), (13, 70, 1000), (8, 4096, 4096), (20, 40, 130),
              (65, 1000, 576), (130, 300, 4104)]
SHAPES = [(4096, 4096), (4096, 11008), (8192, 8192)]
ROWS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]


def is_worth_timing(kernel, M):
    """Leaves out tiles far too tall or far too low for M."""
    return (M > kernel.rows // 4 or kernel.rows == 8) and M <= 8 * kernel.rows


def measure(kernels, shapes, rows, scratch):
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    copy_rate = time_copy()
    one = torch.zeros(1, device="cuda")
    print(f"copy {copy_rate / 1e12:.2f} TB/s, a kernel that does nothing "
          f"{time_launches(lambda i: one.zero_(), 100) * 1e6:.2f} us")
    results = []
    for K, N in shapes:
        packed = {}
        for M in rows:
            dense = time_dense(M, N, K, cache)
            found = []
            for kernel in kernels:
                if not is_worth_timing(kernel, M):
                    continue
                form = kernel.group, kernel.has_zeros
                if form not in packed:
                    generator = torch.Generator("cuda").manual_seed(2)
                    weight = Weight(K, N, *form, generator)
                    first = kernel.pack(weight)
                    count = copies(sum(t.nbytes for t in first), cache)
                    packed[form] = [tuple(t.clone() for t in first) for _ in range(count)]
                blocks = -(-N // kernel.outputs) * -(-M // kernel.rows)
                for splits in 1, 2, 4, 8, 16:
                    if splits > 1 and blocks * splits > 1100:
                        break
                    if splits * M * N > scratch.partials.numel():
                        break
                    time = time_kernel(kernel, M, N, K, splits, packed[form], scratch)
                    found.append((time, kernel, splits))
            found.sort(key=lambda entry: entry[0])
            for form in {(k.group, k.has_zeros) for _, k, _ in found}:
                mine = [e for e in found if (e[1].group, e[1].has_zeros) == form]
                time, kernel, splits = mine[0]
                read = sum(t.nbytes for t in packed[form][0]) + 2 * M * (K + N)
                print(f"{K}x{N} M={M}: cuBLAS {dense * 1e6:.2f} us, {kernel.label}/{splits} "
                      f"{time * 1e6:.2f} us, {dense / time:.2f}x, "
                      f"{read / time / copy_rate:.0%} of copy, "
                      f"{2e-12 * M * N * K / time:.0f} TFLOP/s;  then "
                      + ", ".join(f"{k.label.split('_', 1)[1]}/{s} {t * 1e6:.2f}"
                                  for t, k, s in mine[1:4]))
            results += [{"K": K, "N": N, "M": M, "kernel": k.label, "splits": s,
                         "seconds": t, "cublas_seconds": dense} for t, k, s in found]
            sys.stdout.flush()
        del packed
        torch.cuda.empty_cache()
    return {"copy_bytes_per_second": copy_rate, "times": results}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--shapes", nargs="*", default=[f"{k}x{n}" for k, n in SHAPES],
                        help="KxN of the weights to time")
    parser.add_argument("--check-only", action="store_true")
    arguments = parser.parse_args()

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.cuda.init()
    torch.empty(1, device="cuda")
    device = torch.cuda.get_device_name()
    print(device, torch.__version__)
    kernels = [kernel for folder in arguments.folders for kernel in load(folder)]
    scratch = Scratch()
    wrong = []
    for kernel in kernels:
        error = check(kernel, ODD_SHAPES, scratch)
        print(f"{kernel.name}: error {error:.1e}; {kernel.report[-120:]}")
        if not error < 2e-3:
            wrong.append(kernel)
    print(f"{len(kernels) - len(wrong)} of {len(kernels)} kernels are right")
    results = {"device": device}
    if not arguments.check_only:
        shapes = [tuple(map(int, shape.split("x"))) for shape in arguments.shapes]
        right = [kernel for kernel in kernels if kernel not in wrong]
        results.update(measure(right, shapes, arguments.rows, scratch))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
