"""Small plots for the rows of a table: a value that moved, and a difference with its interval beside zero.

They hold no text but their titles, so that a table can give them whatever width it has. All rows of a table
share a scale (`scale`), which `axis` writes out once. What is what can be told without colours: before is a
ring, after a disc; a difference that is no evidence is a ring, one that is evidence a disc.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from luthier.pages import svg
from luthier.pages.plots import ticks

WIDE, TALL, MARGIN = 132, 18, 7
Scale = tuple[float, float]
Kind = Literal["better", "worse", "unsure"]
"""Of a difference: evidence for the better, for the worse, or none."""


def scale(values: Iterable[float | None], zero: bool = False) -> Scale:
    """From the smallest to the largest value, and never without width; zero: it is to be among them."""
    found = [value for value in values if value is not None]
    found += [0.0] if zero or not found else []
    low, high = min(found), max(found)
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def moved(before: float | None, after: float | None, along: Scale, title: str) -> str:
    """A ring where the value was, a disc where it is, a line between them."""
    drawn = [svg.line(MARGIN, TALL / 2, WIDE - MARGIN, TALL / 2, "rule")]
    if before is not None and after is not None:
        drawn.append(svg.line(_at(before, along), TALL / 2, _at(after, along), TALL / 2, "moved"))
    if before is not None:
        drawn.append(svg.circle(_at(before, along), TALL / 2, 4, "before"))
    if after is not None:
        drawn.append(svg.circle(_at(after, along), TALL / 2, 4, "after"))
    return svg.drawing(drawn, TALL, title, WIDE)


def span(
    value: float, bounds: tuple[float | None, float | None], along: Scale, kind: Kind | None, title: str
) -> str:
    """A value with its interval, where that is known; kind: of a difference, which stands beside zero."""
    drawn, middle = [], TALL / 2
    if kind and along[0] <= 0 <= along[1]:
        drawn.append(svg.line(_at(0, along), 0, _at(0, along), TALL, "zero"))
    low, high = bounds
    if low is not None and high is not None:
        ends = _at(low, along), _at(high, along)
        drawn.append(svg.line(ends[0], middle, ends[1], middle, f"span {kind or ''}".rstrip()))
        drawn += [svg.line(x, middle - 4, x, middle + 4, f"span {kind or ''}".rstrip()) for x in ends]
    drawn.append(svg.circle(_at(value, along), middle, 4, f"point {kind or ''}".rstrip()))
    return svg.drawing(drawn, TALL, title, WIDE)


def axis(along: Scale, title: str, *, factor: float = 1.0, sign: bool = False) -> str:
    """The scale in round figures; factor: 100 for per cent · sign: of differences, with + and −."""
    drawn, taken = [], list[tuple[float, float]]()
    for tick in sorted(ticks(along[0] * factor, along[1] * factor, 4), key=bool):  # 0 has its name first
        x = _at(tick / factor, along)
        told = (f"{tick:+g}" if sign and tick else f"{tick:g}").replace("-", "−")
        half = svg.wide(told) / 2
        middle = min(max(x, half), WIDE - half)
        drawn.append(svg.line(x, 0, x, 3, "rule"))
        if all(abs(middle - other) > half + room + 7 for other, room in taken):
            drawn.append(svg.text(middle, 15, told, "middle", soft=True))
            taken.append((middle, half))
    return svg.drawing(drawn, TALL, title, WIDE)


def _at(value: float, along: Scale) -> float:
    """Where a value stands; what is beyond the scale stands at its end."""
    share = (value - along[0]) / (along[1] - along[0])
    return MARGIN + (WIDE - 2 * MARGIN) * min(1.0, max(0.0, share))
