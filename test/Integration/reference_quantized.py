# RUN: %python %s
# REQUIRES: numpy, onnx, ml_dtypes
"""Runs nibble.dequantize, quantize, quantize_dynamic, gather and matmul as the reference
lowering defines them, against NumPy and ml_dtypes that follow docs/Spec.md: every
storage, odd shapes, short last blocks, with and without zero points."""

import dataclasses
import itertools
import pathlib
import sys

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

import support

NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
     -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
     0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], np.float32)
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3], np.float32) / np.float32(12)
CODE_BOOKS = {
    "nf4": NF4,
    "fp4": np.concatenate([FP4, -FP4]),
    "codebook<[-1.5, -0.25, 0.0, 0.125, 2.0]>":
        np.array([-1.5, -0.25, 0, 0.125, 2], np.float32),
}
FLOATS = {
    "f8E4M3FN": ml_dtypes.float8_e4m3fn,
    "f8E5M2": ml_dtypes.float8_e5m2,
    "f4E2M1FN": ml_dtypes.float4_e2m1fn,
}
INTEGERS = [f"{sign}{bits}" for bits in range(2, 9) for sign in "iu"] + ["i16", "u16"]
SCALES = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f8E8M0FNU": ml_dtypes.float8_e8m0fnu,
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """What a code is: its MLIR and NumPy types, and the numbers of all codes."""

    name: str

    @property
    def is_integer(self):
        return self.name in INTEGERS or self.name == "i32"

    @property
    def bits(self):
        if self.is_integer:
            return int(self.name[1:])
        if self.name in CODE_BOOKS:
            return (len(CODE_BOOKS[self.name]) - 1).bit_length()
        return 4 if self.name == "f4E2M1FN" else 8

    @property
    def element(self):
        """MLIR type of a tensor of codes."""
        if self.name in FLOATS:
            return self.name
        signed = self.is_integer and self.name[0] == "i"
        return f"{'' if signed else 'u'}i{self.bits}"

    @property
    def limits(self):
        if self.name[0] == "u":
            return 0, 2**self.bits - 1
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    def random_codes(self, rng, shape):
        if self.is_integer:
            low, high = self.limits
            return rng.integers(low, high + 1, shape)
        if self.name in CODE_BOOKS:
            return rng.integers(0, len(CODE_BOOKS[self.name]), shape)
        codes = rng.integers(0, 2**self.bits, shape).astype(np.uint8)
        return codes.view(FLOATS[self.name])

    def values(self, codes):
        """v(q) of Spec S3, in f32."""
        if self.name in CODE_BOOKS:
            return CODE_BOOKS[self.name][codes]
        return np.asarray(codes).astype(np.float32)

    def nearest(self, quotient):
        """The codes of float storage and code books for a quotient (Spec S9, S10)."""
        quotient = np.asarray(quotient, np.float32)
        if self.name in CODE_BOOKS:
            exact = np.nan_to_num(quotient.astype(np.float64), nan=0.0,
                                  posinf=np.inf, neginf=-np.inf)
            book = CODE_BOOKS[self.name].astype(np.float64)
            order = np.argsort(book, kind="stable")
            codes = np.full(exact.shape, order[0])
            for below, above in itertools.pairwise(order):
                mean = (book[below] + book[above]) / 2
                wins = exact >= mean if above < below else exact > mean
                # Of equal entries the lower code wins.
                wins &= book[below] != book[above]
                codes = np.where(wins, above, codes)
            return codes
        kind = FLOATS[self.name]
        largest = np.float32(ml_dtypes.finfo(kind).max)
        if self.name == "f4E2M1FN":
            quotient = np.where(np.isnan(quotient), np.float32(0), quotient)
        return np.clip(quotient, -largest, largest).astype(kind)


def spreader(block):
    """A function that spreads one number a block over the elements; an extent of None is
    the whole axis."""
    def spread(grid, shape):
        for axis, (extent, size) in enumerate(zip(block, shape)):
            extent = size if extent is None else extent
            grid = np.repeat(grid, extent, axis)[tuple(
                slice(0, size) if i == axis else slice(None) for i in range(grid.ndim))]
        return grid
    return spread


