"""`luthier eval RUN|MODEL --dataset NAME`: the words of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from luthier.config.options import take
from luthier.errors import UsageError

HELP = """usage: luthier eval RUN|MODEL --dataset NAME [key=value | --key value ...]

Ask the base and the tuned model the same rows, and say with intervals what tuning changed.

  --task KIND        what the data set asks for (recognised otherwise): labels, extraction, text, calls,
                     choice, number, perplexity
  --suite false      leave out the general questions that show what was forgotten (true: ask a model, too)
  --baseline only    evaluate only the base
  --shots K          also ask the base with K examples of the training data in its prompt: the same ones for
                     all questions, and those most like each question (default: 4 with --baseline only)
  --examples NAME    the data set that these examples are taken from (default: what the run was trained on)
  --curve 10,25,50   also train on these shares of the run's data (in per cent; 100 is the run itself), and
                     say what twice the data would bring
  --judge URL        let a model of an OpenAI-compatible server (http://localhost:11434/v1) compare answers to
                     questions of free text; its key is read from $LUTHIER_JUDGE_KEY or $OPENAI_API_KEY
  --judge_model NAME the name of that model
  --judge_rows N     judge so many rows of each data set, drawn by the seed (default: 100)
  --judge_kinds KINDS
                     kinds of tasks that are judged, such as text,extraction, or all (default: text)
  --tolerance 0.01   how far an answer may be from the right number, as a part of it (default: 1e-6)
  --schema FILE      a JSON schema that extracted JSON is to meet
  --lm_eval TASKS    tasks of the lm-eval package, too, such as arc_easy,gsm8k; needs luthier[lm-eval]
  --lm_eval_limit N  only the first N samples of each of these tasks
  --lm_eval_path DIR tasks of your own in lm-eval's YAML; Python functions that they name are run
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
    print(
        json.dumps(result, ensure_ascii=False, allow_nan=False)
        if config.format == "json"
        else report.table(result)
    )
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


def _shares(name: str, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(share) for share in value.split(","))
    except ValueError as error:
        raise UsageError(f"--{name}: {value} -> shares in per cent: 10,25,50,100") from error


def _from_zero(name: str, value: str) -> int:
    return 0 if value == "0" else _count(name, value)


def _names(name: str, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _tolerance(name: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise UsageError(f"--{name}: {value} -> a part of the right number from 0 to below 1, such as 0.01")
    return found


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and int(value) > 0):
        raise UsageError(f"--{name}: {value} -> a whole number from 1 on")
    return int(value)


def _kinds(name: str, value: str) -> tuple[str, ...]:
    from luthier.measure.tasks import KINDS

    found = tuple(value.split(","))
    wrong = [kind for kind in found if kind not in (*KINDS, "all")]
    if wrong:
        raise UsageError(f'--{name}: "{wrong[0]}" is no kind of task -> all, or some of {",".join(KINDS)}')
    return found


_READ: dict[str, Callable[[str, str], Any]] = {
    **{"tolerance": _tolerance, "schema": _text},
    **{"task": _text, "suite": _boolean, "baseline": _only, "curve": _shares},
    **{"shots": _from_zero, "examples": _names},
    **{"lm_eval": _names, "lm_eval_limit": _count, "lm_eval_path": _text},
    **{"judge": _text, "judge_model": _text, "judge_rows": _count, "judge_kinds": _kinds},
}
"""Options beside the configuration's keys: field of `Request` -> how its value is read."""
