# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""Compiles models to libraries and uses them from Python, C and C++: numbers against
ONNX Runtime, every error with its code and message, weights in files, several
instruction sets, threads, and what stays on disk."""

import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import compiled
import support
from compiled import Model, ModelError

NIBBLE = support.tool("nibble")


def make_model(nodes, inputs, outputs, weights=(), opset=21):
    graph = helper.make_graph(
        nodes, "graph", inputs, outputs,
        [numpy_helper.from_array(array, name) for name, array in dict(weights).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)],
                             ir_version=10)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def make_net(rows=3, columns=4, seed=0):
    """y = relu(x · w + b), and chosen rows of it."""
    rng = np.random.default_rng(seed)
    weights = {"w": rng.standard_normal((rows, columns)).astype(np.float32),
               "b": rng.standard_normal(columns).astype(np.float32)}
    return make_model(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
         helper.make_node("Add", ["h", "b"], ["s"], name="bias"),
         helper.make_node("Relu", ["s"], ["y"], name="activation"),
         helper.make_node("Gather", ["y", "picks"], ["chosen"], name="choose")],
        [value("x", ["batch", rows]), value("picks", ["n"], TensorProto.INT64)],
        [value("y", ["batch", columns]), value("chosen", ["n", columns])], weights)


def compile_model(folder, name, model, *options, ending=".so", environment=()):
    path = folder / f"{name}.onnx"
    if model is not None:
        path.write_bytes(model.SerializeToString())
    words = [NIBBLE, "compile", path, "-o", folder / f"{name}{ending}", *options]
    return support.run(*([shutil.which("env"), *environment] if environment else []), *words)


def expected(model, *arrays):
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], arrays)))


def same(actual, wanted, tolerance=1e-5):
    return len(actual) == len(wanted) and all(
        a.shape == w.shape and a.dtype == w.dtype and np.allclose(a, w, tolerance, tolerance)
        for a, w in zip(actual, wanted))


def fails(checks, status, words, call):
    """`call` must raise an error with that status whose message has all the words."""
    try:
        call()
    except ModelError as error:
        checks.check(error.status == status and all(w in error.message for w in words),
                     f"wanted {status} with {words}, got {error}")
        return
    checks.check(False, f"no error with {words}")


def check_numbers(checks, folder, rng):
    model = make_net()
    done = compile_model(folder, "net", model)
    checks.check(done.code == 0, done)
    net = Model(folder / "net.so", "net")
    for batch in (1, 2, 7):
        x, picks = rng.standard_normal((batch, 3), np.float32), rng.integers(0, batch, 5)
        checks.check(same(net.run(x, picks), expected(model, x, picks)), f"batch {batch}")
        checks.check(net.output_shapes(x, picks) == [(batch, 4), (5, 4)], "output shapes")
    names = [[v.name.decode() for v in values] for values in (net.inputs, net.outputs)]
    checks.check(names == [["x", "picks"], ["y", "chosen"]], names)
    x = net.inputs[0]
    checks.check((x.shape[0], x.shape[1], x.dimensions[0]) == (-1, 3, b"batch"), "description")
    # No rows and no picks.
    empty = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    checks.check(same(net.run(*empty), [np.zeros((0, 4), np.float32)] * 2), "empty input")
    net.close()
    # Rank 0, and an output that is an input.
    model = make_model([helper.make_node("Neg", ["a"], ["b"]),
                        helper.make_node("Identity", ["a"], ["c"])],
                       [value("a", [])], [value("b", []), value("c", [])])
    checks.check(compile_model(folder, "scalar", model).code == 0, "scalar")
    scalar = Model(folder / "scalar.so", "scalar")
    a = np.float32(2.5).reshape(())
    checks.check(same(scalar.run(a), [-a, a]), "a scalar")
    # Every type that the interface may carry.
    for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
                 "float16", "float32", "float64", "bool"):
        number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        model = make_model([helper.make_node("Reshape", ["a", "s"], ["b"])],
                           [value("a", ["m", "n"], number)], [value("b", ["k"], number)],
                           {"s": np.array([-1])})
        checks.check(compile_model(folder, f"t_{kind}", model).code == 0, kind)
        library = Model(folder / f"t_{kind}.so", f"t_{kind}")
        a = rng.integers(0, 2, (3, 5)).astype(kind)
        checks.check(same(library.run(a), [a.reshape(-1)]), kind)


def check_arguments(checks, folder):
    net = Model(folder / "net.so", "net")
    x, picks = np.ones((2, 3), np.float32), np.zeros(1, np.int64)
    bad = compiled.INVALID_ARGUMENT
    cases = [
        (["'x'", "float64", "float32"], (x.astype(np.float64), picks)),
        (["'picks'", "int32", "int64"], (x, picks.astype(np.int32))),
        (["'x'", "3 dimensions, not 2"], (x[None], picks)),
        (["'x'", "2x4", "dimension 1", "3"], (np.ones((2, 4), np.float32), picks)),
        (["'x'", "row-major"], (np.asfortranarray(x), picks)),
        (["'x'", "row-major"], (np.ones((2, 6), np.float32)[:, ::2], picks)),
        (["2 inputs, not 1"], (x,)),
        (["2 inputs, not 3"], (x, picks, picks)),
    ]
    for words, arrays in cases:
        fails(checks, bad, words, lambda arrays=arrays: net.run(*arrays))

    def run_changed(change, outputs=None):
        inputs = (compiled.Tensor * 2)(compiled.to_tensor(x), compiled.to_tensor(picks))
        outputs = outputs or (compiled.Tensor * 2)()
        change(inputs, outputs)
        net.run_tensors(inputs, outputs)

    def change(index, **fields):
        def apply(inputs, outputs):
            for name, new in fields.items():
                setattr(inputs[index], name, new)
        return apply

    fails(checks, bad, ["'x'", "no data"], lambda: run_changed(change(0, data=None)))
    fails(checks, bad, ["'x'", "no shape"], lambda: run_changed(change(0, shape=None)))
    fails(checks, bad, ["'x'", "aligned"],
          lambda: run_changed(change(0, data=x.ctypes.data + 1)))
    fails(checks, bad, ["'x'", "device 2"],
          lambda: run_changed(change(0, device=compiled.Device(2, 0))))
    fails(checks, bad, ["'x'", "-3 dimensions"], lambda: run_changed(change(0, ndim=-3)))
    huge = (ctypes.c_int64 * 2)(1 << 62, 3)
    fails(checks, bad, ["'x'", "more bytes"], lambda: run_changed(change(0, shape=huge)))
    negative = (ctypes.c_int64 * 2)(-1, 3)
    fails(checks, bad, ["'x'", "negative"], lambda: run_changed(change(0, shape=negative)))
    fails(checks, bad, ["inputs are NULL"], lambda: net.check(net.function("run")(
        net.handle, None, ctypes.c_size_t(2), (compiled.Tensor * 2)(), ctypes.c_size_t(2))))
    fails(checks, bad, ["2 outputs, not 1"],
          lambda: run_changed(lambda *_: None, (compiled.Tensor * 1)()))
    small = np.zeros((1, 4), np.float32)
    outputs = (compiled.Tensor * 2)(compiled.to_tensor(small))
    fails(checks, bad, ["'y'", "2x4", "1x4"], lambda: run_changed(lambda *_: None, outputs))
    checks.check(not small.any(), "a place that is too small was written to")
    fails(checks, bad, ["model is NULL"], lambda: net.check(net.function("run")(
        None, None, ctypes.c_size_t(0), None, ctypes.c_size_t(0))))
    fails(checks, bad, ["NULL"], lambda: net.check(net.function("create")(None, None)))

    # Two inputs that share a dimension.
    model = make_model([helper.make_node("Add", ["a", "b"], ["c"])],
                       [value("a", ["n"]), value("b", ["n"])], [value("c", ["n"])])
    checks.check(compile_model(folder, "pair", model).code == 0, "pair")
    pair = Model(folder / "pair.so", "pair")
    fails(checks, bad, ["'b'", "(n)", "4"], lambda: pair.run(
        np.ones(4, np.float32), np.ones(3, np.float32)))
    # More than there is memory for, and more than there are addresses for.
    model = make_model([helper.make_node("Expand", ["a", "s"], ["b"], name="grow")],
                       [value("a", [1]), value("s", [2], TensorProto.INT64)],
                       [value("b", ["m", "n"])])
    checks.check(compile_model(folder, "grow", model).code == 0, "grow")
    grow = Model(folder / "grow.so", "grow")
    one = np.ones(1, np.float32)
    checks.check(grow.run(one, np.array([2, 3]))[0].shape == (2, 3), "grow")
    for sizes in ([1 << 45, 1], [1 << 40, 1 << 40], [1 << 31, 1 << 31]):
        fails(checks, compiled.OUT_OF_MEMORY, ["bytes"], lambda: grow.run(one, np.array(sizes)))
    checks.check(grow.run(one, np.array([0, 3]))[0].shape == (0, 3), "usable after errors")


def check_weights(checks, folder, rng):
    # Weights of this size are arguments of the code.
    model, other = make_net(64, 64), make_net(64, 64, seed=1)
    for name, each in (("big", model), ("other", other)):
        checks.check(compile_model(folder, name, each, "--weights", "file").code == 0, name)
    weights = folder / "big.weights"
    checks.check(weights.stat().st_size > 64 * 64 * 4, "weights are in the file")
    x, picks = rng.standard_normal((2, 64), np.float32), np.array([1])
    big = Model(folder / "big.so", "big")
    checks.check(same(big.run(x, picks), expected(model, x, picks), 1e-4), "weights in a file")
    moved = folder / "moved.bin"
    weights.rename(moved)
    given = Model(folder / "big.so", "big", moved)
    checks.check(same(given.run(x, picks), expected(model, x, picks), 1e-4), "a given path")
    checks.check(same(big.run(x, picks), expected(model, x, picks), 1e-4), "after a move")
    bad, create = compiled.BAD_WEIGHTS, lambda path=None: Model(folder / "big.so", "big", path)
    fails(checks, bad, ["big.weights", "No such file"], create)
    fails(checks, bad, ["another model"], lambda: create(folder / "other.weights"))
    fails(checks, bad, ["directory"], lambda: create(folder))
    content = moved.read_bytes()
    for size, words in ((0, ["empty"]), (10, ["no file of weights"]), (64, ["truncated"]),
                        (len(content) - 1, ["truncated", str(len(content))])):
        weights.write_bytes(content[:size])
        fails(checks, bad, ["big.weights"] + words, create)
    weights.write_bytes(content + b"x")
    fails(checks, bad, ["big.weights", "changed"], create)
    weights.write_bytes(b"X" + content[1:])
    fails(checks, bad, ["no file of weights"], create)
    # Embedded weights need no file.
    done = compile_model(folder, "inside", model, "--weights", "embed")
    checks.check(done.code == 0 and not (folder / "inside.weights").exists(), done)
    inside = Model(folder / "inside.so", "inside")
    checks.check(same(inside.run(x, picks), expected(model, x, picks), 1e-4), "embedded")


def check_targets(checks, folder, rng):
    model = make_net(64, 64)
    x, picks = rng.standard_normal((3, 64), np.float32), np.array([2, 0])
    rows = support.run(NIBBLE, "compile", folder / "net.onnx", "--target", "nothing",
                       "--emit", "onnx").stderr
    rows = [word for word in rows.split("there are ")[-1].split(" and multi")[0].strip()
            .split(", ") if word not in ("native", "generic")]
    checks.check(len(rows) >= 9, rows)
    run_here = []
    for row in rows:
        name = "r_" + "".join(c if c.isalnum() else "_" for c in row)
        done = compile_model(folder, name, model, "--target", row)
        checks.check(done.code == 0 and row in done.stdout, done)
        if row.split("+")[0].split("-v")[0].replace("-", "_") != os.uname().machine:
            continue
        try:
            library = Model(folder / f"{name}.so", name)
        except ModelError as error:
            checks.check(error.status == compiled.NO_CPU and row in error.message, error)
            continue
        run_here.append(row)
        checks.check(same(library.run(x, picks), expected(model, x, picks), 1e-4), row)
        checks.check(library.target == row, library.target)
    print("ran:", run_here, "not this machine's:", sorted(set(rows) - set(run_here)))
    checks.check(compile_model(folder, "all", model, "--target", "multi").code == 0, "multi")
    library = Model(folder / "all.so", "all")
    checks.check(library.target == run_here[-1], f"multi chose {library.target}")
    checks.check(same(library.run(x, picks), expected(model, x, picks), 1e-4), "multi")


def check_threads(checks, folder, rng):
    """Any number of threads may run a model; errors stay with their thread."""
    net, model, wrong = Model(folder / "net.so", "net"), make_net(), []
    data = [(rng.standard_normal((n, 3), np.float32), np.arange(n)) for n in range(1, 5)]
    wanted = [expected(model, *arrays) for arrays in data]

    def work(arrays, result):
        for _ in range(200):
            if not same(net.run(*arrays), result):
                wrong.append("numbers")
            try:
                net.run(arrays[0][:, :len(arrays[1]) % 3], arrays[1])
                wrong.append("no error")
            except ModelError as error:
                if f"{len(arrays[1])}x{len(arrays[1]) % 3}" not in error.message:
                    wrong.append(error.message)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(data, wanted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checks.check(not wrong, wrong[:3])


def check_consumers(checks, folder):
    model = make_net()
    source = support.SOURCE_DIR / "test/Integration/Inputs/consumer.c"
    x = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    wanted = [f"{n:g}" for a in expected(model, x, np.array([1, 0, 1])) for n in a.ravel()]
    if not shutil.which("cc"):
        print("C and C++ consumers: skipped, there is no cc")
        return
    for ending in (".a", ".o"):
        checks.check(compile_model(folder, "net", model, ending=ending).code == 0, ending)
    warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{folder}"]
    for label, start, file in [
            ("C", ["cc", "-std=c99"], "net.so"), ("C, archive", ["cc", "-std=c11"], "net.a"),
            ("C, object", ["cc", "-std=c17"], "net.o"),
            ("C++", ["c++", "-std=c++11", "-x", "c++"], "net.so"),
            ("ASan", ["cc", "-std=c99", "-g", "-fsanitize=address,undefined"], "net.a")]:
        program = folder / "consumer"
        done = support.run(*start, *warnings, source, "-x", "none", folder / file, "-o",
                           program, "-l:libomp.so.5", "-lm", f"-Wl,-rpath,{folder}")
        if label == "ASan" and done.code:
            print("under AddressSanitizer: skipped, cc cannot link it")
            continue
        checks.check(done.code == 0, done)
        done = support.run(program)
        lines = done.stdout.splitlines()
        checks.check(done.code == 0 and lines[0] == "y 2x4 chosen 3x4"
                     and lines[1].split() == wanted and "float64" in lines[2],
                     f"{label}: {done}, wanted {wanted}")


ENDLESS = """
func.func @main(%limit: tensor<1xi64>) -> tensor<1xi64> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0 : i64
  %one = arith.constant 1 : i64
  %n = tensor.extract %limit[%c0] : tensor<1xi64>
  %ok = arith.cmpi ne, %n, %zero : i64
  cf.assert %ok, "node 'wait': a limit of 0 makes no sense"
  %r = scf.while (%i = %zero) : (i64) -> i64 {
    %more = arith.cmpi ne, %i, %n : i64
    scf.condition(%more) %i : i64
  } do {
  ^bb0(%i: i64):
    %next = arith.addi %i, %one : i64
    scf.yield %next : i64
  }
  %e = tensor.empty() : tensor<1xi64>
  %result = tensor.insert %r into %e[%c0] : tensor<1xi64>
  return %result : tensor<1xi64>
}
"""


def check_runs(checks, folder):
    """Checks at run time, and a loop that does not end by itself."""
    (folder / "wait.mlir").write_text(ENDLESS)
    done = support.run(NIBBLE, "compile", folder / "wait.mlir", "-o", folder / "wait.so")
    checks.check(done.code == 0, done)
    wait = Model(folder / "wait.so", "wait")
    checks.check(wait.run(np.array([7]))[0] == 7, "a loop that ends")
    fails(checks, compiled.INVALID_VALUE, ["node 'wait': a limit of 0 makes no sense"],
          lambda: wait.run(np.array([0])))
    stop = ctypes.c_int(0)
    timer = threading.Timer(0.2, lambda: setattr(stop, "value", 1))
    timer.start()
    fails(checks, compiled.INTERRUPTED, ["interrupted"],
          lambda: wait.run(np.array([-1]), stop=stop))
    timer.join()
    stop.value = 0
    checks.check(wait.run(np.array([3]), stop=stop)[0] == 3, "after an interrupt")


def check_needs(checks, folder):
    """Nothing but libc, libm and the OpenMP runtime, and no symbols but the interface."""
    readelf = shutil.which("llvm-readelf") or shutil.which("readelf")
    if readelf:
        text = support.run(readelf, "-d", folder / "net.so").stdout
        needed = sorted(line.split("[")[1].rstrip("]") for line in text.splitlines()
                        if "NEEDED" in line)
        checks.check(needed == ["libc.so.6", "libm.so.6", "libomp.so.5"], needed)
    nm = shutil.which("llvm-nm") or shutil.which("nm")
    if nm:
        text = support.run(nm, "-D", "--defined-only", folder / "net.so").stdout
        names = {line.split()[-1] for line in text.splitlines()}
        checks.check(names and all(name.startswith("net_") for name in names), names)


PARALLEL = """
llvm.func @omp_get_max_threads() -> i32
func.func @main(%x: tensor<1xi32>) -> tensor<1xi32> {
  %c0 = arith.constant 0 : index
  %n = llvm.call @omp_get_max_threads() : () -> i32
  %r = tensor.insert %n into %x[%c0] : tensor<1xi32>
  return %r : tensor<1xi32>
}
"""


def check_openmp(checks, folder):
    """Code that uses the OpenMP runtime names it, and finds it."""
    (folder / "team.mlir").write_text(PARALLEL)
    done = support.run(NIBBLE, "compile", folder / "team.mlir", "-o", folder / "team.so")
    checks.check(done.code == 0, done)
    checks.check(b"libomp.so.5" in (folder / "team.so").read_bytes(), "names the runtime")
    try:
        team = Model(folder / "team.so", "team")
    except OSError as error:
        print(f"code with OpenMP: not run, {error}")
        return
    checks.check(team.run(np.zeros(1, np.int32))[0] >= 1, "threads")


def check_stages(checks, folder):
    path = folder / "net.onnx"
    opt = support.tool("nibble-opt")
    words = {"onnx": 'onnx.node "MatMul"', "linalg": "linalg.", "nibble": "linalg.",
             "loops": "scf.for", "llvm": "llvm.func"}
    for stage, word in words.items():
        file = folder / f"{stage}.mlir"
        done = support.run(NIBBLE, "compile", path, "--emit", stage, "-o", file)
        checks.check(done.code == 0 and word in file.read_text(), done)
        again = support.run(opt, file)
        checks.check(again.code == 0 and again.stdout == file.read_text(), again)
    done = support.run(NIBBLE, "compile", path, "--emit", "llvm-ir")
    checks.check("i32 @net_run(" in done.stdout, "llvm-ir")
    done = support.run(NIBBLE, "compile", path, "--emit", "asm", "--target", "aarch64")
    checks.check("\tret" in done.stdout and "net_run:" in done.stdout, "asm")
    done = support.run(NIBBLE, "compile", path, "--emit", "obj", "-o", folder / "stage.o")
    checks.check((folder / "stage.o").read_bytes()[:4] == b"\x7fELF", "obj")


def check_files(checks, folder):
    """What is on disk after an error."""
    case = folder / "files"
    case.mkdir()
    model = make_net(64, 64)

    def refuses(words, *options, name="net", ending=".so", given=model, environment=()):
        done = compile_model(case, name, given, *options, ending=ending,
                             environment=environment)
        left = {file.name for file in case.iterdir()} - {f"{name}.onnx"}
        checks.check(done.code == 1 and all(w in done.stderr for w in words) and not left,
                     f"{done} left {left}")

    refuses([".so, .o or .a"], ending=".dll")
    refuses(["no such target", "x86-64-v3"], "--target", "i386")
    refuses(["not the start of a C name"], "--name", "1x")
    refuses(["cannot write"], ending="/x.so")
    refuses(["linker", "lld"], environment=["PATH=/nowhere"])
    text = make_model([helper.make_node("Neg", ["a"], ["b"])],
                      [value("a", [2], TensorProto.STRING)],
                      [value("b", [2], TensorProto.STRING)])
    refuses(["'a'", "no tensor of numbers"], given=text)
    unknown = make_model([helper.make_node("Mystery", ["a"], ["b"], name="odd", domain="x.y")],
                         [value("a", [2])], [value("b", [2])])
    refuses(["Mystery", "odd"], given=unknown)
    os.remove(case / "net.onnx")
    # An interrupt while the weights are written.
    rng = np.random.default_rng(0)
    large = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", ["n", 4096])],
        [value("y", ["n", 8192])], {"w": rng.random((4096, 8192), np.float32)})
    (case / "large.onnx").write_bytes(large.SerializeToString())
    for delay in (0.05, 0.15, 0.3, 0.45, 0.6):
        child = subprocess.Popen([NIBBLE, "compile", case / "large.onnx", "-o",
                                  case / "large.so", "--quiet"])
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        code = child.wait(60)
        left = sorted(file.name for file in case.iterdir())
        whole = ["large.h", "large.onnx", "large.so", "large.weights"]
        checks.check(left == (whole if code == 0 else ["large.onnx"]) or
                     not any("partial" in name for name in left), f"{delay}: {code} {left}")
        for name in set(left) - {"large.onnx"}:
            os.remove(case / name)


def main():
    checks = support.Checks()
    rng = np.random.default_rng(0)
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        check_numbers(checks, folder, rng)
        check_arguments(checks, folder)
        check_weights(checks, folder, rng)
        check_targets(checks, folder, rng)
        check_threads(checks, folder, rng)
        check_runs(checks, folder)
        check_needs(checks, folder)
        check_openmp(checks, folder)
        check_consumers(checks, folder)
        check_stages(checks, folder)
        check_files(checks, folder)
    checks.finish("checks of compiled libraries")


if __name__ == "__main__":
    main()
