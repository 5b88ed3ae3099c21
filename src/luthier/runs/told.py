"""A comparison of runs as lines for a terminal."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from luthier.measure import kinds
from luthier.pages.texts import printable
from luthier.runs import compare, curves
from luthier.runs.beside import Line, Result
from luthier.runs.listing import Summary

_LONGEST, _WIDEST = 60, 40  # characters of an answer, and of a value in a table
_MEBIBYTES = ("peak_memory", "size")


def lines(result: Result, unicode: bool) -> list[str]:
    """All sections of `beside.beside`. unicode: the stream can express Braille."""
    letters = [*result["runs"]]
    told = table([(letter.upper(), *_about(one)) for letter, one in result["runs"].items()])
    kept = [line for line in result["config"] if line["key"] not in compare.PLACES]
    kept.sort(key=lambda line: line["kind"] == "harmless")
    told += _section("configuration", kept, letters) + _section("data", result["data"], letters)
    told += _section("training", result["cost"], letters, cost)
    told += _section("results", telling(result["results"]), letters)
    for key, title in (("loss", "training loss"), ("eval_loss", "held-out loss")):
        drawn = result["curves"][key]
        named = {letter.upper(): placed(found, result["curves"]["along"]) for letter, found in drawn.items()}
        plot = curves.plot(named, title, result["curves"]["along"], unicode)
        told += ["", *plot] if plot else []
    for name in result["tasks"]:
        told += ["", *_task(name, result)]
    told += _remarks(result)
    return safe(told)


def safe(told: Iterable[str]) -> list[str]:
    """Lines without what a terminal would obey, and without secrets."""
    return [printable(line) for line in told]


def runs(found: Sequence[Summary]) -> list[str]:
    """A line for each run; what is wrong with a run stands below it."""
    header = ("run", "status", "step", "loss", "method", "data", "metric", "time", "updated")
    rows = [_summary(one) for one in found]
    head, *lines = table([header, *rows])
    told = [head]
    for one, line in zip(found, lines, strict=True):
        told += [line, f"  wrong: {one.problem}"] if one.problem else [line]
    return safe(told)


def _summary(one: Summary) -> tuple[str, ...]:
    steps = "" if one.step is None else f"{one.step}/{one.total}" if one.total else str(one.step)
    loss = "" if one.loss is None else f"{one.loss:.4f}"
    metric = ""
    if one.metric:
        number = kinds.number(one.metric.name, one.metric.value)
        metric = " ".join(filter(None, (one.metric.task, one.metric.name, number, one.metric.verdict)))
    method = " ".join(filter(None, (one.stage, one.method)))
    data = shortened(", ".join(os.path.basename(name) for name in one.datasets), _WIDEST)
    time = (
        ""
        if one.seconds is None
        else f"{int(one.seconds) // 3600}:{int(one.seconds) // 60 % 60:02d}:{int(one.seconds) % 60:02d}"
    )
    updated = one.updated[:16].replace("T", " ")
    return one.path, one.status, steps, loss, method, data, metric, time, updated


def table(rows: Sequence[Iterable[str]]) -> list[str]:
    """Columns side by side; a text of strangers is shown without what a terminal would obey."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(_wide, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - _wide(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


