# RUN: %python %s
# REQUIRES: numpy, onnx
"""`nibble quantize --calib`, ended at any moment, goes on with --resume: the file is the one
that an undisturbed run writes, and no unit of work is done twice."""

import collections
import os
import pathlib
import random
import signal
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import support

NIBBLE = support.tool("nibble")
WIDTH, LAYERS, TOKENS = 192, 6, 32


def model(generator):
    """Layers with residual connections, some of whose channels are larger than others."""
    nodes, weights = [], []

    def weight(name, *shape):
        sizes = np.exp(generator.standard_normal(shape[1])) if name.startswith("up") else 1
        values = generator.standard_normal(shape) * sizes / np.sqrt(shape[0])
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    for i in range(LAYERS):
        up, down = weight(f"up{i}", WIDTH, 2 * WIDTH), weight(f"down{i}", 2 * WIDTH, WIDTH)
        nodes += [
            helper.make_node("MatMul", [f"h{i}", up], [f"wide{i}"]),
            helper.make_node("Relu", [f"wide{i}"], [f"active{i}"]),
            helper.make_node("MatMul", [f"active{i}", down], [f"narrow{i}"]),
            helper.make_node("Add", [f"h{i}", f"narrow{i}"], [f"h{i + 1}"]),
        ]
    ends = [helper.make_tensor_value_info(f"h{i}", TensorProto.FLOAT, ["n", TOKENS, WIDTH])
            for i in (0, LAYERS)]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def quantize(folder, *options, output="q.onnx", **how):
    return support.run(NIBBLE, "quantize", "m.onnx", "-o", output, "--calib", "x.npz",
                       "--scheme", "w4g32", "--no-evaluate", *options, cwd=folder, **how)


def finished(folder):
    """The units that the log says are done."""
    log = folder / "q.onnx.journal" / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split("\t")[0][len("done "):] for line in lines if line.startswith("done ")]


def has_ended(process):
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def stop_after(seconds):
    def stop(process):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not has_ended(process):
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    return stop


def stop_after_units(folder, count, number=signal.SIGKILL):
    """Sends the signal as soon as so many units are done."""
    def stop(process):
        while len(finished(folder)) < count and not has_ended(process):
            time.sleep(0.001)
        os.kill(process.pid, number)
    return stop


def check_kills(folder, checks, options, expected, kills):
    """Ended at random moments of the whole run, again and again."""
    moments = random.Random(len(options))
    seconds = quantize(folder, *options, output="timed.onnx").seconds
    for _ in range(200):
        before = finished(folder)
        done = quantize(folder, "--resume", *options,
                        on_start=stop_after(moments.uniform(0, seconds)))
        # A kill may also come between the last step and the end of the process.
        if done.code == 0 or not (folder / "q.onnx.journal").exists() and before:
            checks.check((folder / "q.onnx").read_bytes() == expected,
                         f"{options}: not the file of an undisturbed run")
            checks.check(not (folder / "q.onnx.journal").exists(), "the journal stays")
            (folder / "q.onnx").unlink()
            if kills <= 0:
                return
            continue
        kills -= 1
        checks.check(done.code == -signal.SIGKILL, done)
        after = finished(folder)
        checks.check(after[:len(before)] == before, f"{before} became {after}")
        twice = [unit for unit, count in collections.Counter(after).items() if count > 1]
        checks.check(not twice, f"done twice: {twice}")
    checks.check(False, f"{kills} kills too few")


def check_every_unit(folder, checks, options, expected):
    """Ended as soon as one more unit is done, until all are."""
    for count in range(1, 100):
        done = quantize(folder, "--resume", *options, on_start=stop_after_units(folder, count))
        if done.code == 0:
            break
        checks.check(len(finished(folder)) in (count, count + 1), f"{finished(folder)} at {count}")
    checks.check(count > 2 * LAYERS, f"{count} units")
    checks.check((folder / "q.onnx").read_bytes() == expected, f"{options}: another file")


def interrupted(folder, count=3):
    return quantize(folder, on_start=stop_after_units(folder, count, signal.SIGINT))


def check_interrupt(folder, checks, expected):
    (folder / "q.onnx").unlink(missing_ok=True)
    before = set(folder.iterdir())
    done = interrupted(folder)
    checks.check(done.code == 130 and "--resume" in done.stderr, done)
    checks.check("q.onnx.journal" in done.stderr, done)
    left = set(folder.iterdir()) - before
    checks.check(left == {folder / "q.onnx.journal"}, left)

    done = quantize(folder)
    checks.check(done.code == 1 and "--resume" in done.stderr, done)
    units = finished(folder)
    done = quantize(folder, "--resume")
    checks.check(done.code == 0 and f"{len(units)} units of work are done" in done.stderr, done)
    checks.check((folder / "q.onnx").read_bytes() == expected, "another file after SIGINT")


