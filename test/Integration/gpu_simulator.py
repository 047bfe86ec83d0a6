# RUN: %python %s
# REQUIRES: numpy, ml_dtypes
# Under sanitizers it has not been tried, and would take many minutes.
# UNSUPPORTED: sanitizers
"""Every kernel of `nibble kernels` computes on the simulator what NumPy computes.

For each format, tile and GPU, over odd M, N and K and numbers of splits: once with every
access to memory checked and its cost counted, and under several schedules that must agree
in every bit. Inputs are small integers, scales powers of two and codes those of numbers that
have few bits, so that all sums are exact in f32: a result must be the exact one, rounded once
to f16.
"""

import concurrent.futures
import json
import math
import os
import pathlib
import re

import numpy as np

import support
from gpu_weights import draw_inputs, draw_weight, pack_codes, pack_scales, round_up

NIBBLE, SIMULATE = support.tool("nibble"), support.tool("nibble-simulate")
SCHEDULES = 4
# w4g384 stands for multiples of 128.
SCHEMES = ("w4g32s", "w4g32", "w4g64s", "w4g64", "w4g128s", "w4g128", "w4g384", "w4cs", "w4c")
# Storages differ in the packing and in what makes numbers of codes; each is here with
# groups that have sums of their own, or scales of their own for each half of a chunk, or
# neither.
SCHEMES += ("w8g128s", "w8g32", "w8c", "nf4g64", "nf4c", "fp4g32", "f4E2M1FNg128",
            "f8E4M3FNg128", "f8E4M3FNc", "f8E5M2g64")
# Kernels that sm_80 has too differ on sm_90a in their start alone.
RUNS = [("nvidia-sm80", scheme, ()) for scheme in SCHEMES]
RUNS += [("nvidia-sm80", "w4g128", ("--bias",)), ("nvidia-sm90a", "w4g64", ("--bias",))]
# Of six stages, not four but two are loaded ahead.
RUNS += [("nvidia-sm80", "w4g32", ("--tile", "n32x1_m8_k8_s6"))]
RUNS += [("nvidia-sm90a", scheme, ("warpgroups",)) for scheme in SCHEMES]
# After the sums, in few rows and in many; where K is split, the last block does it.
RUNS += [("nvidia-sm80", scheme, ("--activation", activation, "--tile", "n32x1_m8_k8_s4",
                                  "--tile", "n32x8_m64_k1_s4", *bias))
         for scheme, activation, bias in (("w4g128s", "relu", ()), ("w4g64", "gelu", ("--bias",)),
                                          ("w8cs", "silu", ("--bias",)))]

ERF = np.vectorize(math.erf)
ACTIVATIONS = {"none": lambda x: x, "relu": lambda x: np.maximum(x, 0),
               "gelu": lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2,
               "silu": lambda x: x * (1 + np.tanh(x / 2)) / 2}