def can_braille(stream: TextIO | None = None) -> bool:
    """Whether the stream's encoding has Braille and box characters."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    try:
        "⣿│└─".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def cost(key: str, value: Any) -> str:
    """A cost with as many digits as matter; bytes as MiB."""
    if value is None:
        return "-"
    if key in _MEBIBYTES:
        return f"{value / 2**20:,.1f}"
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.4g}"


def name_of_cost(key: str) -> str:
    """As a row of the table is headed."""
    return f"{key}, MiB" if key in _MEBIBYTES else key


def value(found: Any) -> str:
    """A value of a configuration or a result in a table."""
    if found is None:
        return "-"
    text = found if isinstance(found, str) else f"{found:.6g}" if isinstance(found, float) else None
    return shortened(compare.shown(found) if text is None or len(text) == 64 else text, _WIDEST)


def plain(found: Any) -> str:
    """A text as it is, anything else as JSON."""
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def shortened(text: str, longest: int) -> str:
    """On one line."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def figure(metric: str, one: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """before, after, difference, its interval, verdict."""
    low, high = (_signed(metric, one[end]) for end in ("low", "high"))
    values = (kinds.number(metric, one["before"]), kinds.number(metric, one["after"]))
    return (*values, _signed(metric, one["delta"]), f"{low} to {high}", str(one["verdict"]))


def of_run(found: Mapping[str, Any], letter: str, letters: Sequence[str]) -> Mapping[str, Any]:
    """What of `tasks.{name}` or `rows.{name}` is about the run `letter`."""
    if len(letters) == 2:
        return found
    if "a" not in found and letter in found:
        return dict(found[letter])
    return {metric: figures[letter] for metric, figures in found.items() if letter in figures}


def _about(one: Mapping[str, Any]) -> tuple[str, ...]:
    how = " ".join(filter(None, (one["stage"], one["method"])))
    return one["path"], one["status"], how, ", ".join(map(str, one["datasets"]))


def _section(title: str, found: Sequence[Line], letters: Sequence[str], write: Any = None) -> list[str]:
    if not found:
        return ["", f"{title}: no differences"]
    rows = []
    for line in found:
        key = line["key"]
        cells = [write(key, line[k]) if write else value(line[k]) for k in letters]
        rows.append((f"  {name_of_cost(key) if write else key}", *cells))
    return ["", *table([(title, *(letter.upper() for letter in letters)), *rows])]


def telling(found: Sequence[Line]) -> list[Line]:
    """Results that say something of the model; what it cost is never the same, and stands by itself."""
    timed = ("runtime", "per_second", "peak_memory", "total_flos", "tokens_seen", "epoch")
    return [line for line in found if not line["key"].endswith(timed)]


def placed(points: Iterable[Sequence[Any]], along: str) -> list[tuple[float, float]]:
    """(steps or tokens, loss) of a curve as `beside` has it."""
    return [(float((tokens or 0) if along == "tokens" else step), loss) for step, tokens, loss in points]


def _task(name: str, result: Result) -> list[str]:
    letters = [*result["runs"]]
    told = [f"{name} ({result['kinds'][name]})"]
    for letter in letters[1:]:
        figures = of_run(result["tasks"][name], letter, letters)
        rows = of_run(result["rows"][name], letter, letters)
        if not figures:
            continue
        count = next(iter(figures.values()))["n"]
        head = (f"  {count} rows", "A", letter.upper(), "difference", "95 % interval", "verdict")
        told += table([head, *((f"  {metric}", *figure(metric, one)) for metric, one in figures.items())])
        told += _changed(rows, letter.upper())
    return told


def _changed(rows: Mapping[str, Any], letter: str) -> list[str]:
    if rows["rated"] is None:
        return []
    told = [
        f"  {letter} is better in {rows['won']} rows, worse in {rows['lost']}, equal in {rows['equal']}"
        f" ({rows['rated']})"
    ]
    for word in ("won", "lost"):
        for row in rows[f"{word}_rows"]:
            texts = {key: shortened(row[key], _LONGEST) for key in ("input", "reference", "before", "after")}
            told.append(
                f"    {'+' if word == 'won' else '-'} {row['source']}: {texts['input']!r}: "
                f"A {texts['before']!r}, {letter} {texts['after']!r}, right {texts['reference']!r}"
            )
    return told


def _remarks(result: Result) -> list[str]:
    told = [
        f"not compared: {one['task']} ({', '.join(letter.upper() for letter in one['runs'])}): {one['en']}"
        for one in result["apart"]
    ]
    told += [f"note: {one.get('task') or one['run'].upper()}: {one['en']}" for one in result["notes"]]
    if not result["tasks"]:
        told.append("no evidence: luthier eval these runs on the same data set to know which is better")
    return ["", *told] if told else []


def _signed(metric: str, found: float | None) -> str:
    text = kinds.number(metric, found)
    return text if found is None or found < 0 else f"+{text}"


def _wide(text: str) -> int:
    """Columns of a terminal: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)
