# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
# Under sanitizers the simulator has not been tried.
# UNSUPPORTED: sanitizers
"""Libraries that `nibble compile` makes for GPUs, without one: the CUDA driver is a stub
(Inputs/cuda_driver.c) that runs each launch of the embedded PTX's kernels on the simulator.
Outputs are those of ONNX Runtime, and every way in which a GPU can be missing or fail is an
error that says so. ptxas takes the PTX where it is at hand."""

import json
import pathlib
import shutil
import sys

import numpy as np
import onnxruntime

import support
from graph_builder import FLOAT, Builder, round_products
from ptxas import assemble, find_ptxas

NIBBLE, SIMULATE = support.tool("nibble"), support.tool("nibble-simulate")
DRIVER = support.SOURCE_DIR / "test/Integration/Inputs/cuda_driver.c"
# Calls a library: the driver prints launches, and the environment is this process's.
PROGRAM = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import compiled
try:
    model = compiled.Model(sys.argv[2], "m")
    x = np.load(sys.argv[3])
    for _ in range(2):
        np.save(sys.argv[4], model.run(x)[0])
    model.close()
except compiled.ModelError as error:
    sys.exit(f"error: {error}")
"""


class Library:
    """A model with an input x and its library, and the stub beside it."""

    def __init__(self, folder, build, shape, target="nvidia-sm80", **settings):
        folder.mkdir()
        self.settings = settings
        self.folder, self.model = folder, folder / "m.onnx"
        build(self.model)
        self.x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        np.save(folder / "x.npy", self.x)
        compile_model = [NIBBLE, "compile", self.model, "--target", target]
        done = support.must_run(*compile_model, "-o", folder / "m.so", "--json")
        self.summary = json.loads(done.stdout)
        support.must_run(*compile_model, "-o", folder / "m.ptx", "--quiet")
        support.must_run(*compile_model, "--emit", "kernels", "-o", folder / "m.ll")
        support.must_run("cc", "-shared", "-fPIC", DRIVER, "-o", folder / "libcuda.so.1")

    def run(self, **settings):
        environment = {"STUB_SIMULATOR": SIMULATE, "STUB_CODE": str(self.folder / "m.ll"),
                       "STUB_FOLDER": str(self.folder), "LD_LIBRARY_PATH": str(self.folder),
                       **self.settings, **settings}
        return support.run(sys.executable, "-c", PROGRAM, pathlib.Path(__file__).parent,
                           self.folder / "m.so", self.folder / "x.npy", self.folder / "y.npy",
                           environment=environment)

    def check(self, checks, expected, limit, *launched):
        done = self.run()
        if not checks.check(done.code == 0 and "stub:" not in done.stderr, done):
            return
        y = np.load(self.folder / "y.npy")
        error = np.sqrt(np.mean((y - expected) ** 2) / np.mean(expected ** 2))
        checks.check(y.shape == expected.shape and error <= limit, f"error {error}")
        for kernel in launched:
            checks.check(kernel in done.stdout, f"{kernel} is not in {done.stdout}")


def build_layer(path):
    """One with a bias and a normalization."""
    b = Builder(1)
    x = b.add("Add", b.add("MatMul", "x", b.weight(64, 40)), b.weight(40))
    b.save(path, [("x", FLOAT, [3, 64])], [b.add("Softmax", x, axis=-1)])


def build_quantized(path):
    b = Builder(2)
    b.save(path, [("x", FLOAT, [3, 96])], [b.add("Tanh", b.add("MatMul", "x", b.weight(96, 44)))])
    float_model = path.rename(path.with_name("float.onnx"))
    support.must_run(NIBBLE, "quantize", float_model, "-o", path, "--scheme", "w4g32s", "--quiet")


def run_peer(model, x):
    return onnxruntime.InferenceSession(model).run(None, {"x": x})[0]


def check_failures(checks, library):
    def fails(text, done):
        checks.check(done.code == 1 and text in done.stderr and done.stderr.startswith("error: ")
                     and "stub:" not in done.stderr, f"not {text}: {done}")

    run = library.run
    memory = library.summary["device_memory"]
    needed = memory["weights_bytes"] + memory["buffer_bytes"]
    fails("7: 'm': the CUDA driver finds no GPU", run(STUB_DEVICES="0"))
    fails("7: 'm': Stub 0 is an sm_75; these kernels run on sm_80", run(STUB_CAPABILITY="7.5"))
    fails(f"2: 'm': the model takes {memory['weights_bytes']} bytes of weights and "
          f"{memory['buffer_bytes']} of buffers; of the {needed - 1} of Stub 0",
          run(STUB_MEMORY=str(needed - 1)))
    fails("7: 'm': the kernels cannot be loaded on Stub 0: what stub error 218 means",
          run(STUB_KERNEL="218"))
    fails("cannot be launched on Stub 0: what stub error 719 means (CUDA error 719)",
          run(STUB_LAUNCH="719"))
    fails("7: the kernels failed on Stub 0: what stub error 700 means (CUDA error 700)",
          run(STUB_SYNCHRONIZE="700"))
    (library.folder / "libcuda.so.1").unlink()
    done = run()
    if "cannot be loaded" not in done.stderr:
        print("a driver that is not there: skipped, this machine has one")
    else:
        fails("7: 'm': the CUDA driver cannot be loaded", done)


def check_commands(checks, folder, model):
    def fails(text, *command):
        done = support.run(NIBBLE, *command)
        checks.check(done.code == 1 and text in done.stderr, f"not {text}: {done}")
        checks.check(not (folder / "z.so").exists(), "a file was written")

    output = ("-o", folder / "z.so")
    fails("--target nvidia-sm75: no such target; there are", "compile", model, *output,
          "--target", "nvidia-sm75")
    fails("and for GPUs nvidia-sm80, nvidia-sm86", "compile", model, *output, "--target", "sm80")
    fails("--target generic: no such GPU; there are nvidia-sm80", "run", model, "--random",
          "--device", "cuda", "--target", "generic")
    fails("--emit kernels: for GPUs only", "compile", model, "--emit", "kernels")
    fails("--emit llvm: for nvidia-sm80 there are", "compile", model, "--emit", "llvm",
          "--target", "nvidia-sm80")
    fails("does not update caches in place", "compile", model, *output, "--update-caches",
          "--target", "nvidia-sm80")


def main():
    if not shutil.which("cc"):
        support.skip("there is no cc")
    checks = support.Checks()
    ptxas, reason = find_ptxas()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        layer = Library(folder / "layer", build_layer, (3, 64))
        layer.check(checks, run_peer(layer.model, layer.x), 1e-6, "reduce_")
        quantized = Library(folder / "quantized", build_quantized, (3, 96), "nvidia-sm90",
                            STUB_CAPABILITY="9.0", STUB_SHARED="232448")
        rounded = round_products(quantized.model, folder / "rounded.onnx")
        # What lies between two numbers of f16 may go to the other one.
        quantized.check(checks, run_peer(rounded, quantized.x), 2.0 ** -12, "overlapping w4g32_")
        for library, chip in (layer, "sm_80"), (quantized, "sm_90"):
            if ptxas:
                wrong, _ = assemble(ptxas, library.folder / "m.ptx", chip)
                checks.check(not wrong, f"{library.model}: {wrong}")
            else:
                print(f"PTX is not assembled: {reason}")
        check_failures(checks, layer)
        check_commands(checks, folder, layer.model)
    checks.finish()


if __name__ == "__main__":
    main()
