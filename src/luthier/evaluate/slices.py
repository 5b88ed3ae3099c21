"""Where a change comes from: the leading metric by length, script, class and data set.

A mean can rise while some of the rows get worse. Each slice is judged like the whole, with p corrected over
all slices together (Holm): the more parts one looks at, the likelier one of them stands out by chance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from luthier.evaluate import report
from luthier.evaluate.notes import Note, note
from luthier.evaluate.sets import Set
from luthier.measure import kinds, statistics
from luthier.measure.kinds import leading
from luthier.measure.metrics.tools import calls
from luthier.measure.strings import normalise
from luthier.measure.types import Measured

Sides = Mapping[str, Mapping[str, Measured]]
"""side -> metric -> Measured, of one way of answering."""
Places = dict[str, list[int]]
"""Slice -> the places of its rows, in the order in which slices are shown."""

CLASSES = 20
"""So many classes are slices, those with most rows."""
NO_CALL = "no call"
HAN, LATIN, OTHER = "Chinese characters", "Latin letters", "other script"
_HAN_SHARE = 0.2  # of the letters; one character stands for several letters, and Chinese keeps foreign names
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\u1100-\u11ff\uac00-\ud7af]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_LETTER = re.compile(r"[^\W\d_]")


def slices(one: Set, sides: Sides, seed: int, way: str = "") -> dict[str, Any]:
    """`slices`: {by what: {slice: {"n", "metric", "before", "after", "delta", "low", "high", "verdict"}}}.

    By what the rows do not differ in is left out. With one system the interval is that of its own value.
    way: of answering, where not by generation ("likelihood").
    """
    name, whole = _leading(one, sides)
    name = f"{way}_{name}" if way else name
    places: Places = {}
    for by, divide in _SLICES.items():
        found = divide(one)
        if len(found) > 1:
            places |= {f"{by}/{text}": rows for text, rows in found.items()}
    parts = {side: {key: m.subset(rows) for key, rows in places.items()} for side, m in whole.items()}
    result: dict[str, dict[str, Any]] = {}
    for key, figure in report.figures(parts, seed).items() if places else ():
        by, _, text = key.partition("/")
        result.setdefault(by, {})[text] = {"metric": name, **figure}
    return {"slices": result, "notes": _notes(name, whole, result, seed)} if result else {}


def by_dataset(measured: Sequence[tuple[Set, Sides]], seed: int) -> dict[str, dict[str, Any]]:
    """Name of a data set -> the slices "dataset": all data sets that ask for the same kind of task.

    Data sets that are the only ones of their kind are left out.
    """
    result: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(one.task.kind for one, _ in measured):
        same = [(one, *_leading(one, sides)) for one, sides in measured if one.task.kind == kind]
        if len(same) < 2:
            continue
        parts = {side: {one.name: whole[side] for one, _, whole in same} for side in same[0][2]}
        figures = report.figures(parts, seed)
        found = {one.name: {"metric": name, **figures[one.name]} for one, name, _ in same}
        result |= {one.name: found for one, _, _ in same}
    return result


def script(text: str) -> str:
    """In which script most of a text is: the nearest thing to its language that needs no guessing.

    Chinese where a fifth of the letters are Chinese characters and none is Japanese or Korean, else Latin
    where half of them are.
    """
    letters = max(1, len(_LETTER.findall(text)))
    if len(_HAN.findall(text)) >= _HAN_SHARE * letters and not _KANA_OR_HANGUL.search(text):
        return HAN
    return LATIN if len(_LATIN.findall(text)) >= letters / 2 else OTHER


def _leading(one: Set, sides: Sides) -> tuple[str, dict[str, Measured]]:
    """The name of the metric that leads, and side -> Measured of it."""
    name = leading(one.task.kind, next(iter(sides.values())))
    return name, {side: metrics[name] for side, metrics in sides.items()}


# --- by what rows are divided: slice -> places of its rows, in the order in which slices are shown


def _lengths(one: Set) -> Places:
    """Quartiles of the tokens of the prompt; of pre-training text, which has none, of its characters."""
    unit = "tokens" if one.task.kind != "perplexity" else "characters"
    pairs = zip(one.questions, one.rows, strict=True)
    sizes = np.array([len(q.prompt) if unit == "tokens" else len(row.answer) for q, row in pairs])
    cuts = np.unique(np.quantile(sizes, (0.25, 0.5, 0.75), method="inverted_cdf"))
    quarter = np.searchsorted(cuts, sizes)
    found = [np.flatnonzero(quarter == k) for k in range(len(cuts) + 1)]
    return {
        f"{sizes[rows].min()} to {sizes[rows].max()} {unit}": rows.tolist() for rows in found if len(rows)
    }


def _classes(one: Set) -> Places:
    """The right labels of closed sets, or the tools that are to be called; those with most rows."""
    if one.task.kind == "labels":
        written = {normalise(label): label for label in one.labels}
        found = _grouped([written[normalise(text)] for text in one.references])
    elif one.task.kind == "calls":
        names = [", ".join(call.name for call in calls(text)) for text in one.references]
        found = _grouped([name or NO_CALL for name in names])
    else:
        return {}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[1]))[:CLASSES])


def _scripts(one: Set) -> Places:
    """By the script of what is asked, without the words with which all questions begin."""
    texts = [row.question or row.answer for row in one.rows]
    first, last = min(texts), max(texts)  # what these two begin with, all between them begin with too
    differ = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    shared = next(differ, min(len(first), len(last)))
    found = _grouped([script(text[shared:] if _LETTER.search(text, shared) else text) for text in texts])
    return {name: found[name] for name in (HAN, LATIN, OTHER) if name in found}


def _grouped(names: Sequence[str]) -> Places:
    found: Places = {}
    for i, name in enumerate(names):
        found.setdefault(name, []).append(i)
    return found


_SLICES: dict[str, Callable[[Set], Places]] = {"length": _lengths, "class": _classes, "language": _scripts}
"""By what rows are divided: name -> function."""


def _notes(name: str, whole: Mapping[str, Measured], found: Mapping[str, Any], seed: int) -> list[Note]:
    """The slices that got worse though the whole did not."""
    if len(whole) < 2 or statistics.compare(whole["before"], whole["after"], seed).verdict == "regressed":
        return []
    return [
        note(
            "slice_regressed",
            metric=name,
            by=by,
            slice=text,
            rows=figure["n"],
            before=kinds.number(name, figure["before"]),
            after=kinds.number(name, figure["after"]),
        )
        for by, parts in found.items()
        for text, figure in parts.items()
        if figure["verdict"] == "regressed"
    ]
