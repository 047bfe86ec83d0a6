# RUN: %python %s
# REQUIRES: numpy, onnx, ml_dtypes
"""A sample of ONNX's node cases through `nibble test-onnx`: of each op two cases, and one
with its function written out. What passes and what does not is as docs/OpCoverage.md says,
which scripts/generate-op-coverage writes from all cases."""
"""Runs ONNX's own node tests through the reference lowering, at their own tolerances.

Every case of an op that has a conversion counts; a case with another op is listed as
not covered by name.
"""

import collections
import json
import re

import node_cases
import support

SAMPLE = {False: 2, True: 1}
# Left out: attention in half precision, whose expected output comes from NumPy's half
# arithmetic, which rounds after each operation. Ours sums in f32 and rounds once an op,
# and ends up to two units in the last place away, which is more than these cases allow.
HALF_PRECISION = {
    "test_attention_3d_causal_bf16",
    "test_attention_4d_attn_mask_causal_bf16",
    "test_attention_4d_causal_bf16",
    "test_attention_4d_causal_padded_kv_bf16",
    "test_attention_4d_padded_kv_bf16",
    "test_attention_3d_causal_bf16_expanded",
    "test_attention_4d_attn_mask_causal_bf16_expanded",
    "test_attention_4d_causal_bf16_expanded",
    "test_attention_4d_causal_fp16_expanded",
    "test_attention_4d_causal_padded_kv_bf16_expanded",
    "test_attention_4d_padded_kv_bf16_expanded",
}
# Ops of which at least one case must run.
MUST_COVER = {
    "Add", "ArgMax", "ArgMin", "Attention", "Cast", "CastLike", "Clip", "Compress",
    "Concat", "CumProd", "CumSum", "DequantizeLinear", "Div", "DynamicQuantizeLinear",
    "Einsum", "Erf", "Expand", "EyeLike", "Gather", "GatherElements", "GatherND", "Gelu",
    "Gemm", "HardSigmoid", "LeakyRelu", "LogSoftmax", "MatMul", "MatMulInteger", "Mul",
    "NonZero", "OneHot", "Pow", "QLinearMatMul", "QuantizeLinear", "Range", "ReduceL1",
    "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "Relu", "Reshape", "ReverseSequence", "RotaryEmbedding", "Scatter",
    "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Slice", "Softmax", "Split",
    "Sqrt", "Squeeze", "Sub", "Swish", "Tanh", "Tile", "TopK", "Transpose", "Trilu",
    "Unique", "Unsqueeze", "Where",
    "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv",
    "ConvTranspose", "DequantizeLinear", "Div", "DynamicQuantizeLinear", "Erf", "Expand",
    "Gather", "Gelu", "Gemm", "MaxPool", "Pad", "Resize", "HardSigmoid", "LeakyRelu", "LogSoftmax",
    "MatMul", "MatMulInteger", "Mul", "Pow", "QLinearMatMul", "QuantizeLinear", "Range",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Shape",
    "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Swish", "Tanh",
    "Transpose", "Trilu", "Unsqueeze", "Where",
}


def listed_cases():
    """The cases that docs/OpCoverage.md lists as not passing."""
    text = (support.SOURCE_DIR / "docs/OpCoverage.md").read_text()
    return set(re.findall(r"\btest_\w+", text))


def choose(cases):
    """Of each op the first cases by name that should pass, and the first that should not."""
    by_name = {case.name: case for case in cases}
    listed, counts, chosen = listed_cases(), collections.Counter(), []
    for case in cases:
        expanded = node_cases.is_expanded(case.name)
        op = node_cases.get_op(by_name.get(node_cases.plain_name(case.name), case))
        kind = (op, expanded, case.name in listed)
        counts[kind] += 1
        if counts[kind] <= (1 if kind[-1] else SAMPLE[expanded]):
            chosen.append(case)
    return chosen, listed
def has_only_numbers(case):
    """Sequences, optional values and strings are no tensors of numbers."""
    values = [*case.model.graph.input, *case.model.graph.output]
    for value in values:
        kind = value.type
        if kind.WhichOneof("value") != "tensor_type":
            return False
        if kind.tensor_type.elem_type in (onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64,
                                          onnx.TensorProto.COMPLEX128):
            return False
    return True


def write_case(case, folder):
    """Writes a case as its folder; returns the expected outputs by data set."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, outputs = case.data_sets[0]
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    kept = []
    for value, number in zip(list(model.graph.input), inputs):
        proto = (number if isinstance(number, onnx.TensorProto)
                 else numpy_helper.from_array(np.asarray(number)))
        kept.append(proto)
    for index, proto in enumerate(kept):
        (data / f"input_{index}.pb").write_bytes(proto.SerializeToString())
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return [to_array(output) for output in outputs]


def difference(actual, expected, rtol, atol):
    """Empty, or how `actual` differs."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return f"{actual.dtype}{actual.shape}, not {expected.dtype}{expected.shape}"
    wide = np.float64
    if actual.dtype.kind in "iub" and actual.dtype.itemsize == 8:
        wide = actual.dtype
    try:
        np.testing.assert_allclose(actual.astype(wide), expected.astype(wide), rtol, atol)
    except AssertionError as error:
        return " ".join(str(error).split())[:160]
    return ""


def main():
    checks = support.Checks()
    chosen, listed = choose(node_cases.load_cases())
    with support.scratch() as scratch:
        folder = node_cases.write_cases(chosen, scratch)
        done = support.run(support.tool("nibble"), "test-onnx", folder, "--json",
                           "--timeout", 120, timeout=580)
        checks.check(done.code in (0, 1), done)
        results = json.loads(done.stdout)["cases"]
    checks.check(len(results) == len(chosen), f"{len(results)} of {len(chosen)} cases ran")
    for result in results:
        passed = result["outcome"] == "passed"
        if result["case"] in listed:
            checks.check(not passed, f"{result['case']} passes: run scripts/generate-op-coverage")
        else:
            checks.check(passed, result)
    print(f"{sum(result['outcome'] == 'passed' for result in results)} cases pass")
    checks.finish("node cases are as docs/OpCoverage.md says")


if __name__ == "__main__":
    main()
