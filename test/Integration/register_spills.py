# RUN: %python %s
# REQUIRES: numpy, onnx
"""The loops along K keep sums, weights and activations in registers: in the assembly of the
kernels, no innermost loop that multiplies reads or writes a fixed place of the stack with
a vector instruction. (Integer kernels of AVX2 do: docs/Roadmap.md.)"""

import pathlib
import re

import numpy as np
import onnx

import kernels
import support

# Row, compute, what multiplies, vector registers.
CASES = [("x86-64-v3", "f32", "vfmadd", "%ymm"), ("x86-64-v4+vnni", "f32", "vfmadd", "%zmm"),
         ("x86-64-v4+vnni", "i8", "vpdpbusd", "%zmm")]
LABEL = re.compile(r"(\.LBB\w+):")
JUMP = re.compile(r"\s+j\w+\s+(\.LBB\w+)")
FUNCTION = re.compile(r"(nibble_\w+):")
# Without an index: buffers on the stack are read with one.
FIXED_PLACE = re.compile(r"-?\d*\(%rsp\)")


def find_functions(assembly):
    """Lines of each kernel by its name."""
    functions, current = {}, None
    for line in assembly.splitlines():
        if start := FUNCTION.match(line):
            current = functions.setdefault(start[1], [])
        elif current is not None:
            current.append(line)
    return functions


def find_inner_loops(lines):
    """Lines of the loops that hold no other one."""
    labels = {match[1]: i for i, line in enumerate(lines) if (match := LABEL.match(line))}
    spans = []
    for end, line in enumerate(lines):
        jump = JUMP.match(line)
        if jump and labels.get(jump[1], end) < end:
            spans.append((labels[jump[1]], end))
    for first, last in spans:
        holds = any(first <= other and end <= last and (other, end) != (first, last)
                    for other, end in spans)
        if not holds:
            yield lines[first:last + 1]


def check_row(checks, path, row, compute, product, vector):
    assembly = support.must_run(support.tool("nibble"), "compile", path, "--target", row,
                                "--compute", compute, "--emit", "asm", timeout=300).stdout
    loops = 0
    for name, lines in find_functions(assembly).items():
        # A group of 16 is one step: its loop is that over groups, with totals beside sums.
        if "g16_" in name:
            continue
        for loop in find_inner_loops(lines):
            if not any(product in line for line in loop):
                continue
            loops += 1
            spills = [line for line in loop
                      if FIXED_PLACE.search(line) and vector in line]
            checks.check(not spills, lambda: f"{row} {name}: {len(spills)} of {len(loop)} "
                                             f"instructions:\n" + "\n".join(spills[:4]))
    # Each regime and size of a block of rows has one.
    checks.check(loops >= 4, f"{row} {compute}: {loops} loops that multiply")
    print(f"{row} {compute}: {loops} loops")


def main():
    checks = support.Checks()
    model, _ = kernels.make_model(np.random.default_rng(3))
    with support.scratch() as name:
        path = pathlib.Path(name) / "kernels.onnx"
        onnx.save(model, path)
        for case in CASES:
            check_row(checks, path, *case)
    checks.finish()


if __name__ == "__main__":
    main()
