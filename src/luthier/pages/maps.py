"""Plots of two axes: what is taken for what, how honest probabilities are, what more data brings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from luthier.pages import svg
from luthier.pages.plots import number, ticks
from luthier.pages.svg import WIDTH

NAMED = 20
"""Of more labels than these the map is drawn without their names."""
_NUMBERED = 12  # of more labels than these without the counts in the cells
_ROOM, _LETTERS = 112.0, 12.0  # for names beside and above a map, and the height of a line of them


def heat(labels: Sequence[str], counts: Sequence[Sequence[int]], columns: Sequence[str], title: str) -> str:
    """A confusion matrix, [label, column]: the first len(labels) columns are the labels, others stand apart.

    The ink of a cell is its share of the row: right answers have the class "right", others "wrong".
    """
    names = len(labels) <= NAMED
    room = min(_ROOM, max(map(svg.wide, [*labels, *columns]), default=0.0) + 6) if names else 0.0
    gap = 3.0 if len(columns) > len(labels) else 0.0
    cell = min(30.0, (WIDTH - room - gap) / max(1, len(columns)))
    drawn = [_frame(room, cell, len(labels))]
    if gap:
        drawn.append(_frame(room, cell, len(labels), len(labels), gap, len(columns)))
    if names:
        drawn += [_beside(room, cell, i, label) for i, label in enumerate(labels)]
        drawn += [_above(room, cell, j, name, gap * (j >= len(labels))) for j, name in enumerate(columns)]
    safe = [svg.safe(name) for name in columns]
    for i, row in enumerate(counts):
        whole = sum(row) or 1
        for j, count in enumerate(row):
            if count:
                place = room + j * cell + gap * (j >= len(labels)), room + i * cell
                told = f"{safe[i]} → {safe[j]}: {count:,}"
                drawn.append(_cell(place, cell, count / whole, i == j, told))
                if names and len(labels) <= _NUMBERED:
                    drawn.append(_count(place, cell, count, count / whole))
    return svg.drawing(drawn, room + cell * len(labels), title)


def _frame(room: float, cell: float, rows: int, first: int = 0, gap: float = 0.0, end: int = 0) -> str:
    width = (end or rows) - first
    return svg.box(room + first * cell + gap, room, width * cell, rows * cell, "ground")


def _beside(room: float, cell: float, i: int, label: str) -> str:
    return _small(room - 5, room + (i + 0.5) * cell + 4, svg.fit(label, room - 6), "end", cell)


def _above(room: float, cell: float, j: int, name: str, gap: float) -> str:
    x, y = room + (j + 0.5) * cell + gap + 4, room - 5
    said = _small(x, y, svg.fit(name, room - 6), "start", cell)
    return f'<g transform="rotate(-90 {x:.1f} {y:.1f})">{said}</g>'


def _small(x: float, y: float, said: str, anchor: str, cell: float) -> str:
    size = "" if cell >= _LETTERS else f' font-size="{max(8.0, cell):.1f}"'
    return f"<g{size}>{svg.text(x, y, said, anchor)}</g>"


def _cell(place: tuple[float, float], cell: float, share: float, right: bool, told: str) -> str:
    x, y = place
    ink = 0.12 + 0.88 * share
    return (
        f'<rect class="{"right" if right else "wrong"}" x="{x:.1f}" y="{y:.1f}" width="{cell - 0.6:.2f}"'
        f' height="{cell - 0.6:.2f}" fill="{svg.BAR}" fill-opacity="{ink:.2f}"><title>{told}</title></rect>'
    )


def _count(place: tuple[float, float], cell: float, count: int, share: float) -> str:
    x, y = place[0] + cell / 2, place[1] + cell / 2 + 4
    kind = "over" if share > 0.5 else "count"
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="{svg.INK}">{count}</text>'
    )


class Bin(NamedTuple):
    """Rows answered with about this confidence, the share of them that was right, and how many they are."""

    confidence: float
    accuracy: float
    n: int


def reliability(sides: Mapping[str, Sequence[Bin]], title: str, across: str, up: str) -> str:
    """Accuracy over confidence of each side ("before", "after"), beside the diagonal of honest figures.

    The area of a point grows with its rows, and a line shows how far it is from the diagonal: the calibration
    error is the mean of these gaps. across, up: names of the axes.
    """
    left, top, size = 58.0, 8.0, 250.0
    base = top + size

    def at(one: Bin) -> tuple[float, float]:
        return left + size * one.confidence, base - size * one.accuracy

    drawn = [svg.line(left, base, left + size, top, "zero")]
    for tick in (0, 0.5, 1):
        x, y = at(Bin(tick, tick, 0))
        drawn += [svg.line(left, y, left + size, y, "rule"), svg.line(x, base, x, base + 4, "rule")]
        drawn.append(svg.text(left - 6, y + 4, f"{tick:.0%}", "end", soft=True))
        drawn.append(svg.text(x, base + 17, f"{tick:.0%}", "middle", soft=True))
    most = max((one.n for bins in sides.values() for one in bins), default=1) or 1
    for side, bins in sides.items():
        for one in bins:
            (x, y), (_, honest) = at(one), at(Bin(one.confidence, one.confidence, 0))
            drawn.append(svg.line(x, y, x, honest, f"gap {side}"))
            told = f"{one.confidence:.1%} → {one.accuracy:.1%} ({one.n:,})"
            dot = svg.circle(x, y, round(2 + 6 * math.sqrt(one.n / most), 1), side)
            drawn.append(f"<g><title>{told}</title>{dot}</g>")
    drawn.append(svg.text(left + size / 2, base + 34, across, "middle", soft=True))
    drawn.append(f'<g transform="rotate(-90 9 {base - size / 2:.1f})">')
    drawn += [svg.text(9, base - size / 2 + 3, up, "middle", soft=True), "</g>"]
    return svg.drawing(drawn, base + 40, title, left + size + 14)


class Learnt(NamedTuple):
    """A metric after training on so many rows, with its interval; guess: not measured but predicted."""

    rows: float
    value: float
    low: float | None
    high: float | None
    guess: bool = False


def learning(points: Sequence[Learnt], fitted: Callable[[float], float] | None, title: str, up: str) -> str:
    """The metric over the rows, on a scale where twice as many are always as far, with intervals.

    fitted: rows -> metric, drawn as a broken line. up: the name of the metric's axis.
    """
    left, top, base, right = 50.0, 22.0, 190.0, WIDTH - 14.0
    values = [v for one in points for v in (one.value, one.low, one.high) if v is not None]
    low, high = min(values), max(values)
    low, high = (low, high) if high > low else (low - 0.01, high + 0.01)
    first, last = math.log(max(1.0, points[0].rows)), math.log(max(1.0, points[-1].rows))

    def at(rows: float, value: float) -> tuple[float, float]:
        along = (math.log(max(1.0, rows)) - first) / ((last - first) or 1)
        height = min(1.0, max(0.0, (value - low) / (high - low)))
        return left + 10 + (right - left - 20) * along, base - (base - top) * height

    drawn = [svg.text(0, 12, up, "start", soft=True)]
    for tick in ticks(low, high, 4):
        _, y = at(1, tick)
        drawn += [
            svg.line(left, y, right, y, "rule"),
            svg.text(left - 6, y + 4, number(tick), "end", soft=True),
        ]
    if fitted is not None:
        steps = [math.exp(first + (last - first) * k / 40) for k in range(41)]
        drawn.append(_path([at(rows, fitted(rows)) for rows in steps], "fitted"))
    for one in points:
        drawn += _measured(one, at)
    return svg.drawing(drawn, base + 24, title)


def _measured(one: Learnt, at: Callable[[float, float], tuple[float, float]]) -> list[str]:
    x, y = at(one.rows, one.value)
    kind = "guess" if one.guess else "after"
    drawn = []
    if one.low is not None and one.high is not None:
        (_, bottom), (_, top) = at(one.rows, one.low), at(one.rows, one.high)
        drawn.append(svg.line(x, bottom, x, top, f"span {kind}"))
        drawn += [svg.line(x - 4, end, x + 4, end, f"span {kind}") for end in (bottom, top)]
    told = f"<g><title>{number(one.rows)}: {number(one.value)}</title>{svg.circle(x, y, 4, kind)}</g>"
    return [*drawn, told, svg.text(x, 208, number(one.rows), "middle", soft=True)]


def _path(placed: Sequence[tuple[float, float]], kind: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return f'<polyline class="line {kind}" points="{points}" fill="none" stroke="{svg.BAR}"/>'
