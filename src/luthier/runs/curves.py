"""Loss curves of runs, as data and as a few lines on a terminal.

Braille cells hold 2 x 4 dots, so a plot of 12 lines tells 48 heights apart. Runs differ by the density of
their dots and by the letter at the right end of each; without Unicode each run is drawn with its letter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Axis = Literal["steps", "tokens"]
MOST_LINES, WIDTH = (
    15,
    64,
)  # of a plot: lines with its title and axis, columns between its axis and the letters
_STEEP = 20  # the largest loss over the smallest, from which on the plot is logarithmic
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a cell, [row][column]; U+2800 on


@dataclass(frozen=True, slots=True)
class Point:
    """tokens: that had gone through the model up to this step; None where the log does not say."""

    step: int
    tokens: int | None
    value: float


Curve = tuple[Point, ...]


def read(records: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """The training loss of a run's log ("loss"), and what its evaluations measured ("eval_loss", …)."""
    found: dict[str, list[Point]] = {"loss": [], "eval_loss": []}
    for record in records:
        for key, value in record.items():
            if key != "loss" and not key.startswith("eval_"):
                continue
            if isinstance(value, int | float) and math.isfinite(value) and "current_steps" in record:
                point = Point(int(record["current_steps"]), record.get("total_tokens"), float(value))
                found.setdefault(key, []).append(point)
    return {key: tuple(points) for key, points in found.items() if points}


def axis(curves: Sequence[Curve]) -> Axis:
    """Tokens where the runs' steps hold different numbers of them, else steps."""
    ends = [(curve[-1].step, curve[-1].tokens) for curve in curves if curve]
    rates = [tokens / step for step, tokens in ends if tokens and step]
    return "tokens" if len(rates) == len(ends) > 1 and max(rates) > 1.02 * min(rates) else "steps"


def places(curve: Curve, along: Axis) -> list[tuple[float, float]]:
    """(x, loss) of each point."""
    return [(float((p.tokens or 0) if along == "tokens" else p.step), p.value) for p in curve]


def steep(values: Iterable[float]) -> bool:
    """Whether the losses span so much that only a logarithmic axis shows the small ones."""
    seen = list(values)
    return bool(seen) and min(seen) > 0 and max(seen) > _STEEP * min(seen)


def plot(
    named: Mapping[str, Sequence[tuple[float, float]]], title: str, along: str, unicode: bool = True
) -> list[str]:
    """At most 15 lines: title, the curves side by side under their letters, and the axis."""
    named = {letter: points for letter, points in named.items() if points}
    if not named:
        return []
    values = [y for points in named.values() for _, y in points]
    logarithmic = steep(values)
    low, high = min(values), max(values)
    last = max(x for points in named.values() for x, _ in points) or 1.0
    rows = MOST_LINES - 3
    scale = _Scale(low, high, logarithmic, last)
    draw = _braille if unicode else _letters
    body = draw(named, scale, rows)
    marks = {0: f"{high:.4g}", rows - 1: f"{low:.4g}"}
    wide = max(map(len, marks.values()))
    bar, corner, line = ("│", "└", "─") if unicode else ("|", "+", "-")
    drawn = [f"{marks.get(k, ''):>{wide}} {bar}{text}".rstrip() for k, text in enumerate(body)]
    ends = f"{last:,.0f} {along}"
    foot = f"{'':>{wide}} {corner}{line * WIDTH}"
    return [
        title + (" (logarithmic)" if logarithmic else ""),
        *drawn,
        foot,
        f"{'':>{wide}}  {ends:>{WIDTH}}",
    ]


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    logarithmic: bool
    last: float

    def height(self, value: float) -> float:
        """0 for the lowest loss, 1 for the highest."""
        if self.high <= self.low:
            return 0.5
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _braille(named: Mapping[str, Sequence[tuple[float, float]]], scale: _Scale, rows: int) -> list[str]:
    cells = [[0] * WIDTH for _ in range(rows)]
    ends: dict[int, str] = {}
    for number, (letter, points) in enumerate(named.items()):
        dots = _columns(points, scale, 2 * WIDTH, 4 * rows)
        for column, span in dots.items():
            for row in span if column % min(number + 1, 4) == 0 else ():
                cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
        _end(ends, letter, dots[max(dots)][-1] // 4)
    return ["".join(chr(0x2800 + bits) for bits in line) + ends.get(k, "") for k, line in enumerate(cells)]


def _letters(named: Mapping[str, Sequence[tuple[float, float]]], scale: _Scale, rows: int) -> list[str]:
    """Where two runs meet stands "*"."""
    cells = [[" "] * WIDTH for _ in range(rows)]
    ends: dict[int, str] = {}
    for letter, points in named.items():
        dots = _columns(points, scale, WIDTH, rows)
        for column, span in dots.items():
            for row in span:
                cells[row][column] = letter.lower() if cells[row][column] == " " else "*"
        _end(ends, letter, dots[max(dots)][-1])
    return ["".join(line) + ends.get(k, "") for k, line in enumerate(cells)]


def _end(ends: dict[int, str], letter: str, row: int) -> None:
    """The letter of a curve beside its last point; several at one height stand side by side."""
    ends[row] = ends.get(row, " ") + letter


def _columns(
    points: Sequence[tuple[float, float]], scale: _Scale, width: int, height: int
) -> dict[int, list[int]]:
    """Column -> the rows from above that a line through the points touches there, in its direction."""
    placed = sorted((x / scale.last * (width - 1), scale.height(y)) for x, y in points)
    found, before, k = dict[int, list[int]](), None, 0
    for column in range(round(placed[0][0]), round(placed[-1][0]) + 1):
        while k < len(placed) - 1 and placed[k][0] < column:
            k += 1
        (x0, y0), (x1, y1) = placed[max(k - 1, 0)], placed[k]
        share = min(1.0, max(0.0, (column - x0) / (x1 - x0))) if x1 > x0 else 1.0
        row = round((1 - (y0 + share * (y1 - y0))) * (height - 1))
        first = row if before is None else before + (row > before) - (row < before)
        found[column] = list(range(first, row + (1 if row >= first else -1), 1 if row >= first else -1))
        before = row
    return found
