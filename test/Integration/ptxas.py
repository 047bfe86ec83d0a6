"""NVIDIA's assembler, from PATH or from a Python package. Not a test."""

import re
import shutil

import support

PACKAGE = "nvidia-cuda-nvcc-cu12==12.9.86"


def find_ptxas():
    """Returns (its path, "") or (None, why there is none)."""
    found = shutil.which("ptxas")
    if found:
        return found, ""
    folder, reason = support.package(PACKAGE)
    if not folder:
        return None, reason
    path = next(folder.rglob("bin/ptxas"))
    path.chmod(0o755)
    return path, ""


def assemble(ptxas, path, chip):
    """Whether ptxas takes the kernel, what is wrong with it, and its registers."""
    output = path.with_suffix(".cubin")
    done = support.run(ptxas, f"-arch={chip}", "-v", path, "-o", output)
    if done.code:
        return done.stderr, 0
    wrong = [line for line in done.stderr.splitlines() if "(C75" in line or "warning" in line]
    for what in ("stack frame", "spill stores", "spill loads"):
        wrong += [f"{n} bytes {what}" for n in re.findall(rf"(\d+) bytes {what}", done.stderr)
                  if n != "0"]
    return "; ".join(wrong), int(re.search(r"Used (\d+) registers", done.stderr)[1])
