# RUN: %python %s
# A library with sanitizers links only into a program with them.
# UNSUPPORTED: sanitizers
"""cmake --install, find_package(Nibble), and a program built from outside.

The installed tree is all that the program and the installed tools see.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ["NIBBLE_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["NIBBLE_BUILD_DIR"])

EXPECTED = """\
tensor<100x64xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
tensor<4x64xf16>
"""


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def cached(name):
    """A value of the build's CMake cache."""
    for line in (BUILD / "CMakeCache.txt").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split("=", 1)[1]
    sys.exit(f"no {name} in {BUILD}/CMakeCache.txt")


with tempfile.TemporaryDirectory() as folder:
    prefix = pathlib.Path(folder) / "prefix"
    run("cmake", "--install", BUILD, "--prefix", prefix)

    tool = prefix / "bin/nibble-opt"
    text = "func.func private @f(tensor<4xf32, #nibble.quantized<nf4, block = [2], scale = f32>>)"
    if "#nibble.quantized<nf4" not in run(tool, input=text):
        sys.exit("the installed nibble-opt lost the encoding")

    build = pathlib.Path(folder) / "build"
    run(
        "cmake", "-G", "Ninja", "-S", SOURCE / "test/Integration/Inputs/consumer", "-B", build,
        f"-DCMAKE_PREFIX_PATH={prefix}", f"-DMLIR_DIR={cached('MLIR_DIR')}",
        f"-DCMAKE_C_COMPILER={cached('CMAKE_C_COMPILER')}",
        f"-DCMAKE_CXX_COMPILER={cached('CMAKE_CXX_COMPILER')}",
    )  # fmt: skip
    run("cmake", "--build", build)
    output = run(build / "consumer")
    if output != EXPECTED:
        sys.exit(f"the consumer printed\n{output}and not\n{EXPECTED}")
print("ok")
