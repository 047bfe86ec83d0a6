# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime
"""What `nibble quantize` says about its result is what ONNX Runtime and NumPy find on the
same samples, the page opens without a network, and budgets are kept."""

import html.parser
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import support

NIBBLE = support.tool("nibble")
VOCABULARY, WIDTH, LAYERS, TOKENS = 96, 64, 3, 24


def language_model(generator):
    """Token ids to logits through layers with residual connections."""
    nodes, weights = [], []

    def weight(name, *shape):
        values = generator.standard_normal(shape) / np.sqrt(shape[0])
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    nodes.append(helper.make_node("Gather", [weight("table", VOCABULARY, WIDTH), "ids"], ["h0"]))
    for i in range(LAYERS):
        up, down = weight(f"up{i}", WIDTH, 2 * WIDTH), weight(f"down{i}", 2 * WIDTH, WIDTH)
        nodes += [
            helper.make_node("MatMul", [f"h{i}", up], [f"wide{i}"], name=f"layer{i}/up"),
            helper.make_node("Tanh", [f"wide{i}"], [f"active{i}"]),
            helper.make_node("MatMul", [f"active{i}", down], [f"narrow{i}"],
                             name=f"layer{i}/down"),
            helper.make_node("Add", [f"h{i}", f"narrow{i}"], [f"h{i + 1}"]),
        ]
    head = weight("head", WIDTH, VOCABULARY)
    nodes.append(helper.make_node("MatMul", [f"h{LAYERS}", head], ["logits"], name="head"))
    graph = helper.make_graph(
        nodes, "language",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", 1, ["batch", "tokens", VOCABULARY])],
        weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run_model(path, samples, output):
    """`output` of each sample, which need not be an output of the graph."""
    model = onnx.load(path)
    if output not in [value.name for value in model.graph.output]:
        model.graph.output.append(helper.make_tensor_value_info(output, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return np.stack([session.run([output], {"ids": x[None]})[0][0] for x in samples])


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def quantize(folder, *options):
    return support.run(NIBBLE, "quantize", "m.onnx", "-o", "q.onnx", "--calib", "x.npz",
                       "--quiet", *options, cwd=folder)


def check_evaluation(folder, samples, checks):
    done = quantize(folder, "--scheme", "w3g32", "--samples", "40", "--json",
                    "--report", "r.html")
    checks.check(done.code == 0, done)
    report = json.loads(done.stdout)
    checks.check("not seen" in report["evaluation"]["data"], report["evaluation"]["data"])
    judges = samples[40:44]
    before, after = (run_model(folder / name, judges, "logits")
                     for name in ("m.onnx", "q.onnx"))
    left, right = log_softmax(before), log_softmax(after)
    divergence = (np.exp(left) * (left - right)).sum(-1).ravel()
    targets = np.stack([judges[:, 1:]], -1)

    def perplexity(logs):
        return np.exp(-np.take_along_axis(logs[:, :-1], targets, -1).mean())

    found = report["evaluation"]["outputs"][0]
    expected = {
        "kl mean": (found["kl"]["mean"], divergence.mean()),
        "kl error": (found["kl"]["standard_error"],
                     divergence.std(ddof=1) / np.sqrt(divergence.size)),
        "kl max": (found["kl"]["max"], divergence.max()),
        "top-1": (found["kl"]["top1_agreement"],
                  (before.argmax(-1) == after.argmax(-1)).mean()),
        "cosine": (found["cosine"], (before * after).sum()
                   / np.sqrt((before ** 2).sum() * (after ** 2).sum())),
        "float perplexity": (found["perplexity"]["float"]["mean"], perplexity(left)),
        "perplexity": (found["perplexity"]["quantized"]["mean"], perplexity(right)),
    }
    # The first layer reads the same in both models.
    wide = [run_model(folder / name, judges, "wide0") for name in ("m.onnx", "q.onnx")]
    first = next(weight for weight in report["weights"] if weight["name"] == "up0")
    expected["error of up0"] = (first["output_error_held_out"],
                                ((wide[0] - wide[1]) ** 2).sum() / (wide[0] ** 2).sum())
    for name, (ours, theirs) in expected.items():
        checks.check(np.isclose(ours, theirs, rtol=1e-3), f"{name}: {ours}, not {theirs}")
    checks.check(divergence.mean() > 1e-3, "nothing was lost, so nothing was tested")

    for weight in report["weights"]:
        checks.check(weight["damping"] > 0 and weight["seconds"] >= 0
                     and weight["loss_relative_to_rounding"] < 1, weight)
    errors = [entry["error"] for entry in report["most_harmed"]]
    checks.check(len(errors) == 2 * LAYERS + 1 and errors == sorted(errors, reverse=True),
                 errors)
    checks.check(all(entry["cure"] for entry in report["most_harmed"]), "a cure is missing")


class Page(html.parser.HTMLParser):
    """Counts tags, and fails where one is not closed."""
    def __init__(self, text):
        super().__init__()
        self.open, self.counts, self.text = [], {}, text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another tag"


def check_page(folder, checks, charts):
    page = Page((folder / "r.html").read_text())
    checks.check(not page.open, f"not closed: {page.open}")
    checks.check(page.counts.get("svg") == charts, f"charts: {page.counts}")
    for outside in ("http:", "https:", "src=", "@import", "url("):
        checks.check(outside not in page.text, f"the page needs {outside}")
    for name in [f"up{i}" for i in range(LAYERS)] + ["perplexity", "embedding"]:
        checks.check(name in page.text, f"the page lacks {name}")


def check_samples(folder, checks):
    done = quantize(folder, "--samples", "48")
    checks.check("calibration's own samples" in done.stdout, done)
    done = quantize(folder)
    checks.check("3 samples that calibration has not seen" in done.stdout, done)
    done = quantize(folder, "--no-evaluate")
    checks.check(done.code == 0 and "perplexity" not in done.stdout, done)
    done = quantize(folder, "--method", "round")
    checks.check(done.code == 0 and "perplexity" in done.stdout, done)


def check_budgets(folder, checks):
    done = quantize(folder, "--target-bpw", "4.5", "--json", "--report", "r.html")
    checks.check(done.code == 0, done)
    report = json.loads(done.stdout)
    budget = report["budget"]
    chosen = budget["chosen"]
    checks.check(chosen["bits_per_weight"] <= 4.5, chosen)
    for uniform in budget["uniform"]:
        if uniform["bits_per_weight"] <= 4.5:
            checks.check(chosen["predicted_loss"] <= uniform["predicted_loss"],
                         f"{uniform} is better than {chosen}")
    stored = [value.raw_data for value in onnx.load(folder / "q.onnx").graph.initializer
              if value.name != "table"]
    parameters = sum(weight["parameters"] for weight in report["weights"])
    bits = 8 * sum(map(len, stored)) / parameters
    checks.check(abs(bits - chosen["bits_per_weight"]) < 0.01,
                 f"{bits} bits in the file, {chosen} reported")
    check_page(folder, checks, charts=2)

    done = quantize(folder, "--target-size", "60kB")
    checks.check(done.code == 0 and (folder / "q.onnx").stat().st_size <= 60000, done)
    done = quantize(folder, "--max-kl", "0.05", "--json")
    checks.check(done.code == 0, done)
    report = json.loads(done.stdout)
    checks.check(report["evaluation"]["outputs"][0]["kl"]["mean"] <= 0.05, report["budget"])


def check_refusals(folder, checks):
    (folder / "q.onnx").unlink()
    for options, reason in (
            (["--target-bpw", "1"], "smallest schemes take"),
            (["--target-size", "1kB"], "--embedding"),
            (["--max-kl", "1e-9"], "predicted to diverge"),
            (["--target-bpw", "4", "--format", "qdq"], "MatMulNBits")):
        done = quantize(folder, *options)
        checks.check(done.code == 1 and reason in done.stderr, f"{options}: {done}")
        checks.check(not (folder / "q.onnx").exists(), f"{options}: a file was written")
    done = support.run(NIBBLE, "quantize", "m.onnx", "--target-bpw", "4", cwd=folder)
    checks.check(done.code == 1 and "--calib" in done.stderr, done)
    done = quantize(folder, "--target-bpw", "4", "--max-kl", "1")
    checks.check(done.code != 0 and "exclude" in done.stderr, done)


def check_unwritable_pages(folder, checks):
    """A page that cannot be written: no model either."""
    for page, reason in (("absent/r.html", "No such file"), ("/dev/full", "No space left")):
        done = quantize(folder, "--method", "round", "--report", page)
        checks.check(done.code == 1 and reason in done.stderr and page in done.stderr, done)
        checks.check(not (folder / "q.onnx").exists(), f"{page}: a model was written")


def main():
    checks = support.Checks()
    generator = np.random.default_rng(11)
    with support.scratch() as scratch:
        folder = pathlib.Path(scratch)
        onnx.save(language_model(generator), folder / "m.onnx")
        samples = generator.integers(0, VOCABULARY, (48, TOKENS))
        np.savez(folder / "x.npz", ids=samples)
        check_evaluation(folder, samples, checks)
        check_page(folder, checks, charts=1)
        check_samples(folder, checks)
        check_budgets(folder, checks)
        check_refusals(folder, checks)
        check_unwritable_pages(folder, checks)
    checks.finish()


main()
