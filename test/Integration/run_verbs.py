# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""nibble run, verify and bench: archives of arrays in and out, made-up inputs, the cache
of compiled models, and every bad input with the words of its error."""

import pathlib
import shutil
import zipfile

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import support

NIBBLE = support.tool("nibble")


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(
        nodes, "graph", inputs, outputs,
        [numpy_helper.from_array(array, name) for name, array in dict(weights).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def make_net(path, seed=0):
    rng = np.random.default_rng(seed)
    return save(path, [helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
                       helper.make_node("Tanh", ["h"], ["t"], name="bend"),
                       helper.make_node("Add", ["t", "bias"], ["y"], name="shift")],
                [value("x", ["batch", 8]), value("bias", [4])], [value("y", ["batch", 4])],
                {"w": rng.standard_normal((8, 4)).astype(np.float32)})


class Runner:
    def __init__(self, checks, folder):
        self.checks, self.folder = checks, folder
        self.cache = folder / "cache"
        self.cache.mkdir()

    def __call__(self, *words, code=0, says=()):
        done = support.run(shutil.which("env"), f"XDG_CACHE_HOME={self.cache}", NIBBLE, *words)
        text = done.stdout + done.stderr
        self.checks.check(done.code == code and all(word in text for word in says),
                          f"{done}, wanted {code} and {says}")
        return done

    def entries(self):
        folder = self.cache / "nibble"
        return sorted(folder.iterdir()) if folder.exists() else []


def check_run(checks, run, folder, rng):
    model = make_net(folder / "net.onnx")
    x, bias = rng.standard_normal((5, 8), np.float32), rng.standard_normal(4, np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": x, "bias": bias})[0]
    out = folder / "out.npz"
    for save_as in (np.savez, np.savez_compressed):
        save_as(folder / "in.npz", x=x, bias=bias)
        run("run", model, "--inputs", folder / "in.npz", "--outputs", out,
            says=["float32[5, 8]", "y  float32[5, 4]"])
        with np.load(out) as arrays:
            checks.check(arrays.files == ["y"] and np.allclose(arrays["y"], wanted, 1e-5, 1e-5),
                         "numbers")
    checks.check(zipfile.ZipFile(out).testzip() is None, "checksums")
    # The same model comes from the cache, another one does not.
    checks.check(len(run.entries()) == 1, run.entries())
    stamp = (run.entries()[0] / "model.so").stat().st_mtime_ns
    run("run", model, "--random", "--quiet")
    checks.check((run.entries()[0] / "model.so").stat().st_mtime_ns == stamp, "compiled again")
    run("run", make_net(folder / "other.onnx", seed=1), "--random")
    checks.check(len(run.entries()) == 2, "another model has an entry of its own")
    run("run", model, "--random", "--target", "generic")
    checks.check(len(run.entries()) == 3, "another target has an entry of its own")
    # A damaged entry is made again; nothing is kept without the cache.
    for entry in run.entries():
        (entry / "model.so").write_bytes(b"no library")
    run("run", model, "--random")
    shutil.rmtree(run.cache / "nibble")
    run("run", model, "--random", "--no-cache")
    checks.check(not run.entries(), "--no-cache kept something")
    # Made-up inputs: sizes by name, equal for equal seeds.
    run("run", model, "--random", "--dim", "batch=3", "--outputs", out, says=["float32[3, 8]"])
    first = dict(np.load(out))
    run("run", model, "--random", "--dim", "batch=3", "--outputs", out)
    checks.check((dict(np.load(out))["y"] == first["y"]).all(), "one seed")
    run("run", model, "--random", "--dim", "batch=3", "--seed", 1, "--outputs", out)
    checks.check((dict(np.load(out))["y"] != first["y"]).any(), "another seed")
    # Every type of NumPy there and back, rank 0 and no elements.
    for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
                 "float16", "float32", "float64", "bool"):
        number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        same = save(folder / "same.onnx", [helper.make_node("Identity", ["a"], ["b"]),
                                           helper.make_node("Identity", ["s"], ["t"])],
                    [value("a", ["m", "n"], number), value("s", [], number)],
                    [value("b", ["m", "n"], number), value("t", [], number)])
        for shape in ((2, 3), (0, 5)):
            a, s = rng.integers(0, 2, shape).astype(kind), np.ones((), kind)
            np.savez(folder / "in.npz", a=a, s=s)
            run("run", same, "--inputs", folder / "in.npz", "--outputs", out)
            with np.load(out) as arrays:
                checks.check(arrays["b"].dtype == a.dtype and arrays["b"].shape == shape
                             and (arrays["b"] == a).all() and arrays["t"] == s, f"{kind} {shape}")


def check_errors(checks, run, folder):
    model, file = folder / "net.onnx", folder / "bad.npz"
    x, bias = np.ones((5, 8), np.float32), np.ones(4, np.float32)
    kept = {file.name for file in folder.iterdir()} | {"bad.npz"}

    def refuses(says, **arrays):
        np.savez(file, **arrays)
        run("run", model, "--inputs", file, "--outputs", folder / "none.npz", code=1, says=says)

    refuses(["no array for the input 'bias'", "--random"], x=x)
    refuses(["'z'", "no such input", "'x', 'bias'"], x=x, bias=bias, z=x)
    refuses(["'x'", "float64", "float32"], x=x.astype(np.float64), bias=bias)
    refuses(["'x'", "int32"], x=x.astype(np.int32), bias=bias)
    refuses(["'x'", "5x7", "dimension 1"], x=x[:, :7].copy(), bias=bias)
    refuses(["'x'", "1 dimensions, not 2"], x=x[0], bias=bias)
    refuses(["'x'", "column by column"], x=np.asfortranarray(x), bias=bias)
    refuses(["'x'", "little-endian"], x=x.astype(">f4"), bias=bias)
    refuses(["'x'"], x=np.array(["text"]), bias=bias)
    run("run", model, code=1, says=["--inputs", "--random", "'x', 'bias'"])
    run("run", model, "--inputs", folder / "absent.npz", code=1, says=["absent.npz"])
    run("run", model, "--random", "--dim", "rows=2", code=1, says=["rows", "no input"])
    run("run", model, "--random", "--dim", "batch", code=1, says=["NAME=SIZE"])
    run("run", model, "--random", "--dim", "batch=-1", code=1, says=["NAME=SIZE"])
    run("run", model, "--random", "--dim", f"batch={1 << 60}", code=1, says=["1 TiB"])
    run("run", model, "--random", "--target", "vax", code=1, says=["no such target"])
    run("run", folder / "absent.onnx", "--random", code=1, says=["absent.onnx"])
    # Damage anywhere is an error, never a crash or other numbers.
    np.savez_compressed(file, x=x, bias=bias)
    content = file.read_bytes()
    expected = run("run", model, "--inputs", file).stdout
    for position in range(0, len(content), 7):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0x55])
                         + content[position + 1:])
        done = support.run(NIBBLE, "run", model, "--inputs", file, "--no-cache") \
            if position == 0 else support.run(
                shutil.which("env"), f"XDG_CACHE_HOME={run.cache}", NIBBLE, "run", model,
                "--inputs", file)
        checks.check(done.code == 1 or (done.code == 0 and done.stdout == expected), done)
    for size in (0, 10, 100, len(content) - 1):
        file.write_bytes(content[:size])
        run("run", model, "--inputs", file, code=1, says=["bad.npz"])
    left = {file.name for file in folder.iterdir()} - kept
    checks.check(not left, f"left over: {left}")


def check_verify(checks, run, folder):
    model = folder / "net.onnx"
    run("verify", model, "--random", "--dim", "batch=3",
        says=["all 3 values agree", "all 1 outputs of the whole model agree"])
    # A tolerance below zero, which not even equal numbers meet, names the first op.
    run("verify", model, "--random", "--tolerance", "-1", code=1,
        says=["first difference: node 'product' (MatMul), value 'h' float32[1, 4]",
              "3 of 3 values differ"])


def check_bench(checks, run, folder):
    done = run("bench", folder / "net.onnx", "--random", "--dim", "batch=64", "--repeat", 3,
               says=["3 calls", "ms median", "GB/s", "GOP/s", "ONNX Runtime"])
    # 2 · 64 · 8 · 4 operations.
    checks.check("0.000 GOP" in done.stdout, done.stdout)
    run("bench", says=["threads          1", "GB/s read", "f32 multiply-add"])


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        run = Runner(checks, folder)
        check_run(checks, run, folder, np.random.default_rng(0))
        check_errors(checks, run, folder)
        check_verify(checks, run, folder)
        check_bench(checks, run, folder)
    checks.finish("checks of run, verify and bench")


if __name__ == "__main__":
    main()
