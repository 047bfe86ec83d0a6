# RUN: %python %s
# REQUIRES: numpy, ml_dtypes
# Under sanitizers the simulator has not been tried.
# UNSUPPORTED: sanitizers
"""A C program multiplies by what `nibble kernels --emit c` writes, without a GPU.

The CUDA driver is a stub built here (Inputs/cuda_driver.c) that runs each launch on the
simulator: grids, arguments and memory are what the launch code made of them, and results
must be those of NumPy, in every bit. And every way in which a GPU can be missing or fail is
an error that says so.
"""

import json
import os
import pathlib
import shutil

import numpy as np

import support
from gpu_weights import draw_inputs, draw_weight, pack_codes, pack_scales

NIBBLE, SIMULATE = support.tool("nibble"), support.tool("nibble-simulate")
INPUTS = support.SOURCE_DIR / "test/Integration/Inputs"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror")
# Codes of enum nibble_gpu_status.
INVALID, MEMORY, NO_DRIVER, NO_DEVICE, CHIP, LAUNCH, DRIVER = range(1, 8)


class Program:
    """The test program with the kernels of a scheme, and the stub beside it."""

    def __init__(self, folder, target, scheme, *options):
        self.folder = folder
        self.environment = {"STUB_SIMULATOR": SIMULATE, "STUB_CODE": str(folder / "llvm"),
                            "STUB_FOLDER": str(folder), "LD_LIBRARY_PATH": str(folder)}
        for emit in "c", "llvm":
            support.must_run(NIBBLE, "kernels", "-o", folder / emit, "--target", target,
                             "--scheme", scheme, "--emit", emit, *options)
        self.kernel = json.loads((folder / "c/kernels.json").read_text())["kernels"][0]
        support.must_run("cc", *WARNINGS, f"-I{folder / 'c'}", INPUTS / "gpu_consumer.c",
                         folder / "c/kernels.c", folder / "c/nibble_gpu.c", "-ldl", "-o",
                         folder / "program")
        self.build_driver()

    def build_driver(self, *options):
        support.must_run("cc", *WARNINGS, *options, "-shared", "-fPIC",
                         INPUTS / "cuda_driver.c", "-o", self.folder / "libcuda.so.1")

    def run(self, M=1, N=16, K=64, max_rows=None, gpu=0, **settings):
        return support.run(self.folder / "program", self.folder, M, N, K, max_rows or M, gpu,
                           environment={**self.environment, **settings})

    def write_product(self, M, N, K):
        """Writes the operands; returns the product, rounded once."""
        generator = np.random.default_rng(1)
        codes, scales, zeros, dense = draw_weight(K, N, self.kernel, generator)
        x = draw_inputs(M, K, self.kernel, generator)
        files = {"x": x, "codes": pack_codes(codes, self.kernel),
                 "scales": pack_scales(scales, zeros, K, self.kernel)}
        product = x.astype(np.float64) @ dense
        if self.kernel["has_bias"]:
            files["bias"] = generator.integers(-64, 65, N).astype(np.float16)
            product += files["bias"]
        for name, values in files.items():
            values.tofile(self.folder / name)
        return product.astype(np.float16)


def check_products(checks, program, shapes):
    for (M, N, K), launched in shapes:
        expected = program.write_product(M, N, K)
        done = program.run(M, N, K)
        if not checks.check(done.code == 0 and not done.stderr, done):
            continue
        y = np.fromfile(program.folder / "y", np.float16).reshape(M, N)
        checks.check((y == expected).all(), f"{M}x{N}x{K}: {(y != expected).sum()} are wrong")
        checks.check(launched in done.stdout, f"{M}x{N}x{K}: {launched} not in {done.stdout}")


