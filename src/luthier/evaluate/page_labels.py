"""Blocks of the page about closed labels: classes by change, what is taken for what, honest probabilities.

Each takes a task and returns None where its details do not hold what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.evaluate import wording
from luthier.evaluate.wording import Task
from luthier.pages import maps, spans
from luthier.pages.base import Language
from luthier.pages.maps import Bin

CLASSES, CONFUSED = 16, 10
"""So many classes are shown at once, and so many pairs of labels."""
_METRIC = {"per_class": "f1", "fields": "exact"}

Matrix = Sequence[Sequence[int]]
"""[right label, answered label or outside]."""


def classes(task: Task, language: Language) -> dict[str, Any] | None:
    """Classes, or fields of JSON, those that lost most first; of one system the worst first."""
    w = wording.words(language)
    kind = next((key for key in _METRIC if task.detail.get(key)), None)
    if kind is None:
        return None
    found, metric = task.detail[kind], _METRIC[kind]
    sides = [
        s for s in wording.SIDES if any(one.get(metric, {}).get(s) is not None for one in found.values())
    ]
    support = _support(task.detail)
    lines = [_line(name, one.get(metric, {}), metric, support.get(name)) for name, one in found.items()]
    lines.sort(key=lambda line: line["order"])
    return {
        "title": w[kind]["two" if len(sides) == 2 else "one"],
        "part": w["part"][kind],
        "sides": wording.sides(w, sides),
        "support": bool(support),
        "axis": spans.axis((0.0, 1.0), "F1", factor=100),
        "shown": lines[:CLASSES],
        "more": lines[CLASSES:],
    }


def confusion(task: Task, language: Language) -> dict[str, Any] | None:
    """A map for each side, without labels that nobody asked or answered, and the most frequent mistakes."""
    w, labels = wording.words(language), task.detail.get("labels") or ()
    matrices: Mapping[str, Matrix] = task.detail.get("confusion") or {}
    if not matrices or not labels:
        return None
    used = [i for i in range(len(labels)) if any(_touched(matrix, i) for matrix in matrices.values())]
    outside = any(row[len(labels)] for matrix in matrices.values() for row in matrix)
    places = [*used, len(labels)] if outside else used
    names = [*labels, w["outside"]]
    sides = wording.sides(w, matrices)
    drawn = {side: [[matrix[i][j] for j in places] for i in used] for side, matrix in matrices.items()}
    rows, columns = [names[i] for i in used], [names[j] for j in places]
    return {
        "plots": [(name, maps.heat(rows, drawn[side], columns, name)) for side, name in sides.items()],
        "unnamed": w["unnamed"].format(count=len(used)) if len(used) > maps.NAMED else "",
        "sides": sides,
        "pairs": _pairs(matrices, names),
    }


def reliability(task: Task, language: Language) -> dict[str, Any] | None:
    """The plot of accuracy over confidence, with the expected calibration error in words."""
    w, found = wording.words(language), task.detail.get("calibration") or {}
    bins = {
        side: [Bin(b["confidence"], b["accuracy"], b["n"]) for b in one["bins"]]
        for side, one in found.items()
    }
    if not any(bins.values()):
        return None
    sides = wording.sides(w, found, "")
    ece = [f"{name} {wording.number('ece', found[side]['ece'])}".strip() for side, name in sides.items()]
    return {
        "plot": maps.reliability(bins, w["calibration"], w["confidence"], w["accuracy"]),
        "help": w["calibration_help"].format(figures=w["comma"].join(ece)),
        "sides": sides,
    }


def _line(name: str, figure: Mapping[str, Any], metric: str, rows: int | None) -> dict[str, Any]:
    before, after = (figure.get(side) for side in wording.SIDES)
    change = after - before if before is not None and after is not None else None
    told = {side: wording.number(metric, figure.get(side)) for side in wording.SIDES}
    last = after if after is not None else before
    return {
        "name": name,
        "rows": rows,
        **told,
        "change": wording.signed(metric, change),
        "order": (change or 0.0, last or 0.0),
        "plot": spans.moved(before, after, (0.0, 1.0), " → ".join(told.values())),
    }


def _support(detail: Mapping[str, Any]) -> dict[str, int]:
    """Label -> its rows."""
    matrix = next(iter((detail.get("confusion") or {}).values()), ())
    return {label: sum(row) for label, row in zip(detail.get("labels") or (), matrix, strict=False)}


def _touched(matrix: Matrix, i: int) -> bool:
    return any(matrix[i]) or any(row[i] for row in matrix)


def _pairs(matrices: Mapping[str, Matrix], names: Sequence[str]) -> list[tuple[str, str, dict[str, str]]]:
    """The most frequent mistakes of the last system: right label, answered label, how often on each side."""
    last = matrices.get("after") or next(iter(matrices.values()))
    found = [(count, i, j) for i, row in enumerate(last) for j, count in enumerate(row) if count and i != j]
    worst = sorted(found, key=lambda one: (-one[0], one[1], one[2]))[:CONFUSED]
    return [
        (names[i], names[j], {side: f"{m[i][j]:,} / {sum(m[i]):,}" for side, m in matrices.items()})
        for _, i, j in worst
    ]
