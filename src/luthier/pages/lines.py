"""Several curves in one plot, told apart by the shape of their marks and by dashes, not by colour alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from luthier.pages import svg
from luthier.pages.plots import number, ticks

_LEFT, _RIGHT, _TOP, _BASE = 44.0, 22.0, 8.0, 190.0
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_COLOURS = ("#2f6690", "#b0480a", "#5b7f3a", "#7a4b94")
_MARKED = 7  # marks of a curve
Place = tuple[float, float]


def overlay(curves: Mapping[str, Sequence[Place]], title: str, logarithmic: bool = False) -> str:
    """A line for each name, in the order given, with its name at its end. logarithmic: the vertical axis."""
    values = [y for points in curves.values() for _, y in points]
    last = max((x for points in curves.values() for x, _ in points), default=0.0) or 1.0
    low, high = min(values, default=0.0), max(values, default=1.0)
    scale = math.log if logarithmic else float
    span = (scale(high) - scale(low)) or 1.0

    def at(x: float, y: float) -> Place:
        share = (scale(y) - scale(low)) / span
        return _LEFT + (svg.WIDTH - _LEFT - _RIGHT) * x / last, _BASE - (_BASE - _TOP) * share

    drawn = []
    for tick in _heights(low, high, logarithmic):
        y = at(0, tick)[1]
        drawn.append(svg.line(_LEFT, y, svg.WIDTH - _RIGHT, y, "rule"))
        drawn.append(svg.text(_LEFT - 6, y + 4, number(tick), "end", soft=True))
    for tick in ticks(0, last):
        x = at(tick, low)[0]
        drawn.append(svg.text(x, _BASE + 16, number(tick), "middle" if tick else "start", soft=True))
    names: dict[tuple[int, int], str] = {}  # letters of curves that end at one place stand side by side
    for place, (name, points) in enumerate(curves.items()):
        placed = [at(x, y) for x, y in sorted(points)]
        drawn += _drawn(placed, place, name)
        if placed:
            end = round(placed[-1][0] / 12), round(placed[-1][1] / 12)
            names[end] = names.get(end, "") + name
    drawn += [svg.text(12 * x + 6, 12 * y + 4, told, "start") for (x, y), told in names.items()]
    return svg.drawing(drawn, _BASE + 22, title)


def swatch(place: int, title: str) -> str:
    """A piece of the curve number `place`, for a legend."""
    return svg.drawing(_drawn([(2, 7), (17, 7), (32, 7)], place, title, every=2), 14, title, 34)


def _drawn(placed: Sequence[Place], place: int, name: str, every: int = 0) -> list[str]:
    if not placed:
        return []
    kind, colour = f"run run-{place % 4}", _COLOURS[place % 4]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dashes = f' stroke-dasharray="{_DASHES[place % 4]}"' if _DASHES[place % 4] else ""
    line = (
        f'<polyline class="{kind}" points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}>'
        f"<title>{svg.safe(name)}</title></polyline>"
    )
    step = every or max(1, len(placed) // _MARKED)
    start = 1 if every else (place * step // 4) % step  # so that marks of equal curves do not hide each other
    return [line, *(_mark(placed[i], place, kind, colour) for i in range(start, len(placed), step))]


def _mark(at: Place, place: int, kind: str, colour: str) -> str:
    """Disc, square, triangle, diamond; from the fifth curve on hollow ones."""
    x, y = at
    fill = f'fill="{colour}"' if place < 4 else f'fill="none" stroke="{colour}"'
    form = f'class="{kind} {"solid" if place < 4 else "hollow"}" {fill}'
    if place % 4 == 0:
        return f'<circle {form} cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    corners = (
        ((-2.9, -2.9), (2.9, -2.9), (2.9, 2.9), (-2.9, 2.9)),
        ((0, -3.9), (3.6, 2.7), (-3.6, 2.7)),
        ((0, -4.2), (4.2, 0), (0, 4.2), (-4.2, 0)),
    )[place % 4 - 1]
    points = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners)
    return f'<polygon {form} points="{points}"/>'


def _heights(low: float, high: float, logarithmic: bool) -> list[float]:
    if not logarithmic:
        return ticks(low, high, 4)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 3)]
    return [step for step in steps if low <= step <= high]
