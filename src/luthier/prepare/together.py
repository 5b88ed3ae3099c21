"""The commands of several findings as one: each alone would write the same NAME.clean.EXT."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from luthier.prepare.report import Finding
from luthier.prepare.steps import STEPS
from luthier.prepare.steps.placeholders import GAP

START = ["luthier", "data", "clean"]
_HALF = "deduplication.near=false"


def command(findings: Iterable[Finding]) -> str:
    """One `luthier data clean` with the steps and options of all findings that have such a command and leave
    nothing to fill in or to decide; "" where fewer than two do."""
    fixes = dict.fromkeys(one.fix for one in findings if one.fix.startswith("luthier data clean "))
    asked = [shlex.split(fix) for fix in fixes if GAP not in fix]
    if len(asked) < 2:
        return ""
    data: list[str] = []
    steps: set[str] = set()
    options: dict[str, None] = {}
    other = ""
    for words in asked:
        at = next(i for i, word in enumerate(words) if word in ("--steps", "--not-in"))
        data = words[len(START) : at]
        if words[at] == "--not-in":
            other = other or words[at + 1]
            continue
        steps.add(words[at + 1])
        options |= dict.fromkeys(words[at + 2 :])
    if any("deduplication" in words and _HALF not in words for words in asked):
        options.pop(_HALF, None)
    names = [step for step in STEPS if step in steps]
    made = [*START, *data, *(["--steps", ",".join(names)] if names else [])]
    return shlex.join([*made, *options, *(["--not-in", other] if other else [])])
