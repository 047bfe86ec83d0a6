#!/usr/bin/env python3
"""Counts test results and says so in one line.

usage: summarize_tests.py FOLDER

FOLDER holds what the test runs left there:
  *.json   lit's report (--output), or another file of its form
  *.xml    lit's xunit report: names the tests that the JSON report leaves out
  *.crash  a stage that died, with a line that says how; one failed test each

Prints every failed test with its output, every skipped test with its reason, and
last "N passed, N failed, N skipped". Exits with 1 unless something passed and
nothing failed. A test that passes may say "SKIPPED: REASON" on a line of its own;
it is then counted as skipped.
"""

import json
import pathlib
import re
import sys
import xml.etree.ElementTree

PASSED = {"PASS", "FLAKYPASS"}
SKIPPED = {"UNSUPPORTED", "SKIPPED", "EXCLUDED", "XFAIL"}


def skip_reason(code, output):
    """Why a test did not run, or None for a test that did."""
    own = re.search(r"^(?:# \| )?SKIPPED: (.*)$", output, re.M)
    if own:
        return own[1]
    if code not in SKIPPED:
        return None
    if code == "XFAIL":
        return "known issue, fails as expected"
    lacking = re.search(r"unavailable features: (.*)", output)
    return f"needs {lacking[1]}" if lacking else output.strip() or code.lower()


def read(folder):
    """Returns (passed names, failed {name: output}, skipped {name: reason})."""
    passed, failed, skipped = [], {}, {}
    for path in sorted(folder.glob("*.crash")):
        failed[f"stage {path.stem}"] = path.read_text()
    for path in sorted(folder.glob("*.json")):
        try:
            tests = json.loads(path.read_text())["tests"]
        except (ValueError, KeyError) as error:
            failed[path.name] = f"not a test report: {error!r}"
            continue
        if not tests:
            failed[path.name] = "no test ran"
        for test in tests:
            name, code, output = test["name"], test["code"], test["output"] or ""
            # The same test may run on several builds.
            name += f" ({path.stem})" if path.stem == "sanitized" else ""
            reason = skip_reason(code, output)
            if code in PASSED | SKIPPED and reason is not None:
                skipped[name] = reason
            elif code in PASSED:
                passed.append(name)
            else:
                failed[name] = f"{code}\n{output}"
    for path in sorted(folder.glob("*.xml")):
        for case in xml.etree.ElementTree.parse(path).iter("testcase"):
            skip = case.find("skipped")
            # lit calls a test that decides itself (GTEST_SKIP) interrupted; those
            # that lack a feature are in the JSON report already.
            if skip is not None and skip.get("message") == "User interrupt":
                name = f"{case.get('classname')}.{case.get('name')}"
                skipped[name] = "by its own decision (GTEST_SKIP)"
    return passed, failed, skipped


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    passed, failed, skipped = read(pathlib.Path(sys.argv[1]))
    for name, output in failed.items():
        print(f"\nFAILED {name}\n{output.rstrip()}")
    if skipped:
        print("\nSkipped:")
    for name, reason in skipped.items():
        print(f"  {name}: {reason}")
    print(f"\n{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    sys.exit(0 if passed and not failed else 1)


main()
