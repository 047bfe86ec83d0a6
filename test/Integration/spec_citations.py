# RUN: %python %s
"""Every rule of docs/Spec.md is cited, and every citation names a rule.

Constraints (C) must be cited by the code that checks them and by a test that
breaks them; semantics (S) by the sources. Citations read "Spec C7", "Spec C14
to C18", "Spec S9, S10".
"""

import os
import pathlib
import re
import sys

SOURCE = pathlib.Path(os.environ["NIBBLE_SOURCE_DIR"])
CITATION = re.compile(
    r"Spec ((?:[CS]\d+)(?:(?:,| and| to)(?:\s|//|#|\*)+[CS]\d+)*)", re.DOTALL
)


def rules(text):
    """The rules that a text cites, with ranges written out."""
    cited = set()
    for match in CITATION.finditer(text):
        parts = re.findall(r"(to\W+)?([CS])(\d+)", match.group(1))
        previous = 0
        for is_range, kind, number in parts:
            number = int(number)
            first = previous + 1 if is_range else number
            cited.update(f"{kind}{n}" for n in range(first, number + 1))
            previous = number
    return cited


def cited_under(*folders):
    cited = {}
    for folder in folders:
        for path in sorted((SOURCE / folder).rglob("*")):
            if path.suffix in (".h", ".cpp", ".td", ".mlir", ".py"):
                for rule in rules(path.read_text()):
                    cited.setdefault(rule, path.relative_to(SOURCE))
    return cited


spec = (SOURCE / "docs/Spec.md").read_text()
constraints = set(re.findall(r"\*\*(C\d+)\*\*", spec))
semantics = set(re.findall(r"^### (S\d+)\.", spec, re.MULTILINE))
code = cited_under("include", "lib")
tests = cited_under("test")

problems = []
if not constraints or not semantics:
    problems.append("docs/Spec.md has no rules: has its form changed?")
problems += [f"{r} is not cited in lib/ or include/" for r in constraints - code.keys()]
problems += [f"{r} is not cited in test/" for r in constraints - tests.keys()]
problems += [f"{r} is not cited in the sources" for r in semantics - code.keys()]
problems += [
    f"{path} cites {rule}, which docs/Spec.md does not have"
    for cited in (code, tests)
    for rule, path in cited.items()
    if rule not in constraints | semantics
]
print("\n".join(sorted(problems)) or f"{len(constraints)} constraints, {len(semantics)} semantics")
sys.exit(bool(problems))
