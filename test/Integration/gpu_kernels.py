# RUN: %python %s
"""NVIDIA's own assembler takes the PTX of every kernel that `nibble kernels` writes by
default, for every GPU it knows, without a spill, a stack frame or a serialized wgmma.

ptxas comes from PATH or from a Python package that pip fetches into the build; where there
is none, the test is skipped. Prints registers and shared memory, the table in
docs/Performance.md.
"""

import concurrent.futures
import json
import os
import pathlib

import support
from ptxas import assemble, find_ptxas

NIBBLE = support.tool("nibble")
# Code for the rows between differs from that for sm_80 in little but PTX's version.
EXAMPLES = ("n32x1_m8_k8_s4", "n32x1_m32_k4_s4", "n32x8_m64_k1_s4")
RUNS = (("nvidia-sm80", "w4g128s", ()), ("nvidia-sm80", "w4g32", ()),
        ("nvidia-sm86", "w4g128", EXAMPLES), ("nvidia-sm89", "w4c", EXAMPLES),
        ("nvidia-sm90", "w4g128", EXAMPLES),
        ("nvidia-sm90a", "w4g128s", ()), ("nvidia-sm90a", "w4g32", ()),
        ("nvidia-sm80", "w8g32", ()), ("nvidia-sm90a", "w8g128", ()),
        ("nvidia-sm80", "nf4g32", ()), ("nvidia-sm90a", "nf4g64", ()),
        ("nvidia-sm80", "f8E4M3FNg32", ()), ("nvidia-sm90a", "f8E4M3FNg128", ()),
        ("nvidia-sm89", "f8E5M2c", EXAMPLES))


def main():
    ptxas, reason = find_ptxas()
    if not ptxas:
        support.skip(f"no ptxas: {reason}")
    checks = support.Checks()
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        rows = {}
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = []
            for target, scheme, tiles in RUNS:
                place = folder / target / scheme
                support.must_run(NIBBLE, "kernels", "-o", place, "--target", target,
                                 "--scheme", scheme,
                                 *(word for tile in tiles for word in ("--tile", tile)))
                listing = json.loads((place / "kernels.json").read_text())
                for kernel in listing["kernels"]:
                    jobs.append((target, kernel, pool.submit(
                        assemble, ptxas, place / kernel["file"], listing["chip"])))
            for target, kernel, job in jobs:
                wrong, registers = job.result()
                checks.check(not wrong, f"{kernel['name']} for {target}: {wrong}")
                budget = 65536 // kernel["threads"]
                checks.check(registers <= budget,
                             f"{kernel['name']}: {registers} registers, {budget} are there")
                rows.setdefault(kernel["name"], {})[target] = registers
                rows[kernel["name"]]["shared"] = kernel["shared_bytes"]
        targets = list(dict.fromkeys(target for target, _, _ in RUNS))
        columns = [target.removeprefix("nvidia-") for target in targets]
        print("| kernel | shared memory | registers: " + " | ".join(columns) + " |")
        print("|---" * (2 + len(columns)) + "|")
        for name, row in rows.items():
            print(f"| `{name}` | {row['shared'] >> 10} KiB | "
                  + " | ".join(str(row.get(target, "")) for target in targets) + " |")
    checks.finish("kernels")


if __name__ == "__main__":
    main()