class Launch:
    """One product: its files in `folder`, its entry in launches.json, its result."""

    def __init__(self, folder, number, kernel, shape, splits, generator):
        self.folder, self.kernel, self.splits = folder, kernel, splits
        self.M, self.N, self.K = M, N, K = shape
        self.prefix = f"{kernel['name']}.{number}"
        codes, scales, zeros, dense = draw_weight(K, N, kernel, generator)
        self.x_stride, self.y_stride = round_up(K, 8) + 8, round_up(N, 8) + 8
        x = np.full((M, self.x_stride), np.nan, np.float16)
        x[:, :K] = draw_inputs(M, K, kernel, generator)
        bias = np.zeros(round_up(N, 16), np.float16)
        bias[:N] = generator.integers(-64, 65, N)
        self.expected = x[:, :K].astype(np.float64) @ dense
        if kernel["has_bias"]:
            self.expected += bias[:N]
        self.expected = ACTIVATIONS[kernel["activation"]](self.expected)
        grid = [-(-N // kernel["outputs"]), -(-M // kernel["rows"]), splits]
        unit = 1 if 0 < kernel["group"] < 128 else 2
        chunks = unit * -(-K // (64 * unit * splits * kernel["warps_along_k"]))
        partials = np.full((splits, M, round_up(N, 16)), np.nan, np.float32)
        counters = np.zeros(grid[0] * grid[1], np.int32)
        arguments = [
            self.write("input", "x", x),
            self.write("input", "codes", pack_codes(codes, kernel)),
            self.write("input", "scales", pack_scales(scales, zeros, K, kernel)),
            self.write("input", "bias", bias),
            self.write("output", "y", np.full((M, self.y_stride), np.nan, np.float16)),
            self.write("input", "partials", partials),
            self.write("output", "counters", counters),
        ]
        arguments += [{"i32": v} for v in (M, N, K, self.x_stride, self.y_stride, chunks)]
        self.entry = {"kernel": kernel["name"], "grid": grid,
                      "block": [kernel["threads"], 1, 1],
                      "shared_bytes": kernel["shared_bytes"], "arguments": arguments}

    def write(self, role, name, values):
        file = f"{self.prefix}.{name}"
        values.tofile(self.folder / file)
        return {role: file}

    def read(self, name, dtype):
        return np.fromfile(self.folder / f"{self.prefix}.{name}", dtype)

    def verify(self):
        """What is wrong with the result; empty if nothing is."""
        y = self.read("y", np.float16).reshape(self.M, self.y_stride)[:, : self.N]
        rounded = self.expected.astype(np.float16)
        wrong = np.argwhere(y != rounded)
        if self.kernel["activation"] in ("gelu", "silu"):
            # Their polynomials are f32's.
            error = np.abs(y - self.expected)
            allowed = np.spacing(np.abs(rounded)) / 2 + 2e-6 * (1 + np.abs(self.expected))
            wrong = np.argwhere(~(error <= allowed))
        what = f"{self.prefix} {self.M}x{self.N}x{self.K}, {self.splits} splits"
        if wrong.size:
            at = tuple(wrong[0])
            return f"{what}: {len(wrong)} are wrong, at {at} {y[at]}, not {self.expected[at]}"
        if self.read("counters", np.int32).any():
            return f"{what}: counters are left behind"
        return ""


def shapes_of(kernel):
    """One row and few outputs; less than a tile; more than one tile each way."""
    rows, outputs = kernel["rows"], kernel["outputs"]
    return [(1, 17, 75), (rows - 1, 37, 200), (rows + 3, outputs + 21, 333)]


def conflicts(output):
    """Instructions that shared memory could have served in fewer rounds."""
    wrong = []
    for line in output.splitlines():
        found = re.match(r"shared: .* bytes, (\d+) rounds, (\d+) would do: (.*)", line)
        if found and int(found[1]) > int(found[2]):
            wrong.append(f"bank conflicts: {line}")
    return "\n".join(wrong)


def simulate(code, launches, name, *options):
    """What the simulator finds wrong; empty if nothing."""
    path = code.parent / f"{code.stem}.{name}.json"
    path.write_text(json.dumps({"launches": [launch.entry for launch in launches]}))
    done = support.run(SIMULATE, code, path, *options, timeout=300)
    return conflicts(done.stdout) if done.code == 0 else done.stdout + done.stderr


def check_kernel(folder, kernel):
    """Everything that is wrong with a kernel, as text."""
    generator = np.random.default_rng(1)
    launches = [Launch(folder, f"{i}.{splits}", kernel, shape, splits, generator)
                for i, shape in enumerate(shapes_of(kernel)) for splits in (1, 3)]
    code = folder / kernel["file"]
    wrong = []
    for name, some, options in (("checked", launches[:4], ("--check", "--costs")),
                                ("plain", launches, ("--schedules", SCHEDULES))):
        message = simulate(code, some, name, *options)
        wrong += [message] if message else filter(None, (l.verify() for l in some))
    return "\n".join(wrong)


def write_kernels(folder, target, scheme, options):
    """The kernels' entries; "warpgroups": only those."""
    only = "warpgroups" in options
    options = [option for option in options if option != "warpgroups"]
    if only:
        for tile in WARPGROUP_TILES:
            options += ["--tile", tile]
    support.must_run(NIBBLE, "kernels", "-o", folder, "--target", target, "--scheme", scheme,
                     "--emit", "llvm", *options, timeout=300)
    return json.loads((folder / "kernels.json").read_text())["kernels"]


# Kernels that lose every call of an operation, and the finding that says so.
FEW, MANY = "n32x1_m8_k8_s4", "n16x8_m64_k1_s4_wg"
MUTANTS = (
    (FEW, "bar.warp.sync", "race: read of what another thread writes", "ldmatrix"),
    (FEW, "cp.async.wait.group", "read of shared memory that a copy is filling", "ldmatrix"),
    (FEW, "barrier.cta.sync.aligned.all", "race: read of what another thread writes", "= load"),
    (MANY, "fence.proxy.async.shared_cta",
     "wgmma reads what was written before no fence.proxy.async", "wgmma.mma_async"),
    (MANY, "wgmma.wait_group.sync.aligned", "write to shared memory that wgmma is reading",
     "cp.async.cg"),
    (MANY, "barrier.cta.sync.aligned.all", "race: read of what another thread writes",
     "wgmma.mma_async"),
)


def check_mutant(folder, kernel, operation, finding, instruction):
    """What is wrong with the simulator: a mistake that it does not find."""
    generator = np.random.default_rng(2)
    launch = Launch(folder, "mutant", kernel, shapes_of(kernel)[2], 1, generator)
    lines = (folder / kernel["file"]).read_text().splitlines(keepends=True)
    kept = [line for line in lines if f"call void @llvm.nvvm.{operation}(" not in line]
    code = folder / f"{kernel['name']}.{operation}.ll"
    code.write_text("".join(kept))
    output = simulate(code, [launch], "mutant", "--check")
    pattern = rf": {re.escape(finding)}\n  at .*{re.escape(instruction)}"
    if len(kept) < len(lines) and re.search(pattern, output):
        return ""
    return f"not found: {finding}, in {output[:1000]}"


WARPGROUP_TILES = ("n16x8_m64_k1_s4_wg", "n16x8_m128_k1_s4_wg", "n32x8_m128_k1_s4_wg")


def main():
    checks = support.Checks()
    with support.scratch() as folder, \
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = []
        for number, (target, scheme, options) in enumerate(RUNS):
            place = pathlib.Path(folder) / str(number)
            for kernel in write_kernels(place, target, scheme, options):
                jobs.append((f"{target} {scheme} {kernel['name']}",
                             pool.submit(check_kernel, place, kernel)))
        place = pathlib.Path(folder) / "mutants"
        kernels = write_kernels(place, "nvidia-sm90a", "w4g128s", ("--tile", FEW, "--tile", MANY))
        for tile, *mutant in MUTANTS:
            kernel = next(k for k in kernels if k["name"].endswith(tile))
            jobs.append((f"{kernel['name']} without {mutant[0]}",
                         pool.submit(check_mutant, place, kernel, *mutant)))
        for name, job in jobs:
            wrong = job.result()
            checks.check(not wrong, f"{name}: {wrong}")
    checks.finish("kernels and mutants")


if __name__ == "__main__":
    main()
