"""What an evaluation found, as report.json, as report.md and as a table on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luthier.evaluate.answers import Job
from luthier.evaluate.notes import Note, note
from luthier.evaluate.systems import System
from luthier.measure import kinds, statistics
from luthier.measure.metrics import extraction, labels
from luthier.measure.types import Answered, Measured
from luthier.runs import manifest

if TYPE_CHECKING:
    from luthier.config import Config

Figure = dict[str, Any]
_LONGEST = 160  # characters of a text in a table


def figures(measured: Mapping[str, Mapping[str, Measured]], seed: int) -> dict[str, Figure]:
    """side -> metric -> Measured, as {"before", "after", "delta", "low", "high", "n", "verdict"} of each.

    With one system only its own value is there, with the interval of that value and no verdict.
    """
    if len(measured) == 2:
        found = statistics.compare_all(measured["before"], measured["after"], seed)
        return {
            name: {
                "before": finite(one.before),
                "after": finite(one.after),
                "delta": finite(one.delta),
                "low": finite(one.low),
                "high": finite(one.high),
                "n": one.n,
                "verdict": one.verdict,
                "p": one.p,
                "corrected": one.corrected,
                "test": one.test,
                "higher": measured["after"][name].higher,
            }
            for name, one in found.items()
        }
    ((side, metrics),) = measured.items()
    result: dict[str, Figure] = {}
    for name, one in metrics.items():
        low, high = map(finite, statistics.interval(one, seed))
        alone: Figure = {"before": None, "after": None, "delta": None, "low": low, "high": high}
        alone |= {"n": len(one.rows), "verdict": None, "higher": one.higher}
        result[name] = {**alone, side: finite(one.value)}
    return result


def about(config: Config, systems: Sequence[System], jobs: Sequence[Job]) -> dict[str, Any]:
    """How it came about: who answered, how was decoded, by what."""
    options = next((job.options for job in jobs if job.options is not None), None)
    return {
        "systems": {one.side: {"name": one.name, **one.identity} for one in systems},
        "decoding": {
            "do_sample": False,
            "max_new_tokens": {job.name: job.options.max_new_tokens for job in jobs if job.options},
            "num_beams": options.num_beams if options else 1,
            "repetition_penalty": options.repetition_penalty if options else 1.0,
        },
        "seed": config.seed,
        "versions": manifest.versions(),
    }


def cut_notes(cut: Mapping[str, int], rows: int, limit: int, given: bool) -> list[Note]:
    """given: the limit is the user's, and not the length of the longest label."""
    key = "answers_cut" if given else "answers_longer_than_labels"
    return [note(key, count=count, rows=rows, side=side, limit=limit) for side, count in cut.items() if count]


def by_part(kind: str, said: Mapping[str, Answered]) -> dict[str, Any]:
    """Which labels, or fields, the figures come from: part -> metric -> {"before", "after"}; of labels also
    the confusion matrix of each side, [right label, answered label or outside]."""
    if kind not in ("labels", "extraction"):
        return {}
    parts = labels.per_class if kind == "labels" else extraction.per_field
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for side, answered in said.items():
        for part, metrics in parts(answered).items():
            for name, one in metrics.items():
                found.setdefault(part, {}).setdefault(name, {})[side] = finite(one.value)
    if kind == "extraction":
        return {"fields": found}
    matrices = {side: labels.confusion(answered) for side, answered in said.items()}
    return {
        "labels": list(next(iter(matrices.values())).labels),
        "per_class": found,
        "confusion": {side: matrix.counts.tolist() for side, matrix in matrices.items()},
    }


def finite(value: float) -> float | None:
    """JSON has no word for a number that is not finite."""
    return float(value) if math.isfinite(value) else None


def table(result: Mapping[str, Any]) -> str:
    """Lines for a terminal: each task with its metrics, before, after and the verdict."""
    lines = []
    for name, metrics in result["tasks"].items():
        detail = result["details"][name]
        lines += ["", f"{name} ({detail['kind']}): {detail.get('why', '')}".rstrip(": ")]
        width = max(map(len, metrics))
        lines += [f"  {metric:<{width}}  {_words(metric, figure)}" for metric, figure in metrics.items()]
        lines += [f"  note: {one['en']}" for one in detail["notes"]]
        if "scoring" in detail:
            lines.append("  " + _scoring(detail["scoring"]))
    return "\n".join(lines).lstrip("\n")


def markdown(result: Mapping[str, Any]) -> str:
    """report.md: a table of each task, what was fixed and what was broken."""
    lines = ["# Evaluation", ""]
    lines += [f"- {side}: {_cell(one['name'])}" for side, one in result["systems"].items()]
    if len(result["systems"]) == 1:
        lines.append("- Only one system was evaluated, so there is nothing to compare with.")
    for name, metrics in result["tasks"].items():
        detail = result["details"][name]
        lines += ["", f"## {name}: {detail['kind']}", ""]
        lines += [detail["why"], ""] if detail.get("why") else []
        lines += [f"- {one['en']}" for one in detail["notes"]] + ([""] if detail["notes"] else [])
        lines += [
            "| metric | before | after | difference | 95 % interval | rows | verdict |",
            "|" + "---|" * 7,
        ]
        lines += [_markdown_row(metric, figure) for metric, figure in metrics.items()]
        if "scoring" in detail:
            lines += ["", _scoring(detail["scoring"])]
        for title in ("fixed", "broken"):
            lines += _examples(title, detail.get(title, []))
    return "\n".join(lines) + "\n"


def _interval(metric: str, figure: Figure) -> str:
    return f"{kinds.number(metric, figure['low'])} to {kinds.number(metric, figure['high'])}"


def _words(metric: str, figure: Figure) -> str:
    before, after = (kinds.number(metric, figure[side]) for side in ("before", "after"))
    interval = _interval(metric, figure)
    if figure["verdict"] is None:
        value = after if figure["after"] is not None else before
        return f"{value}  (95 % interval {interval}, {figure['n']} rows)"
    return f"{before} -> {after}  {figure['verdict']}  (difference {interval}, {figure['n']} rows)"


def _markdown_row(metric: str, figure: Figure) -> str:
    values = [kinds.number(metric, figure[name]) for name in ("before", "after", "delta")]
    cells = [metric, *values, _interval(metric, figure), str(figure["n"]), figure["verdict"] or "-"]
    return f"| {' | '.join(cells)} |"


def _scoring(found: Mapping[str, Any]) -> str:
    figures = (
        f"accuracy {found['generation']:.1%} when written, {found['likelihood']:.1%} by label likelihood"
    )
    advice = {
        "likelihood": "take the likeliest label in deployment",
        "generation": "let the model write the label in deployment",
        "no evidence": "no evidence for either; the likeliest label is never outside the label set",
    }
    return f"{figures}: {advice[found['better']]}."


def _examples(title: str, rows: Sequence[Mapping[str, str]]) -> list[str]:
    if not rows:
        return []
    head = ["", f"### {title.capitalize()}", "", "| row | input | right | before | after |", "|" + "---|" * 5]
    names = ("source", "input", "reference", "before", "after")
    return head + [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows]


def _cell(text: str) -> str:
    """A text in one cell of a table: one line, shortened, nothing in it read as markup."""
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    for sign in "\\`*_[]<>|#":
        line = line.replace(sign, "\\" + sign)
    return line
