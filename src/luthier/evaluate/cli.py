"""`luthier eval RUN|MODEL --dataset NAME`: the words of the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence

from luthier.errors import UsageError

HELP = """usage: luthier eval RUN|MODEL --dataset NAME [key=value | --key value ...]

Ask the base and the tuned model the same rows, and say with intervals what tuning changed.

  --task KIND        what the data set asks for (recognised otherwise): labels, extraction, text, calls,
                     choice, number, perplexity
  --suite false      leave out the general questions that show what was forgotten (true: ask a model, too)
  --baseline only    evaluate only the base
  --format json      print report.json

Other keys are those of predict:"""
_BOOLEANS = {"true": True, "false": False}


def main(args: Sequence[str]) -> int:
    """Figures to stdout, everything else to stderr; 0 when the report is written."""
    if "--help" in args or "-h" in args:
        from luthier.config.cli import main_help

        print(HELP)
        return main_help("predict")
    words, task = take(args, "task")
    words, suite = take(words, "suite")
    words, baseline = take(words, "baseline")
    if suite not in (None, *_BOOLEANS):
        raise UsageError(f"--suite: {suite} -> true or false")
    if baseline not in (None, "only"):
        raise UsageError(f"--baseline: {baseline} -> only, or leave it out to compare before and after")

    from luthier.config import load, resolve
    from luthier.evaluate import report
    from luthier.evaluate.run import Request, evaluate
    from luthier.model import machine
    from luthier.streams import say

    config = resolve(load(words, "predict"), machine.detect())
    for note in config.notes:
        say(f"note: {note}")
    request = Request(task, _BOOLEANS[suite] if suite else None, baseline == "only")
    result = evaluate(config, request)
    print(json.dumps(result, ensure_ascii=False) if config.format == "json" else report.table(result))
    return 0


def take(words: Sequence[str], name: str) -> tuple[list[str], str | None]:
    """Remove `--name VALUE`, `--name=VALUE` or `name=VALUE`: the other words, and VALUE or None."""
    rest: list[str] = []
    value: str | None = None
    left = list(words)
    while left:
        word = left.pop(0)
        if word == f"--{name}":
            if not left:
                raise UsageError(f"--{name}: needs a value")
            value = left.pop(0)
        elif word.startswith((f"--{name}=", f"{name}=")):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, value
