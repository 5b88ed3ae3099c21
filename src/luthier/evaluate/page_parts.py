"""Blocks of the page for any kind of task: slices, examples, shots, the learning curve and the judge.

Each takes a task and returns None, or something empty, where its details do not hold what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from luthier.evaluate import figures, wording
from luthier.evaluate.wording import Part, Task, Words
from luthier.pages import maps, plots
from luthier.pages.base import Language
from luthier.pages.maps import Learnt

LONGEST = 600
"""Characters of a text; all of it is in the files of answers."""
_EXAMPLES = ("fixed", "broken", "worst", "best")
_OUTCOMES = ("wins", "ties", "losses")


def slices(task: Task, language: Language) -> figures.Table | None:
    """All slices in one table: a group for each way of dividing."""
    w = wording.words(language)
    groups: list[tuple[str, list[Part]]] = []
    for by, parts in (task.detail.get("slices") or {}).items():
        named = [(wording.slice_name(w, name), str(one["metric"]), one) for name, one in parts.items()]
        groups += [(str(w["by"].get(by, by)), named)] if named else []
    return figures.grouped(w, groups) if groups else None


def examples(task: Task, language: Language) -> list[tuple[str, list[dict[str, Any]]]]:
    """(title, rows) of what tuning mended and broke, and of the worst and best rows."""
    w = wording.words(language)
    kinds = [(str(w[kind]), task.detail.get(kind) or []) for kind in _EXAMPLES]
    return [(title, [_example(w, row) for row in rows]) for title, rows in kinds if rows]


def shots(task: Task, language: Language) -> dict[str, Any] | None:
    """Examples in the prompt against the base and against tuning, by the metric that leads."""
    w, found = wording.words(language), task.detail.get("shots") or {}
    parts = list[Part]()
    for key, name in w["comparisons"].items():
        metrics = found.get(key) or {}
        if metrics:
            metric = wording.leading(task, metrics)
            parts.append((name, metric, metrics[metric]))
    if not parts:
        return None
    said = [w["shots_k"].format(k=found.get("k", "–"), metric=wording.metric(w, parts[0][1]))]
    tokens = found.get("tokens") or {}
    told = [f"{name} {tokens[way]:,.0f}" for way, name in w["shots_ways"].items() if way in tokens]
    said += [w["shots_tokens"].format(parts=w["comma"].join(told))] if told else []
    return {"help": wording.gap(w).join(said), "table": figures.table(w, parts)}


def curve(task: Task, language: Language) -> dict[str, Any] | None:
    """The learning curve with its points in figures."""
    w, found = wording.words(language), task.detail.get("curve") or {}
    points = [point for point in found.get("points") or () if point["value"] is not None]
    if not points:
        return None
    metric, twice, fit = str(found["metric"]), found.get("twice"), found.get("fit")
    name, factor = wording.metric(w, metric), 100.0 if wording.is_share(metric) else 1.0
    learnt = [_learnt(point, factor) for point in points]
    learnt += [_learnt(twice, factor)._replace(guess=True)] if twice else []
    higher = next((one.get("higher", True) for _, key, one in task.parts if key == metric), True)
    fitted = _fitted(fit, higher, factor) if fit else None
    said = [w["curve_help"].format(metric=name), *([w["curve_line"]] if fit else [])]
    said += [w["curve_twice"]] if twice else []
    return {
        "plot": maps.learning(learnt, fitted, w["curve"], f"{name} (%)" if factor == 100 else name),
        "help": wording.gap(w).join(said),
        "lines": [_point(w, metric, point) for point in [*points, *([twice] if twice else [])]],
        "notes": wording.notes(found, "notes", language),
    }


def judge(task: Task, language: Language) -> dict[str, Any] | None:
    """Wins, ties and losses (or grades) as bars, and how far the judge agrees with itself."""
    w, found = wording.words(language), task.detail.get("judge") or {}
    if not found:
        return None
    form = found.get("form", "compare")
    bars = [(str(w[key]), found[key]) for key in _OUTCOMES if found.get(key) is not None]
    bars += list((found.get("grades") or {}).items())
    verdict = str((found.get("win_rate") or {}).get("verdict") or "")
    lines = [(name, key, found.get(key)) for key, name in w["judge_figures"].items()]
    return {
        "what": w["judge_what"][form].format(model=found["model"], asked=f"{found['asked']:,}"),
        "rate": _rate(w, found.get("win_rate"), found.get("grade")),
        "kind": figures.KINDS.get(verdict, ""),
        "mark": wording.MARKS.get(verdict, ""),
        "plot": plots.bars(bars, w["judge"]) if bars else "",
        "lines": [
            (
                name,
                wording.number(key, value) if key in ("agreement", "first_position") else plots.number(value),
            )
            for name, key, value in lines
            if value is not None
        ],
        "notes": wording.notes(found, "notes", language),
    }


def _example(w: Words, row: Mapping[str, Any]) -> dict[str, Any]:
    scores = row.get("score") or {}
    sides = wording.sides(w, [side for side in wording.SIDES if row.get(side) is not None], w["answered"])
    return {
        "source": row["source"],
        "input": _cut(row["input"]),
        "reference": _cut(row["reference"]),
        "answers": [(name, _cut(row[side]), _score(w, scores.get(side))) for side, name in sides.items()],
        "nearest": [
            {
                "source": one["source"],
                "input": _cut(one["input"]),
                "answer": _cut(one["answer"]),
                "similarity": w["similarity"].format(value=f"{one['similarity']:.2f}"),
            }
            for one in row.get("nearest") or ()
        ],
        "contradicts": bool(row.get("contradicts")),
    }


def _score(w: Words, value: float | None) -> str:
    return "" if value is None else str(w["score"].format(value=f"{value:.3g}"))


def _learnt(point: Mapping[str, Any], factor: float) -> Learnt:
    low, high = (None if point[end] is None else point[end] * factor for end in ("low", "high"))
    return Learnt(point["rows"], point["value"] * factor, low, high)


def _point(w: Words, metric: str, point: Mapping[str, Any]) -> dict[str, str]:
    """A measured point, or what is predicted, which has no share of the data and took no time."""
    share, seconds = point.get("share"), point.get("seconds")
    ends = {end: wording.number(metric, point[end]) for end in ("low", "high")}
    return {
        "share": w["twice"] if share is None else f"{share:g}\N{NO-BREAK SPACE}%",
        "rows": f"{point['rows']:,}",
        "value": wording.number(metric, point["value"]),
        "interval": w["range"].format(**ends),
        "seconds": "–" if seconds is None else f"{seconds:,.0f}",
    }


def _fitted(fit: Mapping[str, float], higher: bool, factor: float) -> Callable[[float], float]:
    """rows -> metric: error = a + b · rows^-c (`measure.curve`), and 1 minus that where more is better."""

    def value(rows: float) -> float:
        error: float = fit["a"] + fit["b"] * rows ** -fit["c"]
        return factor * (1 - error if higher else error)

    return value


def _rate(w: Words, wins: Mapping[str, Any] | None, grade: Mapping[str, Any] | None) -> str:
    """The judge's verdict in a sentence; "" where it could judge nothing."""
    found = wins or grade
    if not found or found["value"] is None:
        return ""
    told = [
        wording.number("", found[k]) if wins else f"{found[k] or 0:.2f}" for k in ("value", "low", "high")
    ]
    within = w["within"].format(range=w["range"].format(low=told[1], high=told[2]))
    return str(w["win_rate" if wins else "grade"].format(value=told[0], within=within))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