def check_failures(checks, program):
    program.write_product(1, 16, 64)

    def fails(code, text, done):
        checks.check(done.code == code and text in done.stderr and not done.timed_out
                     and done.stderr.startswith("error: ") and "stub:" not in done.stderr,
                     f"not {code}, {text}: {done}")

    run = program.run
    checks.check(run().code == 0, "the product itself fails")
    fails(NO_DEVICE, "finds no GPU", run(STUB_DEVICES="0"))
    fails(NO_DEVICE, "there is no GPU 2; they are numbered from 0 to 1",
          run(gpu=2, STUB_DEVICES="2"))
    fails(CHIP, "Stub 0 is an sm_75; these kernels run on sm_80 and later chips",
          run(STUB_CAPABILITY="7.5"))
    fails(CHIP, "a block on Stub 0 has 1000", run(STUB_SHARED="1000"))
    fails(MEMORY, "a weight of 64 x 16 for 1 rows takes 1060 bytes; of the 1059 of Stub 0, "
          "1059 are free", run(STUB_MEMORY="1059"))
    # What is free suffices for the weight but not for X.
    fails(MEMORY, "cannot copy to the GPU: what stub error 2 means", run(STUB_MEMORY="1060"))
    fails(LAUNCH, "cannot be loaded on Stub 0: what stub error 218 means (CUDA error 218)",
          run(STUB_KERNEL="218"))
    fails(LAUNCH, "cannot be launched on Stub 0: what stub error 719 means (CUDA error 719)",
          run(STUB_LAUNCH="719"))
    fails(INVALID, "2 rows; the weight was loaded for 1 to 1", run(M=2, max_rows=1))
    fails(INVALID, "sizes are 1 or more", run(K=0))
    (program.folder / "bias").write_bytes(bytes(32))
    fails(INVALID, "these kernels take no bias", run())
    (program.folder / "bias").unlink()

    program.build_driver("-DWITHOUT_MEMORY_INFO")
    fails(NO_DRIVER, "has no cuMemGetInfo_v2; update it", run())
    (program.folder / "libcuda.so.1").write_bytes(b"no library")
    fails(NO_DRIVER, "cannot be loaded", run())
    (program.folder / "libcuda.so.1").unlink()
    done = run()
    if "cannot be loaded" not in done.stderr:
        print("a driver that is not there: skipped, this machine has one")
    else:
        fails(NO_DRIVER, "install NVIDIA's driver", done)


def main():
    if not shutil.which("cc"):
        support.skip("there is no cc")
    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        program = Program(folder / "sm80", "nvidia-sm80", "w4g128s")
        # The stub has 4 multiprocessors: few outputs leave K to 2 × 16 warps.
        check_products(checks, program, [
            ((1, 17, 75), "w4g128_n32x1_m8_k16_s2 grid 1 1 1"),
            ((5, 50, 4200), "w4g128_n32x1_m8_k16_s2 grid 2 1 2"),
            ((8, 650, 200), "w4g128_n32x1_m8_k4_s8 grid 21 1 1"),
            ((37, 70, 600), "w4g128_n32x4_m64_k2_s4 grid 1 1 2"),
            ((300, 70, 333), "w4g128_n32x8_m64_k1_s4 grid 1 5 1")])
        check_failures(checks, program)

        program = Program(folder / "sm90a", "nvidia-sm90a", "w8c", "--bias", "--tile",
                          "n32x1_m8_k4_s4", "--tile", "n16x4_m64_k1_s4_wg")
        settings = {"STUB_CAPABILITY": "9.0", "STUB_SHARED": "232448"}
        program.environment.update(settings)
        check_products(checks, program, [
            ((3, 33, 200), "overlapping w8cz_bias_n32x1_m8_k4_s4 grid 2 1 1"),
            ((70, 33, 200), "overlapping w8cz_bias_n16x4_m64_k1_s4_wg grid 1 2 2")])
        done = program.run(STUB_CAPABILITY="10.0")
        checks.check(done.code == CHIP and "these kernels run on sm_90a alone" in done.stderr,
                     done)
    checks.finish()


if __name__ == "__main__":
    main()
