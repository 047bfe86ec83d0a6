# RUN: %python %s
# REQUIRES: numpy, onnx, onnxruntime, ml_dtypes
"""Runs nodes all of whose sizes are known only when the code runs, against ONNX Runtime:
ONNX's own node tests have static sizes."""

import numpy as np

import microsoft_ops
from microsoft_ops import RNG, normal

CASES = []


def add(op, inputs, outputs=1, known=(), rtol=1e-5, atol=1e-5, **attributes):
    names = {f"x{i}": None if array is None else np.asarray(array)
             for i, array in enumerate(inputs)}
    CASES.append(microsoft_ops.Case(
        f"{op} {len(CASES)}", op, names, [f"y{i}" for i in range(outputs)], attributes,
        rtol=rtol, atol=atol, domain="", known=tuple(f"x{i}" for i in known)))


def ints(*values):
    return np.array(values, np.int64)


for equation, *shapes in [
    ("ij,jk->ik", (3, 4), (4, 5)), ("bij,bjk", (2, 3, 4), (2, 4, 5)),
    ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)), ("ii->i", (4, 4)), ("ii", (4, 4)),
    ("ij->ji", (3, 4)), ("ij->", (3, 4)), ("i,j->ij", (3,), (4,)),
    ("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5)), ("bhsd,bhtd->bhst", (1, 2, 3, 4), (1, 2, 5, 4)),
    ("ijj->i", (3, 4, 4)), ("abc,abc->b", (2, 3, 4), (2, 3, 4)),
]:
    add("Einsum", [normal(*shape) for shape in shapes], equation=equation)

TABLE = normal(5, 4, 3)
for axis in (0, 1, -1):
    size = TABLE.shape[axis]
    add("Gather", [TABLE, RNG.integers(-size, size, (2, 3))], axis=axis)
    chosen = np.argsort(RNG.random((5, 4, 3)), axis=axis)
    add("GatherElements", [TABLE, chosen], axis=axis)
    add("ScatterElements", [TABLE, chosen, normal(5, 4, 3)], axis=axis)
    for reduction in ("add", "mul", "max", "min"):
        add("ScatterElements", [TABLE, RNG.integers(0, size, (5, 4, 3)), normal(5, 4, 3)],
            axis=axis, reduction=reduction)
    for largest in (0, 1):
        add("TopK", [TABLE, ints(2)], 2, axis=axis, largest=largest)
    add("CumSum", [TABLE, np.int32(axis)], exclusive=1, reverse=1)
    add("ArgMax", [TABLE.round(), ], axis=axis, select_last_index=1)
    add("Compress", [TABLE, np.array([True, False, True])], axis=axis)
add("TopK", [normal(2, 1000), ints(1000)], 2)
add("TopK", [RNG.integers(0, 9, (3, 257)), ints(100)], 2)
add("GatherND", [TABLE, ints([4, -1], [0, 2])], known=[1])
add("GatherND", [TABLE, RNG.integers(0, 4, (5, 2, 1))], known=[1], batch_dims=1)
add("ScatterND", [TABLE, ints([4], [0]), normal(2, 4, 3)], known=[1])
add("ScatterND", [TABLE, ints([4, 1], [4, 1]), normal(2, 3)], known=[1], reduction="add")
for start, end, axes, steps in [(1, 3, 0, 1), (-1, -9, 1, -2), (0, 100, -1, 2), (3, 1, 0, 1)]:
    add("Slice", [TABLE, ints(start), ints(end), ints(axes), ints(steps)],
        known=[1, 2, 3, 4])
add("Slice", [TABLE, ints(1, 0), ints(5, -1), ints(2, 0), ints(1, 2)], known=[1, 2, 3, 4])
add("Split", [TABLE, ints(2, 0, 3)], 3, known=[1], axis=0)
add("Split", [TABLE], 2, axis=0, num_outputs=2)
add("Split", [TABLE, ints(1, 3)], 2, known=[1], axis=1)
add("Split", [TABLE, ints(1, 1, 1)], 3, known=[1], axis=-1)
add("Expand", [normal(1, 4, 1), ints(3, 1, 2)], known=[1])
add("Tile", [TABLE, ints(1, 2, 3)], known=[1])
add("Reshape", [TABLE, ints(0, -1)], known=[1])
add("Trilu", [TABLE, np.int64(-1)], upper=0)
add("NonZero", [RNG.integers(0, 2, (3, 4, 2)).astype(bool)])
add("Unique", [RNG.integers(0, 5, 30)], 4, sorted=0)
add("Unique", [RNG.integers(0, 5, 30).astype(np.float32)], 4)
add("Unique", [RNG.integers(0, 2, (9, 2)).astype(np.float32)], 4, axis=0)
add("OneHot", [RNG.integers(-5, 5, (2, 3)), np.int64(5), np.array([0, 1], np.float32)], axis=1)
add("ReverseSequence", [normal(4, 3, 2), ints(1, 4, 2)], batch_axis=1, time_axis=0)
add("ReverseSequence", [normal(3, 4, 2), ints(1, 4, 2)], batch_axis=0, time_axis=1)
for op in ("ReduceSum", "ReduceMax", "ReduceMean", "ReduceLogSumExp", "ReduceL2", "ReduceProd"):
    for axes in (ints(0), ints(-1, 1), ints(0, 1, 2)):
        for keep in (0, 1):
            add(op, [TABLE, axes], known=[1], keepdims=keep)
add("ReduceSum", [TABLE, ints()], known=[1], noop_with_empty_axes=1)
add("Squeeze", [normal(1, 3, 1), ints(-1)], known=[1])
add("Unsqueeze", [normal(2, 3), ints(-1, 0)], known=[1])
add("Concat", [normal(2, 3), normal(4, 3), normal(0, 3)], axis=0)
add("MatMul", [normal(2, 1, 3, 4), normal(5, 4, 2)])
add("MatMulInteger", [RNG.integers(0, 256, (2, 3, 4)).astype(np.uint8),
                      RNG.integers(-128, 128, (4, 5)).astype(np.int8), np.uint8(7)])
add("Range", [np.float32(1), np.float32(-3), np.float32(-0.7)])

if __name__ == "__main__":
    microsoft_ops.main(CASES)