def grid_shape(shape, block):
    return tuple(1 if extent is None else -(-size // extent)
                 for size, extent in zip(shape, block))


def block_text(block):
    return "[" + ", ".join("*" if extent is None else str(extent) for extent in block) + "]"


def tensor(shape, element):
    return "tensor<" + "".join(f"{size}x" for size in shape) + element + ">"


PACKED = {2: {True: "INT2", False: "UINT2"}, 4: {True: "INT4", False: "UINT4"}}


def to_proto(array, element):
    """A TensorProto of `array` for an argument of MLIR type `element`."""
    if element == "f8E8M0FNU":
        return numpy_helper.from_array(array.astype(ml_dtypes.float8_e8m0fnu))
    if element in FLOATS:
        return numpy_helper.from_array(array.astype(FLOATS[element]))
    if element in ("f32", "f16"):
        return numpy_helper.from_array(array.astype(np.float32 if element == "f32"
                                                    else np.float16))
    if element == "bf16":
        return numpy_helper.from_array(array.astype(ml_dtypes.bfloat16))
    bits = int(element.lstrip("ui"))
    signed = not element.startswith("u")
    if bits in PACKED:
        return numpy_helper.from_array(
            array.astype(getattr(ml_dtypes, ("int" if signed else "uint") + str(bits))))
    return numpy_helper.from_array(array.astype(f"{'i' if signed else 'u'}{bits // 8}"))


def has_proto(element):
    """ONNX has tensors of every element but integers of 3, 5, 6 and 7 bits."""
    return element.lstrip("ui") not in ("3", "5", "6", "7")


class Programs:
    """Small models in MLIR, with their inputs, run by one call of the tool."""

    def __init__(self, folder):
        self.folder = folder
        self.expected = {}

    def add(self, name, arguments, body, results):
        """arguments: [(array, MLIR element)]. A tensor of codes that ONNX has no type
        for is a constant of the program. results: [(expected array, tensor type)]."""
        place = self.folder / name
        data = place / "test_data_set_0"
        data.mkdir(parents=True)
        header, constants = [], []
        for number, (array, element) in enumerate(arguments):
            kind = tensor(array.shape, element)
            if has_proto(element):
                path = data / f"input_{len(header)}.pb"
                path.write_bytes(to_proto(array, element).SerializeToString())
                header.append(f"%a{number}: {kind}")
            else:
                numbers = np.array2string(array, separator=", ", threshold=sys.maxsize)
                constants.append(f"%a{number} = onnx.constant \"a{number}\" : {kind} = "
                                 f"dense<{numbers if array.size else '[]'}>")
        outputs = ", ".join(kind for _, kind in results)
        names = ", ".join(f"%r{i}" for i in range(len(results)))
        lines = constants + body.strip().splitlines() + [f"return {names} : {outputs}"]
        text = f"func.func @main({', '.join(header)}) -> ({outputs}) {{\n  "
        text += "\n  ".join(line.strip() for line in lines) + "\n}\n"
        (place / "model.mlir").write_text(text)
        self.expected[name] = [array for array, _ in results]

    def run(self, checks):
        names = list(self.expected)
        for start in range(0, len(names), 64):
            chunk = names[start:start + 64]
            done = support.run(support.tool("nibble-run-reference"),
                               *[self.folder / name for name in chunk], timeout=600)
            checks.check(done.code == 0, done)
            for name in chunk:
                self.compare(checks, name)

    def compare(self, checks, name):
        for number, expected in enumerate(self.expected[name]):
            path = self.folder / name / f"test_data_set_0/actual/output_{number}.pb"
            if not checks.check(path.exists(), f"{name}: no result"):
                return
            actual = numpy_helper.to_array(onnx.load_tensor(str(path)))
            wanted = np.asarray(expected)
            if not checks.check(actual.shape == wanted.shape,
                                f"{name}: shape {actual.shape}, not {wanted.shape}"):
                continue
            same = bits(actual) == bits(wanted.astype(actual.dtype))
            both_nan = np.isnan(actual.astype(np.float32)) & np.isnan(
                wanted.astype(np.float32))
            wrong = ~(same | both_nan)
            checks.check(not wrong.any(), lambda: (
                f"{name}, result {number}: {wrong.sum()} of {wrong.size} differ, first "
                f"{actual[wrong][0]} for {wanted[wrong][0]}"))


def bits(array):
    """The bytes of each element, so that -0 and 0 differ."""
    if array.dtype.itemsize == 1:
        return array.view(np.uint8)
    return array.view(f"u{array.dtype.itemsize}")


def random_scales(rng, shape, kind):
    """Scales of both signs, over many magnitudes, as stored."""
    exponents = rng.integers(-9, 4, shape)
    scales = np.ldexp(1 + rng.random(shape), exponents)
    if kind != "f8E8M0FNU":
        scales *= rng.choice([-1, 1], shape)
    return scales.astype(SCALES[kind])


def divide(a, b):
    with np.errstate(all="ignore"):
        return (a / b).astype(np.float32)


# Shape and block: per tensor, per column, groups with a short last one, tiles, one row.
GEOMETRIES = [
    ((7, 5), (None, None)),
    ((7, 5), (None, 1)),
    ((37, 3), (16, 1)),
    ((19, 23), (8, 8)),
    ((1, 65), (1, 32)),
    ((3, 1, 10), (1, None, 4)),
    ((2, 3), (32, 1)),
]


def add_linear(programs, rng, storage, scale, zero, shape, block, element):
    """dequantize, quantize and gather of one encoding."""
    grid = grid_shape(shape, block)
    spread = spreader(block)
    codes = storage.random_codes(rng, shape)
    scales = random_scales(rng, grid, scale)
    encoding = (f"#nibble.quantized<{storage.name}, block = {block_text(block)}, "
                f"scale = {scale}" + (f", zero = {zero}" if zero else "") + ">")
    quantized = "tensor<" + "".join(f"{s}x" for s in shape) + f"{element}, {encoding}>"
    arguments = [(codes, storage.element), (scales, scale)]
    zeros = None
    if zero in SCALES:
        zeros = (rng.standard_normal(grid) * 3).astype(SCALES[zero])
    elif zero:
        zeros = Storage(zero).random_codes(rng, grid)
    if zero:
        arguments.append((zeros, zero if zero in SCALES else Storage(zero).element))
    parts = "scales(%a1)" + (" zeros(%a2)" if zero else "")

    target = SCALES[element]
    with np.errstate(all="ignore"):
        wide = spread(scales.astype(np.float32), shape)
        offset = spread(zeros.astype(np.float32), shape) if zero else np.float32(0)
        expressed = ((storage.values(codes) - offset) * wide).astype(np.float32)
        expressed = expressed.astype(target)

    name = "_".join([storage.name.split("<")[0], scale, zero or "none", element,
                     "x".join(map(str, shape)), "b".join(map(str, block))])
    name = name.replace("None", "w")
    programs.add("dequantize_" + name, arguments,
                 f"%q = nibble.assemble %a0 {parts} : {quantized}\n"
                 f"%r0 = nibble.dequantize %q : {quantized}",
                 [(expressed, tensor(shape, element))])

    # Numbers from deep inside to far outside the range, halves, and what is no number.
    data = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape)
    halves = rng.integers(-9, 9, shape) / 2 * spread(scales.astype(np.float64), shape)
    data = np.where(rng.random(shape) < 0.3, halves, data)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38])
    data = np.where(rng.random(shape) < 0.1, rng.choice(special, shape), data)
    with np.errstate(all="ignore"):
        data = data.astype(target)
    quotient = divide(data.astype(np.float32), wide)
    if storage.is_integer:
        quotient = np.where(np.isnan(quotient), np.float32(0), quotient)
        if zero in SCALES:
            rounded = np.rint((quotient + offset).astype(np.float32))
        else:
            rounded = np.rint(quotient) + offset
        chosen = np.clip(rounded, *storage.limits).astype(np.int64)
    else:
        chosen = storage.nearest(quotient)
    if has_proto(storage.element):
        programs.add("quantize_" + name, [(data, element)] + arguments[1:],
                     f"%q = nibble.quantize %a0 {parts} : {quantized}\n"
                     f"%r0 = nibble.codes %q : {quantized}",
                     [(chosen, tensor(shape, storage.element))])
    else:
        # The codes have no ONNX type; the numbers that they stand for say as much.
        with np.errstate(all="ignore"):
            back = ((storage.values(chosen) - offset) * wide).astype(target)
        programs.add("quantize_" + name, [(data, element)] + arguments[1:],
                     f"%q = nibble.quantize %a0 {parts} : {quantized}\n"
                     f"%r0 = nibble.dequantize %q : {quantized}",
                     [(back, tensor(shape, element))])

    if len(shape) == 2:
        indices = rng.integers(-shape[0], shape[0], (2, 3))
        result = (2, 3, shape[1])
        programs.add("gather_" + name, arguments + [(indices, "i64")],
                     f"%q = nibble.assemble %a0 {parts} : {quantized}\n"
                     f"%r0 = nibble.gather %q[%a{len(arguments)}] axis 0 : {quantized}, "
                     "tensor<2x3xi64>",
                     [(expressed[indices], tensor(result, element))])