def check_refusals(folder, checks):
    interrupted(folder)
    journal = folder / "q.onnx.journal"
    units = finished(folder)
    np.savez(folder / "y.npz", h0=np.load(folder / "x.npz")["h0"] + 1)
    other = model(np.random.default_rng(6))
    onnx.save(other, folder / "n.onnx")
    command = [NIBBLE, "quantize", "-o", "q.onnx", "--no-evaluate", "--resume"]
    for arguments, reason in (
            (["m.onnx", "--scheme", "w4g32", "--calib", "y.npz"], "data are others (x.npz)"),
            (["n.onnx", "--scheme", "w4g32", "--calib", "x.npz"], "other weights (m.onnx)"),
            (["m.onnx", "--scheme", "w4g64", "--calib", "x.npz"], "schemes are others"),
            (["m.onnx", "--scheme", "w4g32", "--calib", "x.npz", "--damping", "0.02"],
             "options are others (--method auto --damping 0.01")):
        done = support.run(*command, *arguments, cwd=folder)
        checks.check(done.code == 1 and reason in done.stderr, f"{reason}: {done}")
        checks.check("q.onnx.journal" in done.stderr, done)
    checks.check(finished(folder) == units, "a refused journal was changed")

    # Damage: in a file of a unit, and at the end of the log.
    weights = sorted(journal.glob("*.mlirbc"))[0]
    intact = weights.read_bytes()
    weights.write_bytes(intact[:100] + bytes([intact[100] ^ 1]) + intact[101:])
    done = quantize(folder, "--resume")
    checks.check(done.code == 1 and "damaged" in done.stderr and weights.name in done.stderr, done)
    weights.write_bytes(intact)
    log = journal / "log"
    text = log.read_text()
    log.write_text(text.replace("nibble journal 1", "nibble journal 99"))
    done = quantize(folder, "--resume")
    checks.check(done.code == 1 and "version" in done.stderr, done)
    log.write_text(text + "done observe 99\t00")
    done = quantize(folder, "--resume")
    checks.check(done.code == 0 and not journal.exists(), done)

    # A folder that is something else.
    journal.mkdir()
    (journal / "mine").write_text("mine")
    done = quantize(folder)
    checks.check(done.code == 1 and "in the way" in done.stderr, done)
    checks.check((journal / "mine").exists(), "a stranger's file was removed")
    (journal / "mine").unlink()
    journal.rmdir()


def check_full_disk(folder, checks, expected):
    """A file system that takes some units and no more: they are kept, and count once there is
    room."""
    (folder / "small").mkdir()
    script = """mount -t tmpfs -o size=3300k none small && cd small && ln -s ../m.onnx ../x.npz .
"$@"; echo "code $?" >&2
mount -o remount,size=64m "$PWD" && "$@" --resume && cp q.onnx ../full.onnx"""
    command = [NIBBLE, "quantize", "m.onnx", "-o", "q.onnx", "--calib", "x.npz", "--scheme",
               "w4g32", "--no-evaluate"]
    for options in (["--mount"], ["--map-root-user", "--mount"]):
        mounted = ["unshare", *options, "sh", "-c"]
        if support.run(*mounted, "mount -t tmpfs none small", cwd=folder).code:
            continue
        done = support.run(*mounted, script, "sh", *command, cwd=folder)
        checks.check("code 1" in done.stderr and "No space left" in done.stderr, done)
        checks.check("units of work are done" in done.stderr, done)
        checks.check((folder / "full.onnx").read_bytes() == expected, done)
        return
    print("full disk: not checked, no small file system can be mounted here")


def main():
    checks = support.Checks()
    generator = np.random.default_rng(5)
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        onnx.save(model(generator), folder / "m.onnx")
        samples = generator.standard_normal((12, TOKENS, WIDTH)).astype(np.float32)
        np.savez(folder / "x.npz", h0=samples)
        expected = {}
        plain, sparse = ["--method", "recipe"], ["--method", "spqr+recipe"]
        for options in ([], ["--sequential"], plain, sparse):
            done = quantize(folder, *options)
            checks.check(done.code == 0, done)
            checks.check(not (folder / "q.onnx.journal").exists(), "the journal stays")
            expected[tuple(options)] = (folder / "q.onnx").read_bytes()
        checks.check(len(set(expected.values())) == 4, "options change nothing")
        for options, kills in (([], 20), (["--sequential"], 10), (plain, 5)):
            check_kills(folder, checks, options, expected[tuple(options)], kills)
        for options in (["--sequential"], [], sparse):
            check_every_unit(folder, checks, options, expected[tuple(options)])
        expected = expected[()]
        check_interrupt(folder, checks, expected)
        check_refusals(folder, checks)
        check_full_disk(folder, checks, expected)
    checks.finish()


main()
