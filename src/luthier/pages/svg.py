"""What plots are drawn of: texts, boxes, lines and circles as SVG, and how wide a text is about.

Colours come from the page's style sheet by class, and stand in the SVG for a page without one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

from luthier.pages.texts import printable

WIDTH, LETTER = 400, 7.0
MOST_LABEL = 180
BAR, RULE, INK = "#5b7a99", "#c9c7c0", "currentColor"
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def _signs(sign: str) -> float:
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def wide(label: str) -> float:
    """Its width in units, about."""
    return sum(map(_signs, label)) * LETTER


def fit(label: str, room: float = MOST_LABEL) -> str:
    """`label`, cut with an ellipsis where it is wider than `room`."""
    if wide(label) <= room:
        return label
    width, kept = LETTER, ""
    for sign in label:
        width += _signs(sign) * LETTER
        if width > room:
            break
        kept += sign
    return kept.rstrip() + "…"


def safe(text: str) -> str:
    return escape(printable(text))


def text(x: float, y: float, said: str, anchor: str, *, soft: bool = False) -> str:
    kind = ' class="soft"' if soft else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{safe(said)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    colour = RULE if kind == "second" else BAR
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        f' fill="{colour}"/>'
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str, more: str = "") -> str:
    colour = INK if kind == "mark" else RULE
    return (
        f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="{colour}"{more}/>'
    )


def circle(x: float, y: float, radius: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{BAR}"/>'


def drawing(drawn: Sequence[str], height: float, title: str, width: float = WIDTH) -> str:
    """The whole plot; `title` is what a screen reader reads."""
    named = safe(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-label="{named}" {_FONT}><title>{named}</title>{"".join(drawn)}</svg>'
    )
