"""Plots as SVG text: bars, a histogram, a curve, parts of a whole. For pages without scripts or libraries.

400 units wide, so that letters stay legible on a phone; colours come from the page's style sheet by class
("bar", "rule", "mark"; "first" and "second" for parts), and stand in the SVG for a page without one. All are
told apart in grey. Every plot has a title that a screen reader reads, every bar one with its exact figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from luthier.pages import svg
from luthier.pages.svg import MOST_LABEL, WIDTH

ROW, NUMBER = 19, 58


def bars(items: Sequence[tuple[str, float]], title: str, *, share: bool = False, most: int = 16) -> str:
    """A horizontal bar for each (label, value >= 0), in the order given.

    Of more than `most` the first and the last few are drawn, with their number between: where a list is
    ordered by size, both its ends matter. Where labels are long they stand above their bars. share: values
    are parts of 1, written in percent.
    """
    rows = _shortened(items, most)
    widths = [svg.wide(label) for label, _ in rows]
    above = sum(width > MOST_LABEL for width in widths) > len(rows) / 4
    left = 0.0 if above else min(MOST_LABEL, max(widths, default=0.0)) + 8
    tall = 2 * ROW - 2 if above else ROW
    peak = max((value for _, value in rows if value is not None), default=0) or 1
    drawn = []
    for k, (label, value) in enumerate(rows):
        middle = (k + 1) * tall - ROW / 2
        if value is None:
            drawn.append(svg.text(left, middle + 4, label, "start", soft=True))
            continue
        length = max(1.0, (WIDTH - left - NUMBER) * value / peak) if value else 0.0
        told = f"{value:.1%}" if share else number(value)
        named = (
            (0, middle - 11, svg.fit(label, WIDTH), "start")
            if above
            else (left - 8, middle + 4, svg.fit(label), "end")
        )
        drawn.append(
            f"<g><title>{svg.safe(label)}: {told}</title>"
            + svg.text(*named)
            + svg.box(left, middle - 6, length, 12, "bar")
            + svg.text(left + length + 5, middle + 4, told, "start", soft=True)
            + "</g>"
        )
    return svg.drawing(drawn, tall * len(rows), title)


def histogram(
    edges: Sequence[float], counts: Sequence[float], title: str, marks: Mapping[str, float] | None = None
) -> str:
    """Columns between `edges` (one more than counts), whose heights are the counts; lines at `marks`."""
    base, top, left = 132, 24, 2
    low, high = edges[0], edges[-1]
    high = max([high, *(marks or {}).values()])
    scale = (WIDTH - 2 * left) / ((high - low) or 1)
    peak = max(counts, default=0) or 1
    drawn = []
    for begin, end, count in zip(edges, edges[1:], counts, strict=False):
        height = max(1.0, (base - top) * count / peak) if count else 0.0
        width = max(1.0, (end - begin) * scale - 0.75)
        box = svg.box(left + (begin - low) * scale, base - height, width, height, "bar")
        told = f"{number(begin)} – {number(end)}: {number(count)}"
        drawn.append(f"<g><title>{told}</title>{box}</g>")
    drawn.append(svg.line(left, base, WIDTH - left, base, "rule"))
    for tick in ticks(low, high):
        at = left + (tick - low) * scale
        drawn.append(svg.text(at, base + 15, number(tick), _anchor(at), soft=True))
    for k, (name, value) in enumerate((marks or {}).items()):
        at, dashed = left + (value - low) * scale, ' stroke-dasharray="4 3"'
        drawn.append(svg.line(at, 12 * (k % 2) + 4, at, base, "mark", dashed))
        side = "end" if at > WIDTH / 2 else "start"
        drawn.append(svg.text(at + (-4 if side == "end" else 4), 12 * (k % 2) + 12, name, side))
    return svg.drawing(drawn, base + 20, title)


def curve(points: Sequence[tuple[float, float]], title: str) -> str:
    """A line through `points`, from the origin, with the last point in figures."""
    base, top = 92, 16
    peak_x = max((x for x, _ in points), default=0) or 1
    peak_y = max((y for _, y in points), default=0) or 1
    placed = [(0.0, float(base))]
    placed += [(WIDTH * 0.98 * x / peak_x, base - (base - top) * y / peak_y) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    last = points[-1] if points else (0, 0)
    line = f'<polyline class="mark" points="{path}" fill="none" stroke="{svg.BAR}" stroke-width="2"/>'
    dots = [svg.circle(x, y, 2.5, "bar") for x, y in placed[1:]]
    drawn = [svg.line(0, base, WIDTH, base, "rule"), line, *dots]
    drawn.append(svg.text(WIDTH, top - 5, number(last[1]), "end"))
    drawn.append(svg.text(WIDTH, base + 15, number(last[0]), "end", soft=True))
    drawn.append(svg.text(0, base + 15, "0", "start", soft=True))
    return svg.drawing(drawn, base + 20, title)


def parts(first: float, second: float, title: str) -> str:
    """One bar, of which the first part is solid and the second hatched: what was kept and what was not."""
    whole = (first + second) or 1
    length = WIDTH * first / whole
    if second:
        length = min(length, WIDTH - 2.0)
    drawn = [svg.box(0, 0, length, 8, "first")]
    if second:
        drawn.append(svg.box(length, 0, WIDTH - length, 8, "second"))
    return svg.drawing(drawn, 8, title)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= about)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """1,200 for a count; three digits of anything else."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _shortened(items: Sequence[tuple[str, float]], most: int) -> list[tuple[str, float | None]]:
    if len(items) <= most:
        return list(items)
    tail = most // 3
    head = most - tail - 1
    return [*items[:head], (f"… {len(items) - head - tail:,} …", None), *items[-tail:]]


def _anchor(at: float) -> str:
    if at < 20:
        return "start"
    return "end" if at > WIDTH - 20 else "middle"
