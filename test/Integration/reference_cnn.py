# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime, ml_dtypes
"""Runs what image models are made of through the reference lowering, against ONNX
Runtime: convolutions and pools of every rank with unknown sizes, the ops of com.microsoft
that exporters emit, and the three models of PP-OCRv4 at several image sizes."""

import pathlib

import numpy as np
import onnx
import onnx.reference
import onnxruntime
from onnx import helper, numpy_helper

import support

MICROSOFT = "com.microsoft"


def onnx_type(array):
    return helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)


class Case:
    """One node, its inputs, and which of them the model holds as constants."""

    def __init__(self, op_type, inputs, constants=(), outputs=1, domain="", opset=21,
                 steps=0, name="", output_types=None, lists=False, **attributes):
        self.inputs, self.constants, self.outputs = inputs, set(constants), outputs
        self.domain, self.opset, self.steps = domain, opset, steps
        self.output_types, self.lists = output_types, lists
        self.op_type, self.attributes = op_type, attributes
        self.name = f"{op_type} {name}".strip()

    def model(self):
        names = [f"i{i}" if x is not None else "" for i, x in enumerate(self.inputs)]
        results = [f"o{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op_type, names, results, domain=self.domain,
                                **self.attributes)
        graph_inputs, initializers = [], []
        for i, x in enumerate(self.inputs):
            if x is None:
                continue
            if i in self.constants:
                initializers.append(numpy_helper.from_array(np.asarray(x), names[i]))
            else:
                # Every size is known only when the model runs, but how many integers or
                # scales there are.
                is_list = i > 0 and np.ndim(x) == 1 and self.lists
                shape = [len(x)] if is_list else [f"d{i}_{axis}" for axis in range(np.ndim(x))]
                graph_inputs.append(
                    helper.make_tensor_value_info(names[i], onnx_type(x), shape))
        kinds = self.output_types or [onnx_type(self.inputs[0])] * self.outputs
        results = [helper.make_tensor_value_info(name, kind, None)
                   for name, kind in zip(results, kinds)]
        graph = helper.make_graph([node], "graph", graph_inputs, results, initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        if self.domain:
            opsets.append(helper.make_opsetid(self.domain, 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def run_inputs(self):
        return [np.asarray(x) for i, x in enumerate(self.inputs)
                if x is not None and i not in self.constants]


def write_inputs(folder, inputs):
    """Writes one data set; its results go to the folder `actual` in it."""
    folder.mkdir(parents=True)
    for index, array in enumerate(inputs):
        (folder / f"input_{index}.pb").write_bytes(
            numpy_helper.from_array(array).SerializeToString())


def read_results(folder):
    """The outputs of a data set; none where the run failed."""
    made = folder / "actual"
    return [numpy_helper.to_array(onnx.load_tensor(str(made / f"output_{index}.pb")))
            for index in range(len(list(made.glob("output_*.pb"))))]


def run_onnxruntime(model, inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = onnxruntime.InferenceSession(source, options,
                                           providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([value.name for value in session.get_inputs()],
                                      inputs)))


def get_expected(model, inputs):
    try:
        return run_onnxruntime(model, inputs)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        evaluator = onnx.reference.ReferenceEvaluator(model)
        return evaluator.run(None, dict(zip(evaluator.input_names, inputs)))


def check_case(checks, case, expected, results, said):
    if not checks.check(len(results) == len(expected), f"{case.name}: {said}"):
        return
    for index, (actual, wanted) in enumerate(zip(results, expected)):
        label = f"{case.name}, output {index}"
        if not checks.check(actual.shape == wanted.shape and actual.dtype == wanted.dtype,
                            f"{label}: {actual.dtype}{actual.shape}, not "
                            f"{wanted.dtype}{wanted.shape}"):
            continue
        if actual.dtype.kind in "iu":
            apart = np.abs(actual.astype(np.int64) - wanted.astype(np.int64)).max(initial=0)
            checks.check(apart <= case.steps, f"{label}: codes {apart} apart")
            continue
        tolerance = 2e-3 if actual.dtype == np.float16 else 1e-5
        scale = np.abs(wanted.astype(np.float64)).max(initial=0)
        apart = np.abs(actual.astype(np.float64) - wanted).max(initial=0)
        checks.check(apart <= tolerance * max(scale, 1e-6),
                     f"{label}: {apart} apart, of up to {scale}")


#===--- Cases ------------------------------------------------------------------------===

def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def codes(rng, kind, *shape):
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max + 1, shape).astype(kind)


def f32(value):
    return np.asarray(value, np.float32)


def convolutions(rng):
    for rank, size, weight, attributes in [
        (1, (11,), (4, 3, 3), {}),
        (1, (12,), (6, 1, 4), {"group": 3, "strides": [2], "pads": [2, 1]}),
        (2, (9, 10), (4, 3, 3, 2), {"pads": [1, 0, 2, 1]}),
        (2, (9, 7), (6, 1, 3, 3), {"group": 3, "auto_pad": "SAME_UPPER", "strides": [2, 3]}),
        (2, (8, 7), (3, 3, 2, 4), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
        (2, (13, 12), (4, 3, 3, 3), {"dilations": [2, 3], "strides": [1, 2]}),
        (2, (7, 7), (4, 3, 3, 3), {"auto_pad": "VALID", "strides": [2, 2]}),
        (2, (5, 6), (4, 3, 1, 1), {}),
        (3, (5, 6, 7), (2, 3, 2, 3, 2), {"strides": [1, 2, 2], "pads": [0, 1, 0, 1, 1, 1]}),
    ]:
        x = floats(rng, 2, 3, *size)
        label = f"{weight} {attributes}"
        yield Case("Conv", [x, floats(rng, *weight), floats(rng, weight[0])], {1, 2},
                   name=label, **attributes)
        yield Case("Conv", [x, floats(rng, *weight)], name=label + " open", **attributes)
    x, w = floats(rng, 1, 4, 6, 5), floats(rng, 2, 4, 3, 3)
    yield Case("Conv", [x.astype(np.float64), w.astype(np.float64)], name="f64")
    for rank, size, weight, attributes in [
        (1, (5,), (3, 2, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
        (2, (4, 5), (3, 2, 2, 2), {"strides": [2, 2]}),
        (2, (4, 5), (3, 2, 3, 4), {"strides": [2, 3], "pads": [1, 2, 0, 1]}),
        (2, (3, 4), (4, 3, 3, 3), {"group": 2, "strides": [2, 1], "dilations": [1, 2]}),
        (2, (3, 4), (4, 1, 2, 2), {"group": 4, "strides": [2, 2]}),
        (2, (3, 3), (3, 2, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        (2, (3, 3), (3, 2, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
        (3, (2, 3, 4), (3, 2, 2, 2, 3), {"strides": [2, 1, 2]}),
    ]:
        yield Case("ConvTranspose",
                   [floats(rng, 2, weight[0], *size), floats(rng, *weight),
                    floats(rng, weight[1] * attributes.get("group", 1))], {1, 2},
                   name=f"{weight} {attributes}", **attributes)


def integer_convolutions(rng):
    x = codes(rng, np.uint8, 2, 4, 8, 9)
    attributes = {"pads": [1, 0, 1, 2], "strides": [2, 1], "group": 2}
    for kind in (np.uint8, np.int8):
        w = codes(rng, kind, 6, 2, 3, 3)
        yield Case("ConvInteger", [x, w, np.uint8(131), kind(3)], {1, 3},
                   output_types=[onnx.TensorProto.INT32], **attributes)
    for scales, zeros in [(rng.random(6), np.zeros(6)), (0.01, 0)]:
        w = codes(rng, np.int8, 6, 2, 3, 3)
        yield Case("QLinearConv",
                   [x, f32(0.02), np.uint8(131), w, f32(np.asarray(scales) + 0.01),
                    np.asarray(zeros, np.int8), f32(1.5), np.uint8(90),
                    rng.integers(-5000, 5000, 6).astype(np.int32)],
                   {1, 2, 3, 4, 5, 6, 7, 8}, steps=1, **attributes)


def pools(rng):
    for size, attributes in [
        ((9,), {"kernel_shape": [3], "strides": [2]}),
        ((9, 10), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
        ((9, 10), {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1}),
        ((9, 10), {"kernel_shape": [4, 3], "strides": [3, 2], "auto_pad": "SAME_UPPER"}),
        ((9, 10), {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER"}),
        ((5, 6, 7), {"kernel_shape": [2, 3, 2], "strides": [1, 2, 2], "ceil_mode": 1,
                     "pads": [0, 1, 1, 1, 1, 0]}),
    ]:
        x, label = floats(rng, 2, 3, *size), str(attributes)
        yield Case("MaxPool", [x], outputs=1, name=label, **attributes)
        yield Case("MaxPool", [x], outputs=2, name=label + " with indices",
                   output_types=[1, 7], **attributes)
        yield Case("AveragePool", [x], name=label, **attributes)
        yield Case("AveragePool", [x], name=label + " with padding", count_include_pad=1,
                   **attributes)
        if "ceil_mode" not in attributes:
            yield Case("LpPool", [x], name=label, p=3, **attributes)
    x = codes(rng, np.uint8, 1, 2, 7, 8)
    yield Case("MaxPool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], dilations=[1, 2],
               name="uint8")
    x = floats(rng, 2, 3, 5, 4)
    for op_type in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        yield Case(op_type, [x])


def resizes(rng):
    x = floats(rng, 1, 2, 5, 6)
    none = np.zeros(0, np.float32)
    for mode, coordinates in [
        ("nearest", "asymmetric"), ("nearest", "half_pixel"), ("linear", "half_pixel"),
        ("linear", "align_corners"), ("linear", "pytorch_half_pixel"),
        ("cubic", "half_pixel"), ("cubic", "align_corners"),
    ]:
        attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
        if mode == "nearest":
            attributes["nearest_mode"] = "floor"
        for sizes in ([1, 2, 10, 12], [1, 2, 3, 9]):
            yield Case("Resize", [x, None, None, np.asarray(sizes, np.int64)],
                       lists=True, name=f"{attributes} to {sizes}", **attributes)
        yield Case("Resize", [x, none, f32([1, 1, 2, 3])], {1, 2}, opset=11,
                   name=f"{attributes} by 2, 3", **attributes)
    yield Case("Resize", [x, f32([1, 1, 2, 2])], {1}, opset=10, mode="nearest")
    yield Case("Resize", [x, f32([1, 1, 0.5, 0.4])], opset=10, mode="linear")
    yield Case("Upsample", [x, f32([1, 1, 2, 3])], opset=9, mode="linear")


def pads(rng):
    x = floats(rng, 2, 3, 4)
    for mode in ("constant", "reflect", "edge", "wrap"):
        for amounts in ([0, 1, 2, 1, 0, 2], [0, -1, 2, 1, 0, -1]):
            inputs = [x, np.asarray(amounts, np.int64)]
            if mode == "constant":
                inputs.append(f32(1.5))
            yield Case("Pad", inputs, mode=mode, name=f"{mode} {amounts}")
    yield Case("Pad", [x, np.asarray([1, 2], np.int64), None, np.asarray([-1], np.int64)],
               lists=True, name="axes")
    yield Case("Pad", [x], opset=2, pads=[0, 1, 0, 0, 1, 2], value=0.5, name="attributes")


def normalizations(rng):
    x = floats(rng, 2, 6, 4, 5)
    channel = [floats(rng, 6) for _ in range(3)] + [np.abs(floats(rng, 6)) + 0.1]
    yield Case("BatchNormalization", [x, *channel])
    yield Case("InstanceNormalization", [x, channel[0], channel[1]])
    yield Case("GroupNormalization", [x, channel[0], channel[1]], num_groups=3)
    yield Case("LRN", [x], size=5, alpha=0.02, beta=0.6, bias=1.2)
    for p in (1, 2):
        yield Case("LpNormalization", [x], axis=1, p=p)
    yield Case("MeanVarianceNormalization", [x])
    x, skip, gamma = floats(rng, 2, 5, 8), floats(rng, 2, 5, 8), floats(rng, 8)
    beta, bias = floats(rng, 8), floats(rng, 8)
    yield Case("SimplifiedLayerNormalization", [x, gamma], axis=-1, epsilon=1e-5)
    for inputs in ([x, skip, gamma], [x, skip, gamma, beta, bias],
                   [x, skip[:1], gamma, beta]):
        yield Case("SkipLayerNormalization", inputs, domain=MICROSOFT, epsilon=1e-5)
    for inputs in ([x, skip, gamma], [x, skip, gamma, bias]):
        yield Case("SkipSimplifiedLayerNormalization", inputs, domain=MICROSOFT,
                   epsilon=1e-6)
    words = rng.integers(0, 20, (2, 5)).astype(np.int32)
    kinds = rng.integers(0, 2, (2, 5)).astype(np.int32)
    mask = np.asarray([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    tables = [floats(rng, rows, 8) for rows in (20, 6, 2)]
    yield Case("EmbedLayerNormalization",
               [words, kinds, *tables, gamma, beta, mask], {2, 3, 4, 5, 6}, outputs=2,
               domain=MICROSOFT, output_types=[1, 6], epsilon=1e-5)


def activations(rng):
    x, bias = floats(rng, 2, 5, 8) * 3, floats(rng, 8)
    yield Case("BiasGelu", [x, bias], domain=MICROSOFT)
    yield Case("Gelu", [x], domain=MICROSOFT)
    yield Case("FastGelu", [x, bias], domain=MICROSOFT)
    yield Case("FastGelu", [x], domain=MICROSOFT)
    yield Case("QuickGelu", [x], domain=MICROSOFT, alpha=1.3)
    yield Case("Hardmax", [x], axis=1)
    yield Case("Hardmax", [x], axis=1, opset=11)
    a, b = floats(rng, 3, 4, 5), floats(rng, 3, 6, 5)
    yield Case("FusedMatMul", [a, b], domain=MICROSOFT, transB=1, alpha=0.5)
    yield Case("FusedMatMul", [a.transpose(0, 2, 1).copy(), b.transpose(0, 2, 1).copy()],
               domain=MICROSOFT, transA=1)
    x, w, b = floats(rng, 1, 3, 7, 6), floats(rng, 4, 3, 3, 3), floats(rng, 4)
    for name, parameters in [("Relu", None), ("Tanh", None), ("Sigmoid", None),
                             ("LeakyRelu", [0.2]), ("Clip", [-0.5, 1.5]),
                             ("HardSigmoid", [0.3, 0.4])]:
        extra = {"activation_params": parameters} if parameters else {}
        yield Case("FusedConv", [x, w, b], {1, 2}, domain=MICROSOFT, activation=name,
                   name=name, **extra)
    yield Case("FusedConv", [x, w, b, floats(rng, 1, 4, 5, 4)], {1, 2}, domain=MICROSOFT,
               activation="Relu", name="with a sum")


def linear_codes(rng):
    for kind in (np.uint8, np.int8):
        middle = kind(128 if kind is np.uint8 else 0)
        a, b = codes(rng, kind, 2, 3, 5), codes(rng, kind, 3, 5)
        scales = [f32(0.02), kind(3), f32(0.05), middle]
        for op_type in ("QLinearAdd", "QLinearMul"):
            yield Case(op_type, [a, scales[0], scales[1], b, scales[2], scales[3],
                                 f32(0.09), kind(11)], {1, 2, 4, 5, 6, 7},
                       domain=MICROSOFT, steps=1, name=kind.__name__)
        one = [scales[0], scales[1]]
        yield Case("QLinearSigmoid", [a, *one, f32(1 / 256), kind(0)], {1, 2, 3, 4},
                   domain=MICROSOFT, steps=1, name=kind.__name__)
        yield Case("QLinearLeakyRelu", [a, *one, f32(0.03), kind(5)], {1, 2, 3, 4},
                   domain=MICROSOFT, steps=1, alpha=0.1, name=kind.__name__)
        for axis, opset in ((1, 13), (1, 12), (-1, 13)):
            yield Case("QLinearSoftmax", [a, *one, f32(1 / 256), kind(middle - kind(0))],
                       {1, 2, 3, 4}, domain=MICROSOFT, steps=1, axis=axis,
                       opset_=opset, name=f"{kind.__name__} {axis} {opset}")
        yield Case("QLinearConcat",
                   [f32(0.04), kind(7), a, *one, codes(rng, kind, 2, 4, 5), scales[2],
                    scales[3]], {0, 1, 3, 4, 6, 7}, domain=MICROSOFT, steps=1, axis=1,
                   name=kind.__name__, output_types=[onnx_type(a)])
        image = codes(rng, kind, 2, 3, 7, 6)
        to = [f32(0.015), kind(9)]
        yield Case("QLinearGlobalAveragePool", [image, *one, *to], {1, 2, 3, 4},
                   domain=MICROSOFT, steps=1, name=kind.__name__)
        for extra in ({}, {"count_include_pad": 1}, {"ceil_mode": 1}):
            yield Case("QLinearAveragePool", [image, *one, *to], {1, 2, 3, 4},
                       domain=MICROSOFT, steps=1, kernel_shape=[3, 2], strides=[2, 2],
                       pads=[1, 0, 1, 1], name=f"{kind.__name__} {extra}", **extra)
        left, right = codes(rng, kind, 4, 6), codes(rng, np.int8, 5, 6)
        c = rng.integers(-3000, 3000, 5).astype(np.int32)
        yield Case("QGemm", [left, *one, right, f32(0.03), np.int8(2), c, f32(0.4), kind(7)],
                   {1, 2, 3, 4, 5, 6, 7, 8}, domain=MICROSOFT, steps=1, transB=1,
                   name=kind.__name__)
        yield Case("QGemm", [left, *one, right.T.copy(), f32(rng.random(5) + 0.1),
                             np.zeros(5, np.int8), None], {1, 2, 3, 4, 5},
                   domain=MICROSOFT, alpha=0.5, name=f"{kind.__name__} to floats",
                   output_types=[onnx.TensorProto.FLOAT])


def samplings(rng):
    image, grid = floats(rng, 2, 3, 5, 6), rng.random((2, 4, 3, 2)).astype(np.float32) * 3 - 1.5
    for mode in ("linear", "nearest", "cubic"):
        for border in ("zeros", "border", "reflection"):
            yield Case("GridSample", [image, grid], mode=mode, padding_mode=border,
                       align_corners=1, name=f"{mode} {border}")
    regions = f32([[0, 0, 3, 4], [1, 1, 5, 4.5], [-2, 0, 8, 9]])
    for mode in ("avg", "max"):
        yield Case("RoiAlign", [image, regions, np.asarray([0, 1, 1], np.int64)],
                   mode=mode, output_height=3, output_width=2, sampling_ratio=2,
                   spatial_scale=0.7, name=mode)
    yield Case("DepthToSpace", [floats(rng, 2, 8, 3, 4)], blocksize=2, mode="CRD")
    yield Case("SpaceToDepth", [floats(rng, 2, 3, 4, 6)], blocksize=2)
    corners = rng.random((2, 30, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 0.3], axis=2)
    scores = rng.random((2, 3, 30)).astype(np.float32)
    for limit in (4, 30):
        yield Case("NonMaxSuppression",
                   [boxes, scores, np.asarray([limit], np.int64), f32([0.4]), f32([0.2])],
                   output_types=[onnx.TensorProto.INT64], name=str(limit))


FAMILIES = (convolutions, integer_convolutions, pools, resizes, pads, normalizations,
            activations, linear_codes, samplings)


def check_cases(checks, folder, rng):
    todo = []
    for case in (case for family in FAMILIES for case in family(rng)):
        # `opset` is the name of an attribute of QLinearSoftmax too.
        if "opset_" in case.attributes:
            case.attributes["opset"] = case.attributes.pop("opset_")
        here, model, inputs = folder / str(len(todo)), case.model(), case.run_inputs()
        write_inputs(here / "test_data_set_0", inputs)
        (here / "model.onnx").write_bytes(model.SerializeToString())
        todo.append((case, here, get_expected(model, inputs)))
    for start in range(0, len(todo), 64):
        chunk = todo[start:start + 64]
        done = support.run(support.tool("nibble-run-reference"),
                           *(here for _, here, _ in chunk), timeout=600)
        checks.check(done.code == 0, done)
        messages = done.stderr.splitlines()
        for case, here, expected in chunk:
            said = " ".join(line for line in messages if line.startswith(f"{here}/"))
            check_case(checks, case, expected, read_results(here / "test_data_set_0"), said)
    print(f"{len(todo)} nodes beside ONNX Runtime")


#===--- Models -----------------------------------------------------------------------===

# File: image sizes, [N, C, H, W].
OCR_MODELS = {
    "ch_PP-OCRv4_det_infer.onnx": [(1, 3, 64, 96), (2, 3, 160, 64)],
    "ch_PP-OCRv4_rec_infer.onnx": [(1, 3, 48, 160), (2, 3, 48, 72)],
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": [(1, 3, 48, 192), (3, 3, 48, 96)],
}


def make_image(rng, shape):
    """Dark strokes on a light ground, from -1 to 1, with some noise."""
    image = np.full(shape, 0.8, np.float32)
    for _ in range(40):
        top, left = rng.integers(0, shape[2]), rng.integers(0, shape[3])
        tall, wide = (12, 2) if rng.random() < 0.5 else (2, 9)
        image[:, :, top:top + tall, left:left + wide] = -0.9
    return image + 0.05 * rng.standard_normal(shape).astype(np.float32)


def check_models(checks, folder, rng):
    unpacked, reason = support.package("rapidocr-onnxruntime==1.4.4")
    if unpacked is None:
        print(f"without the models: {reason}")
        return
    for name, shapes in OCR_MODELS.items():
        here, path = folder / name, next(unpacked.rglob(name))
        images = [make_image(rng, shape) for shape in shapes]
        for index, image in enumerate(images):
            write_inputs(here / f"test_data_set_{index}", [image])
        (here / "model.onnx").symlink_to(path)
        done = support.run(support.tool("nibble-run-reference"), here, timeout=600)
        checks.check(done.code == 0, done)
        print(f"{name}: {done.seconds:.0f} s")
        for index, image in enumerate(images):
            results = read_results(here / f"test_data_set_{index}")
            if not checks.check(len(results) == 1, f"{name} {image.shape}: no result"):
                continue
            peer = run_onnxruntime(path, [image])[0]
            apart = np.abs(results[0] - peer)
            print(f"{name} {image.shape}: up to {np.abs(peer).max():.3f}, at most "
                  f"{apart.max():.1e} apart")
            # ONNX Runtime's own sigmoid is right to 1e-7 only, also where it is small.
            checks.check((apart <= 1e-4 * np.abs(peer) + 1e-6).all(),
                         f"{name} {image.shape}: {apart.max()} beside ONNX Runtime")


def main():
    checks = support.Checks()
    rng = np.random.default_rng(11)
    with support.scratch() as folder:
        folder = pathlib.Path(folder)
        check_cases(checks, folder, rng)
        check_models(checks, folder, rng)
    checks.finish()


if __name__ == "__main__":
    main()
