#!/usr/bin/env python3
"""Products with quantized weights: ours beside ONNX Runtime and OpenVINO, and the machine's limits.

    python benchmarks/kernels.py [--formats w4g128 w4g32] [--rows 1 8 128] [--threads 1]
                                 [--write docs/Performance.md]

Each peer and configuration is a process of its own that sleeps while another one works; they take
turns, so that what else the machine does hits all of them. A model is a chain of products whose
weights together are larger than the last-level cache: each is read from memory. With one thread
processor time counts, else wall time. Figures are medians over the turns of microseconds a
product; the noise of a row is the largest half range between quartiles among its columns.

The limits are those of `nibble bench`, measured between the rows: bytes read, products of bytes,
f32 multiply-adds. `of the limit` is bytes of the packed weight over time over bytes read up to 4
rows, and multiplications over time over the best rate of the instruction from 8 rows on.

needs: numpy, onnx and what is to be compared: onnxruntime, openvino.
"""

import argparse
import datetime
import importlib.util
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE_DIR = pathlib.Path(__file__).resolve().parents[1]
BUILD_DIR = pathlib.Path(os.environ.get("NIBBLE_BUILD_DIR", SOURCE_DIR / "build/release"))
sys.path.insert(0, str(SOURCE_DIR / "test/Integration"))

FORMAT = re.compile(r"w([248])g(\d+)$")
# Up to this many rows the weights' bytes bound a product.
FEW_ROWS = 4


def parse_format(name):
    match = FORMAT.match(name)
    if not match:
        sys.exit(f"format {name}: expected something like w4g128")
    return int(match[1]), int(match[2])


#===-----------------------------------------------------------------------------------------------
# The model
#===-----------------------------------------------------------------------------------------------

