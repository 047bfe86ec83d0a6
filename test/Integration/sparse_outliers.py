# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""SpQR (https://arxiv.org/abs/2306.03078): single weights in 16 bits beside codes of 2 to 4
bits. A published fact in small: with a few weights that no grid of their group holds, 3 bits
collapse, GPTQ included, and hold where 1 % of the weights are kept apart. NumPy reads the file
and gives the product that ONNX Runtime, the reference lowering and native code give."""

import json
import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

import activations
import linear_layers
import oracle
import support

NIBBLE = support.tool("nibble")
WIDTH, OUTPUTS = 192, 160
FORMATS = (("w3g32", "auto"), ("w2g64s", "auto"), ("w4c", "auto"), ("nf4g64", "auto"),
           ("w4g32s", "qdq"), ("w3g64", "doubly"))


def spiky_weight(generator):
    weight = generator.standard_normal((WIDTH, OUTPUTS)) / np.sqrt(WIDTH)
    spikes = generator.choice(weight.size, weight.size // 200, replace=False)
    weight.reshape(-1)[spikes] *= 40
    return weight.astype(np.float32)


def spiky_model(kind, opset=18):
    """One product; the weight is as it is multiplied, or its transpose."""
    weight = spiky_weight(np.random.default_rng(3))
    shape = ["rows", WIDTH] if kind == "Gemm" else ["batch", "rows", WIDTH]
    inputs, arrays = ["x", "w"], {"w": weight}
    if kind == "MatMul":
        nodes = [helper.make_node("MatMul", inputs, ["y"])]
    elif kind == "Gemm":
        arrays = {"w": weight.T.copy(), "c": np.arange(OUTPUTS, dtype=np.float32)}
        nodes = [helper.make_node("Gemm", ["x", "w", "c"], ["y"], transB=1)]
    else:
        arrays = {"w": weight.T.copy()}
        nodes = [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
                 helper.make_node("MatMul", ["x", "t"], ["y"])]
    graph = helper.make_graph(
        nodes, "product", [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, shape[:-1] + [OUTPUTS])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def samples(generator, *shape):
    """Inputs that depend on each other, some of them large."""
    mixed = generator.standard_normal((*shape, WIDTH)) @ np.random.default_rng(7).standard_normal(
        (WIDTH, WIDTH)) / np.sqrt(WIDTH)
    return (mixed * np.linspace(0.2, 2, WIDTH)).astype(np.float32)


def quantize(folder, source, scheme, method, *options, evaluate=False):
    target = folder / "out.onnx"
    target.unlink(missing_ok=True)
    done = support.run(NIBBLE, "quantize", source, "-o", target, "--scheme", scheme, "--method",
                       method, "--calib", folder / "x.npz", "--quiet", "--json",
                       *([] if evaluate else ["--no-evaluate"]), *options)
    return done, target, json.loads(done.stdout) if done.code == 0 else None


def read_weight(path):
    """The weight [K, N] of a file by NumPy alone, and its outliers by output."""
    graph = onnx.load(path).graph
    arrays = {i.name: oracle.read_tensor(i) for i in graph.initializer}
    types = {i.name: oracle.INTEGERS.get(i.data_type) for i in graph.initializer}
    if "w_scale_codes" in arrays:  # Double quantization.
        scales = (arrays["w_scale_codes"] - arrays["w_scale_zero"]) * arrays["w_scale_step"]
        shape = arrays["w_scale_shape"]
        arrays["w_scale"] = scales.reshape(-1)[:np.prod(shape)].reshape(shape)
    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inputs = [arrays.get(name) for name in node.input]
        if node.op_type == "MatMulNBits":
            weight = oracle.matmul_nbits(attributes, inputs).values
        elif node.op_type == "MatMulBnb4":
            weight = oracle.matmul_bnb4(attributes, inputs).values
        elif node.op_type == "DequantizeLinear":
            weight = oracle.dequantize_linear(attributes, inputs, types[node.input[0]]).values
    values, inputs, counts = (arrays[f"w.outlier{part}"] for part in ("s", "_inputs", "_counts"))
    # The first of the list stands for none.
    outputs = np.repeat(np.arange(OUTPUTS), counts)
    np.add.at(weight, (inputs[1:].astype(int), outputs), values[1:].astype(np.float64))
    return weight, values, inputs


def check_results(where, folder, target, x, expected, checks):
    """ONNX Runtime, the reference lowering and native code compute the same."""
    runtime = linear_layers.session(linear_layers.at_full_accuracy(onnx.load(target)))
    found = {"ONNX Runtime": runtime.run(None, {"x": x})[0]}
    (folder / "input_0.pb").write_bytes(numpy_helper.from_array(x).SerializeToString())
    support.must_run(support.tool("nibble-run-reference"), target, "--inputs", folder,
                     "--outputs", folder)
    found["the reference"] = numpy_helper.to_array(onnx.load_tensor(folder / "output_0.pb"))
    np.savez(folder / "one.npz", x=x)
    support.must_run(NIBBLE, "run", target, "--inputs", folder / "one.npz", "--outputs",
                     folder / "y.npz", "--no-cache", "--quiet")
    found["native code"] = np.load(folder / "y.npz")["y"]
    for name, result in found.items():
        off = activations.ratio(expected, result)
        # Native code multiplies codes by activations of 8 bits.
        checks.check(off > (40 if name == "native code" else 100),
                     f"{where}: {name} differs, {off:.0f} dB")


def check_forms(folder, checks):
    generator = np.random.default_rng(4)
    for kind in ("MatMul", "Gemm", "Transpose"):
        source = folder / "m.onnx"
        onnx.save(spiky_model(kind, 11 if kind == "Gemm" else 18), source)
        lead = () if kind == "Gemm" else (3,)
        np.savez(folder / "x.npz", x=samples(generator, 24, *lead, 16))
        for scheme, form in FORMATS if kind == "MatMul" else FORMATS[:1]:
            where = f"{kind}, {scheme}, {form}"
            options = {"auto": [], "qdq": ["--format", "qdq"],
                       "doubly": ["--double-quantization"]}[form]
            done, target, report = quantize(folder, source, scheme, "spqr+recipe", *options,
                                            evaluate=kind == "Gemm")
            if not checks.check(done.code == 0, f"{where}: {done}"):
                continue
            model = onnx.load(target)
            onnx.checker.check_model(model, full_check=True)
            weight, values, inputs = read_weight(target)
            share = (len(values) - 1) / (WIDTH * OUTPUTS)
            checks.check(0.007 < share < 0.017, f"{where}: {share:.2%} are outliers")
            checks.check(values.dtype == np.float16 and inputs.dtype == np.uint16,
                         f"{where}: {values.dtype}, {inputs.dtype}")
            noted = report["weights"][0]["notes"]
            checks.check(any(f"{share * 100:.2f} % of the elements" in note for note in noted),
                         f"{where}: {noted}")
            if kind == "Gemm":  # The outliers count in what the report measures.
                error = report["weights"][0]["output_error_held_out"]
                checks.check(error < 0.003, f"{where}: held-out error {error}")
            # The size that is told is the size of what is stored.
            stored = sum(len(i.raw_data) for i in model.graph.initializer
                         if i.name != "c" and not i.name.endswith(("_axis", "_shape")))
            rest = report["weight_bytes_after"] - (4 * OUTPUTS if kind == "Gemm" else 0)
            checks.check(form == "doubly" or rest == stored, f"{where}: {rest}, not {stored}")
            x = samples(generator, *lead, 5)
            expected = x.astype(np.float64) @ weight
            if kind == "Gemm":
                expected += np.arange(OUTPUTS)
            check_results(where, folder, target, x, expected, checks)
            done = support.run(NIBBLE, "inspect", target, "--json")
            checks.check(done.code == 0 and json.loads(done.stdout)["weight_bytes"] ==
                         report["weight_bytes_after"], f"{where}: {done}")
            done = support.run(NIBBLE, "convert", target, "-o", folder / "again.onnx")
            checks.check(done.code == 0 and (folder / "again.onnx").read_bytes() ==
                         target.read_bytes(), f"{where}: not the same again: {done}")


def check_other_readers(folder, checks):
    """A weight that is not only a plain factor has no outliers, and says why."""
    model = spiky_model("Gemm")
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 2.0))
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "x.npz", x=samples(np.random.default_rng(4), 24, 16))
    done, target, report = quantize(folder, folder / "m.onnx", "w4g32", "spqr")
    if checks.check(done.code == 0, done):
        notes = report["weights"][0]["notes"]
        checks.check(any("no outliers are kept apart" in note for note in notes), notes)
        kinds = [node.op_type for node in onnx.load(target).graph.node]
        checks.check("CumSum" not in kinds, kinds)


def check_fact(folder, checks):
    """Quality on inputs that calibration has not seen."""
    generator = np.random.default_rng(5)
    source = folder / "m.onnx"
    onnx.save(spiky_model("MatMul"), source)
    np.savez(folder / "x.npz", x=samples(generator, 24, 3, 16))
    judges = samples(generator, 4, 50)
    float_result = activations.open_session(source).run(None, {"x": judges})[0]
    quality, size = {}, {}
    for method in ("round", "gptq", "recipe", "spqr", "spqr+gptq", "spqr+recipe", "awq+spqr+recipe"):
        done, target, report = quantize(folder, source, "w3g96", method)
        checks.check(done.code == 0, f"{method}: {done}")
        found = activations.open_session(target).run(None, {"x": judges})[0]
        quality[method] = activations.ratio(float_result, found)
        size[method] = report["weight_bytes_after"]
    print({method: round(float(v), 1) for method, v in quality.items()}, size)
    checks.check(quality["gptq"] < 17 < 27 < quality["spqr"], quality)
    checks.check(quality["spqr+recipe"] > quality["spqr"] == quality["spqr+gptq"], quality)
    checks.check(quality["spqr+recipe"] > quality["recipe"] + 3, quality)
    # No outliers: the method without them.
    for share, other in ((0, "gptq"), (100, None)):
        done, target, _ = quantize(folder, source, "w3g96", "spqr", "--outlier-share", str(share))
        checks.check(done.code == 0, done)
        found = activations.open_session(target).run(None, {"x": judges})[0]
        ratio = activations.ratio(float_result, found)
        checks.check(ratio == quality[other] if other else ratio > 60, f"{share} %: {ratio}")


def check_refusals(folder, checks):
    source = folder / "m.onnx"
    onnx.save(spiky_model("MatMul"), source)
    np.savez(folder / "x.npz", x=samples(np.random.default_rng(5), 8, 3, 16))
    for method, options, code, reason in (
            ("spqr", ["--outlier-share", "-1"], 2, "--outlier-share"),
            ("spqr", ["--outlier-share", "100.5"], 2, "--outlier-share"),
            ("spqr", ["--outlier-share", "some"], 2, "--outlier-share"),
            ("spqr+obq", [], 2, "spqr+obq"), ("smoothquant+spqr", [], 2, "smoothquant+spqr"),
            ("spqr", ["--activations", "dynamic"], 1, "leave out --activations"),
            ("spqr", ["--target-bpw", "4"], 1, "does not count"),
            ("spqr", [], 1, "w8t has one for the tensor"),
            ("spqr", ["--format", "bnb4"], 1, "not of nf4 or fp4")):
        scheme = reason[:3] if reason.startswith("w8t") else "w8cs"
        done, target, _ = quantize(folder, source, scheme, method, *options)
        checks.check(done.code == code and reason in done.stderr and not target.exists(),
                     f"{method} {options}: {done}")
    done = support.run(NIBBLE, "quantize", source, "--method", "spqr")
    checks.check(done.code == 1 and "--calib" in done.stderr, done)


def main():
    checks = support.Checks()
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        check_forms(folder, checks)
        check_other_readers(folder, checks)
        check_fact(folder, checks)
        check_refusals(folder, checks)
    checks.finish()


main()