def add_all_linear(programs, rng):
    for number, name in enumerate(INTEGERS + list(FLOATS) + list(CODE_BOOKS)):
        storage = Storage(name)
        for index, (shape, block) in enumerate(GEOMETRIES):
            scale = list(SCALES)[(number + index) % len(SCALES)]
            zeros = [None]
            if storage.is_integer:
                zeros += [name, ("f32", "f16", "bf16", "i16")[index % 4]]
            for zero in dict.fromkeys(zeros):
                element = ("f32", "f16", "bf16")[index % 3]
                add_linear(programs, rng, storage, scale, zero, shape, block, element)


def add_dynamic(programs, rng):
    """quantize_dynamic with f32 scales: Spec S11."""
    for name in ["i4", "u4", "i8", "u8", "f8E4M3FN", "f4E2M1FN", "nf4"]:
        storage = Storage(name)
        for has_zero in ([False, True] if storage.is_integer else [False]):
            for shape, block in GEOMETRIES:
                data = (rng.standard_normal(shape) + rng.choice([-2, 0, 2])).astype(np.float32)
                data[0] = np.where(rng.random(data[0].shape) < 0.2, 0, data[0])
                if block == (None, 1):
                    data[:, 0] = 0
                grid = grid_shape(shape, block)
                low = np.zeros(grid, np.float32)
                high = np.zeros(grid, np.float32)
                for place in np.ndindex(*grid):
                    part = data[tuple(
                        slice(None) if extent is None
                        else slice(at * extent, (at + 1) * extent)
                        for at, extent in zip(place, block))]
                    low[place], high[place] = min(0, part.min()), max(0, part.max())
                spread = spreader(block)
                zero = None
                if has_zero:
                    least, most = storage.limits
                    scales = (high - low) / np.float32(most - least)
                else:
                    if storage.is_integer:
                        largest = storage.limits[1]
                    elif name in FLOATS:
                        largest = float(ml_dtypes.finfo(FLOATS[name]).max)
                    else:
                        largest = 1.0
                    scales = np.maximum(high, -low) / np.float32(largest)
                scales = np.where((low == 0) & (high == 0), np.float32(1), scales)
                results = [(scales, tensor(grid, "f32"))]
                quotient = divide(data, spread(scales, shape))
                if has_zero:
                    zero = np.clip(np.rint(np.float32(least) - divide(low, scales)),
                                   least, most).astype(np.int64)
                    codes = np.clip(np.rint(quotient) + spread(zero, shape), least, most)
                    results.append((zero, tensor(grid, storage.element)))
                elif storage.is_integer:
                    codes = np.clip(np.rint(quotient), *storage.limits)
                else:
                    codes = storage.nearest(quotient)
                if storage.is_integer:
                    codes = codes.astype(np.int64)
                results.append((codes, tensor(shape, storage.element)))
                kind = ("tensor<" + "".join(f"{s}x" for s in shape) +
                        f"f32, #nibble.quantized<{name}, block = {block_text(block)}, "
                        "scale = f32" + (f", zero = {name}" if has_zero else "") + ">>")
                body = f"%q = nibble.quantize_dynamic %a0 : {kind}\n"
                body += f"%r0 = nibble.scales %q : {kind}\n"
                if has_zero:
                    body += f"%r1 = nibble.zeros %q : {kind}\n"
                body += f"%r{len(results) - 1} = nibble.codes %q : {kind}"
                label = f"dynamic_{name}_{has_zero}_{'x'.join(map(str, shape))}_"
                label += "b".join(map(str, block)).replace("None", "w")
                programs.add(label, [(data, "f32")], body, results)


