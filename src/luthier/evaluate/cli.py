"""`luthier eval RUN|MODEL --dataset NAME`: the words of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from luthier.errors import UsageError

HELP = """usage: luthier eval RUN|MODEL --dataset NAME [key=value | --key value ...]

Ask the base and the tuned model the same rows, and say with intervals what tuning changed.

  --task KIND        what the data set asks for (recognised otherwise): labels, extraction, text, calls,
                     choice, number, perplexity
  --suite false      leave out the general questions that show what was forgotten (true: ask a model, too)
  --baseline only    evaluate only the base
  --format json      print report.json

Other keys are those of predict:"""


def main(args: Sequence[str]) -> int:
    """Figures to stdout, everything else to stderr; 0 when the report is written."""
    if "--help" in args or "-h" in args:
        from luthier.config.cli import main_help

        print(HELP)
        return main_help("predict")
    words, asked = list(args), dict[str, Any]()
    for name, read in _READ.items():
        words, value = take(words, name)
        if value is not None:
            asked[name] = read(name, value)

    from luthier.config import load, resolve
    from luthier.evaluate import report
    from luthier.evaluate.plan import Request
    from luthier.evaluate.run import evaluate
    from luthier.model import machine
    from luthier.streams import say

    config = resolve(load(words, "predict"), machine.detect())
    for note in config.notes:
        say(f"note: {note}")
    result = evaluate(config, Request(**asked))
    print(json.dumps(result, ensure_ascii=False) if config.format == "json" else report.table(result))
    return 0


def _text(name: str, value: str) -> str:
    return value


def _boolean(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise UsageError(f"--{name}: {value} -> true or false")
    return value == "true"


def _only(name: str, value: str) -> bool:
    if value != "only":
        raise UsageError(f"--{name}: {value} -> only, or leave it out to compare before and after")
    return True


_READ: dict[str, Callable[[str, str], Any]] = {"task": _text, "suite": _boolean, "baseline": _only}
"""Options beside the configuration's keys: field of `Request` -> how its value is read."""


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
