"""What an evaluation found, as report.json and as a table on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luthier.evaluate import wording
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
            lines.append("  " + wording.scoring(wording.words("en"), detail["scoring"]))
        if "curve" in detail:
            lines += [f"  {line}" for line in _curve(detail["curve"])]
        if "judge" in detail:
            lines.append("  " + _judged(detail["judge"]))
            lines += [f"  note: {one['en']}" for one in detail["judge"]["notes"]]
        lines += [f"  advice: {text}" for text in wording.notes(detail, "advice", "en")]
    others = result["details"].get(wording.LM_EVAL, {})
    lines += [f"note: {text}" for text in wording.notes(others, "notes", "en")]
    return "\n".join(lines).lstrip("\n")


def _interval(metric: str, figure: Figure) -> str:
    return f"{kinds.number(metric, figure['low'])} to {kinds.number(metric, figure['high'])}"


def _words(metric: str, figure: Figure) -> str:
    before, after = (kinds.number(metric, figure[side]) for side in ("before", "after"))
    interval = _interval(metric, figure)
    if figure["verdict"] is None and None not in (figure["before"], figure["after"]):
        return f"{before} -> {after}  (no interval, {figure['n']} rows)"
    if figure["verdict"] is None:
        value = after if figure["after"] is not None else before
        return f"{value}  (95 % interval {interval}, {figure['n']} rows)"
    return f"{before} -> {after}  {figure['verdict']}  (difference {interval}, {figure['n']} rows)"


def _judged(found: Mapping[str, Any]) -> str:
    """The judge's figures in one sentence."""
    if found["form"] == "grade":
        grade = found["grade"]
        value = "-" if grade["value"] is None else f"{grade['value']:.2f}"
        return f"judge {found['model']}: mean grade {value} of 5 ({grade['n']} of {found['rows']} rows)"
    rate, shares = found["win_rate"], {name: found[name] for name in ("agreement", "first_position")}
    value, low, high = (kinds.number("win_rate", rate[name]) for name in ("value", "low", "high"))
    agreement, first = (kinds.number(name, share) for name, share in shares.items())
    kappa = "-" if found["kappa"] is None else f"{found['kappa']:.2f}"
    return (
        f"judge {found['model']}: after wins {value} (95 % interval {low} to {high}, {rate['n']} of"
        f" {found['rows']} rows): {rate['verdict']}; {found['wins']} won, {found['ties']} tied,"
        f" {found['losses']} lost, {found['inconsistent']} inconsistent; both orders agree in {agreement}"
        f" (kappa {kappa}), the first answer is preferred in {first}"
    )


def curve_point(metric: str, point: Mapping[str, Any]) -> str:
    """One point of a learning curve: rows, the metric, its interval."""
    interval = f"{kinds.number(metric, point['low'])} to {kinds.number(metric, point['high'])}"
    value = f"{metric} {kinds.number(metric, point['value'])}"
    return f"{point['rows']:,} rows ({point['share']} %): {value}  (95 % interval {interval})"


def _curve(found: Mapping[str, Any]) -> list[str]:
    points = [curve_point(found["metric"], point) for point in found["points"]]
    return ["learning curve", *points, *(one["en"] for one in found["notes"])]
