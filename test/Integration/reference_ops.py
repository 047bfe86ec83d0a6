# RUN: %python %s
# REQUIRES: numpy, onnx, ml_dtypes
"""A sample of ONNX's node cases through `nibble test-onnx`: of each op two cases, and one
with its function written out. What passes and what does not is as docs/OpCoverage.md says,
which scripts/generate-op-coverage writes from all cases."""

import collections
import json
import re

import node_cases
import support

SAMPLE = {False: 2, True: 1}


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