def add_nested(programs, rng):
    """Double quantization (Spec S7), flat blocks, and both kinds of outliers (S8)."""
    shape, grid = (70, 3), (5, 3)
    codes = Storage("nf4").random_codes(rng, shape)
    inner = rng.integers(0, 256, grid)
    inner_scales = random_scales(rng, (4,), "f32")
    inner_zeros = rng.standard_normal(4).astype(np.float32)
    flat = np.repeat(np.arange(4), 4)[:15].reshape(grid)
    scales = ((inner.astype(np.float32) - inner_zeros[flat]) * inner_scales[flat])
    expressed = NF4[codes] * np.repeat(scales.astype(np.float32), 16, 0)[:70]
    nested = "quantized<u8, block = flat [4], scale = f32, zero = f32>"
    outer = f"tensor<70x3xf32, #nibble.quantized<nf4, block = [16, 1], scale = {nested}>>"
    inner_type = f"tensor<5x3xf32, #nibble.{nested}>"
    programs.add("nested", [(codes, "ui4"), (inner, "ui8"), (inner_scales, "f32"),
                            (inner_zeros, "f32")],
                 f"%s = nibble.assemble %a1 scales(%a2) zeros(%a3) : {inner_type}\n"
                 f"%q = nibble.assemble %a0 scales(%s) : {outer}\n"
                 f"%r0 = nibble.dequantize %q : {outer}",
                 [(expressed, tensor(shape, "f32"))])

    codes = rng.integers(-128, 128, (9, 5))
    scales = random_scales(rng, (1, 5), "f32")
    plain = codes.astype(np.float32) * scales
    rows, values = np.array([1, 4, 8]), rng.standard_normal((3, 5)).astype(np.float16)
    replaced = plain.copy()
    replaced[rows] = values.astype(np.float32)
    kind = ("tensor<9x5xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, "
            "outliers = columns<0, f16>>>")
    arguments = [(codes, "i8"), (scales, "f32"), (rows.astype(np.int32), "i32"),
                 (values, "f16")]
    body = ("%q = nibble.assemble %a0 scales(%a1) outliers(%a2, %a3 : tensor<3xi32>, "
            f"tensor<3x5xf16>) : {kind}\n")
    programs.add("columns", arguments, body + f"%r0 = nibble.dequantize %q : {kind}",
                 [(replaced, "tensor<9x5xf32>")])
    programs.add("columns_gathered", arguments + [(np.array([4, -1, 0]), "i64")],
                 body + f"%r0 = nibble.gather %q[%a4] axis 0 : {kind}, tensor<3xi64>",
                 [(replaced[[4, -1, 0]], "tensor<3x5xf32>")])

    places = np.array([[0, 4], [3, 0], [3, 2], [8, 4]])
    values = rng.standard_normal(4).astype(ml_dtypes.bfloat16)
    replaced = plain.copy()
    replaced[places[:, 0], places[:, 1]] = values.astype(np.float32)
    kind = kind.replace("columns<0, f16>", "sparse<bf16>")
    programs.add("sparse", [(codes, "i8"), (scales, "f32"), (places, "i64"),
                            (values, "bf16")],
                 "%q = nibble.assemble %a0 scales(%a1) outliers(%a2, %a3 : tensor<4x2xi64>, "
                 f"tensor<4xbf16>) : {kind}\n%r0 = nibble.dequantize %q : {kind}",
                 [(replaced, "tensor<9x5xf32>")])