def save_chain(path, format, sizes, accuracy_level):
    """x [m, sizes[0]] times matrices to sizes[1], sizes[2], …; numbers keep their magnitude."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    bits, group = parse_format(format)
    random = np.random.default_rng(1)
    spread = (4 ** bits / 12) ** 0.5
    nodes, initializers = [], []
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        blocks = -(-inputs // group)
        codes = random.integers(0, 256, (outputs, blocks, group * bits // 8), np.uint8)
        scales = np.full(outputs * blocks, 1 / (spread * inputs ** 0.5))
        # Numbers of f16, as kernels may store them.
        scales = (scales * random.uniform(0.9, 1.1, scales.shape)).astype(np.float16)
        initializers += [numpy_helper.from_array(codes, f"w{i}"),
                         numpy_helper.from_array(scales.astype(np.float32), f"s{i}")]
        nodes.append(helper.make_node(
            "MatMulNBits", [f"x{i}", f"w{i}", f"s{i}"], [f"x{i + 1}"], domain="com.microsoft",
            K=inputs, N=outputs, bits=bits, block_size=group, accuracy_level=accuracy_level))
    last = len(sizes) - 1
    graph = helper.make_graph(
        nodes, "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["m", sizes[0]])],
        [helper.make_tensor_value_info(f"x{last}", TensorProto.FLOAT, ["m", sizes[last]])],
        initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path,
              save_as_external_data=True, location=path.name + ".data")


def get_packed_bytes(format, inputs, outputs):
    """Codes and a scale of f16 for each group."""
    bits, group = parse_format(format)
    return outputs * (inputs * bits // 8 + 2 * -(-inputs // group))


#===-----------------------------------------------------------------------------------------------
# Peers, each in a process of its own
#===-----------------------------------------------------------------------------------------------

def open_nibble(path, threads):
    import compiled
    model = compiled.Model(path, "chain")
    return lambda x: model.run(x)


def open_onnxruntime(path, threads):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x0": x})


def open_openvino(path, threads):
    import openvino
    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(core.read_model(path), "CPU", options)
    request = model.create_infer_request()
    return lambda x: request.infer({0: x})


def work(engine, path, threads, width):
    """Answers each number of rows with the seconds that a call takes."""
    import numpy as np
    run = globals()[f"open_{engine}"](path, threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    random = np.random.default_rng(0)
    seen = set()
    print("ready", flush=True)
    for line in sys.stdin:
        rows = int(line)
        x = random.standard_normal((rows, width), np.float32)
        if rows not in seen:
            run(x)
            seen.add(rows)
        calls, start = 0, clock()
        while calls == 0 or clock() - start < 0.2:
            run(x)
            calls += 1
        print((clock() - start) / calls, flush=True)


class Worker:
    def __init__(self, name, engine, path, threads, width):
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, "--work", engine, path, threads, width]
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment)
        if self.process.stdout.readline() != "ready\n":
            lines = self.process.stderr.read().strip().splitlines() or ["it ended"]
            raise RuntimeError(lines[-1])

    def measure(self, rows):
        print(rows, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def start_workers(folder, format, sizes, threads):
    """Ours in both ways to compute, and whatever peer is installed."""
    workers = []
    paths = {level: folder / f"chain{level}.onnx" for level in (1, 4)}
    for level, path in paths.items():
        save_chain(path, format, sizes, level)
    for compute in ("i8", "f32"):
        library = folder / f"chain_{compute}.so"
        subprocess.run([BUILD_DIR / "bin/nibble", "compile", paths[4], "-o", library, "--compute",
                        compute, "--name", "chain", "--quiet"], check=True)
        workers.append(Worker(f"nibble {compute}", "nibble", library, threads, sizes[0]))
    peers = [("ONNX Runtime i8", "onnxruntime", paths[4]),
             ("ONNX Runtime f32", "onnxruntime", paths[1]),
             ("OpenVINO i8", "openvino", paths[4])]
    for name, engine, path in peers:
        if not importlib.util.find_spec(engine):
            print(f"{name}: not installed")
            continue
        try:
            workers.append(Worker(name, engine, path, threads, sizes[0]))
        except RuntimeError as error:
            print(f"{name}: {error}")
    return workers


#===-----------------------------------------------------------------------------------------------
# Figures
#===-----------------------------------------------------------------------------------------------

def measure_limits(threads):
    """GB/s read, GOP/s of bytes, GOP/s of f32."""
    text = subprocess.run([BUILD_DIR / "bin/nibble", "bench", "--threads", str(threads)],
                          check=True, capture_output=True, text=True).stdout
    values = [re.search(rf"{name} +([\d.]+)", text)
              for name in ("memory", "byte products", "f32 multiply-add")]
    return tuple(float(value[1]) if value else float("nan") for value in values)


def median_and_noise(samples):
    middle = statistics.median(samples)
    if len(samples) < 4:
        return middle, (max(samples) - min(samples)) / 2 / middle
    low, _, high = statistics.quantiles(samples, n=4)
    return middle, (high - low) / 2 / middle


def describe_limit(compute, rows, seconds, format, shape, limits):
    """The share of what bounds the product."""
    bandwidth, bytes_rate, float_rate = limits
    inputs, outputs = shape
    if rows <= FEW_ROWS and compute == "i8":
        return get_packed_bytes(format, inputs, outputs) / seconds / (1e9 * bandwidth)
    rate = bytes_rate if compute == "i8" else float_rate
    return 2 * rows * inputs * outputs / seconds / (1e9 * rate)


def measure_format(format, shape, arguments):
    """Rows of the table, and the limits by which they are judged."""
    inputs, outputs = shape
    copies = -(-arguments.megabytes * 10**6 // get_packed_bytes(format, inputs, outputs))
    sizes = [(inputs, outputs)[i % 2] for i in range(copies + 1)]
    table, all_limits = [], []
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        workers = start_workers(pathlib.Path(folder), format, sizes, arguments.threads)
        for rows in arguments.rows:
            samples = {worker.name: [] for worker in workers}
            limits = [measure_limits(arguments.threads)]
            for _ in range(arguments.turns):
                for worker in workers:
                    samples[worker.name].append(worker.measure(rows) / copies)
            limits.append(measure_limits(arguments.threads))
            all_limits += limits
            # A limit is what the machine can do at best.
            best = tuple(map(max, zip(*limits)))
            table.append((rows, {name: median_and_noise(s) for name, s in samples.items()}, best))
            print(f"{format} {inputs} × {outputs}, {rows} rows:", {
                name: f"{1e6 * middle:.0f} µs" for name, (middle, _) in table[-1][1].items()},
                  flush=True)
        for worker in workers:
            worker.close()
    return table, tuple(map(statistics.median, zip(*all_limits)))


def print_table(format, shape, table, os):
    inputs, outputs = shape
    names = [name for name in table[0][1] if not name.startswith("nibble")]
    print(f"\n`{format}`, {inputs} × {outputs}:\n", file=os)
    header = ["M", "`i8`, µs", "of the limit", "`f32`, µs", "of the limit", *names, "noise"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|", file=os)
    for rows, figures, limits in table:
        cells = [str(rows)]
        for compute in ("i8", "f32"):
            seconds = figures[f"nibble {compute}"][0]
            share = describe_limit(compute, rows, seconds, format, shape, limits)
            cells += [f"{1e6 * seconds:.0f}", f"{100 * share:.0f} %"]
        for name in names:
            own = figures["nibble f32" if name.endswith("f32") else "nibble i8"][0]
            cells.append(f"{figures[name][0] / own:.2f}×")
        cells.append(f"{100 * max(noise for _, noise in figures.values()):.0f} %")
        print("| " + " | ".join(cells) + " |", file=os)


def describe_machine(threads, limits):
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    names = ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")
    flags = [name for name in names if re.search(rf"\b{name}\b", info)]
    cache = pathlib.Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    size = cache.read_text().strip() if cache.exists() else "unknown"
    return (f"{datetime.date.today()}, {os.cpu_count()} cores of an {model[1] if model else 'unknown'}"
            f" ({', '.join(flags)}; last-level cache {size}), {threads} thread(s). Limits: "
            f"{limits[0]:.1f} GB/s read, {limits[1]:.0f} GOP/s of bytes, {limits[2]:.0f} GOP/s of "
            "f32. A peer's column is its time over ours with the same compute.")


def write_document(path, text):
    """Puts the tables between the two marks."""
    begin, end = "<!-- benchmarks/kernels.py -->\n", "<!-- end -->\n"
    document = path.read_text()
    if begin not in document or end not in document:
        sys.exit(f"{path}: has not the lines {begin.strip()} and {end.strip()}")
    before, rest = document.split(begin)
    path.write_text(before + begin + text + end + rest.split(end, 1)[1])


def main():
    if sys.argv[1:2] == ["--work"]:
        engine, path, threads, width = sys.argv[2:]
        return work(engine, path, int(threads), int(width))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--formats", nargs="+", default=["w4g128", "w4g32", "w8g128", "w2g128"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 128, 512])
    parser.add_argument("--shape", nargs=2, type=int, default=[4096, 4096],
                        help="inputs and outputs; products go to and fro where they differ")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=300, help="of all weights together")
    parser.add_argument("--scratch", help="a folder for the models")
    parser.add_argument("--write", type=pathlib.Path, help="the document to put the tables into")
    arguments = parser.parse_args()
    import io
    text, limits = io.StringIO(), []
    for format in arguments.formats:
        table, seen = measure_format(format, tuple(arguments.shape), arguments)
        limits.append(seen)
        print_table(format, arguments.shape, table, text)
    medians = tuple(map(statistics.median, zip(*limits)))
    result = describe_machine(arguments.threads, medians) + "\n" + text.getvalue()
    print(result)
    if arguments.write:
        write_document(arguments.write, result)


if __name__ == "__main__":
    main()