def round_rows(data, block):
    """Activations of i8 compute: Spec S13, S11."""
    rounded = data.copy()
    for start in range(0, data.shape[-1], block):
        part = rounded[..., start:start + block]
        scale = np.abs(part).max(-1, keepdims=True) / np.float32(127)
        scale = np.where(scale == 0, np.float32(1), scale)
        part[...] = np.clip(np.rint(part / scale), -128, 127) * scale
    return rounded


def add_book_matmul(programs, rng):
    """Integer compute rounds the entries of a code book: Spec S13."""
    for name, entries in CODE_BOOKS.items():
        codes = rng.integers(0, len(entries), (32, 3))
        scales = random_scales(rng, (2, 3), "f32")
        data = rng.standard_normal((4, 32)).astype(np.float32)
        step = np.abs(entries).max() / np.float32(127)
        rounded = np.rint(entries / step) * step
        weight = rounded[codes] * scales[np.arange(32) // 16]
        kind = f"tensor<32x3xf32, #nibble.quantized<{name}, block = [16, 1], scale = f32>>"
        programs.add(f"matmul_i8_{name[:4].rstrip('<')}",
                     [(data, "f32"), (codes, Storage(name).element), (scales, "f32")],
                     f"%q = nibble.assemble %a1 scales(%a2) : {kind}\n"
                     f"%r0 = nibble.matmul %a0, %q compute i8 : tensor<4x32xf32>, {kind}",
                     [(matmul(round_rows(data, 16), weight), "tensor<4x3xf32>")])


def matmul(a, w):
    """Products and sums in f32, ascending k: Spec S12, bit for bit."""
    result = np.zeros((*a.shape[:-1], w.shape[1]), np.float32)
    for k in range(w.shape[0]):
        result += a[..., k, None] * w[k]
    return result


def add_matmul(programs, rng):
    for transposed, compute, biased in itertools.product(
            [False, True], ["f32", "f16", "bf16", "i8"], [False, True]):
        for lead, k, n in [((3,), 37, 5), ((2, 1), 64, 3), ((), 9, 1)]:
            codes = rng.integers(0, 16, (k, n))
            scales = random_scales(rng, (-(-k // 16), n), "f16")
            zeros = rng.integers(0, 16, scales.shape)
            row = np.arange(k) // 16
            weight = ((codes - zeros[row]).astype(np.float32) *
                      scales.astype(np.float32)[row])
            data = rng.standard_normal((*lead, k)).astype(np.float32)
            bias = rng.standard_normal(n).astype(np.float32)
            a, w = data, weight
            if compute in ("f16", "bf16"):
                a, w = (x.astype(SCALES[compute]).astype(np.float32) for x in (a, w))
            elif compute == "i8":
                a = round_rows(data, 16)
            expected = matmul(a, w)
            if biased:
                expected = expected + bias
            shape, block = (k, n), "[16, 1]"
            parts = [codes, scales, zeros]
            if transposed:
                shape, block = (n, k), "[1, 16]"
                parts = [part.T.copy() for part in parts]
            kind = (f"tensor<{shape[0]}x{shape[1]}xf32, #nibble.quantized<u4, block = {block},"
                    " scale = f16, zero = u4>>")
            arguments = [(data, "f32"), (parts[0], "ui4"), (parts[1], "f16"), (parts[2], "ui4")]
            if biased:
                arguments.append((bias, "f32"))
            body = f"%q = nibble.assemble %a1 scales(%a2) zeros(%a3) : {kind}\n"
            body += "%r0 = nibble.matmul %a0, " + ("transposed " if transposed else "") + "%q "
            body += f"bias(%a4 : tensor<{n}xf32>) " if biased else ""
            body += f"compute {compute} : {tensor(data.shape, 'f32')}, {kind}"
            label = f"matmul_{compute}_{transposed}_{biased}_{k}x{n}_{len(lead)}"
            programs.add(label, arguments, body, [(expected, tensor(expected.shape, "f32"))])


def main():
    checks = support.Checks()
    rng = np.random.default_rng(20)
    with support.scratch() as folder:
        programs = Programs(pathlib.Path(folder))
        add_all_linear(programs, rng)
        add_dynamic(programs, rng)
        add_nested(programs, rng)
        add_matmul(programs, rng)
        add_book_matmul(programs, rng)
        print(f"{len(programs.expected)} programs")
        programs.run(checks)
    checks.finish()


if __name__ == "__main__":
    main()
