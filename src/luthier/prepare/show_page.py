"""Rows of `luthier data show` as one HTML page that needs no other file, no script and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from luthier.data.render import Renderer
from luthier.data.trace import Unit
from luthier.pages import base
from luthier.prepare.show_rows import Seen, in_hex, visible
from luthier.prepare.show_screen import PAIR, bad, title
from luthier.types import BadRow

TAGS = {"trained": Markup("b"), "masked": Markup("i"), "cut": Markup("s")}
"""Short names: a page has an element for every token."""


def page(heading: str, subtitle: str, rows: Sequence[Mapping[str, Any]], closing: str) -> str:
    """The page of `rows` (see `row`). Whatever is in the data is escaped: it is text and nothing else."""
    values = {"tags": TAGS, "pair": PAIR, "numbers": _numbers, "broken": _broken, "visible": visible}
    told = {"heading": visible(heading), "subtitle": subtitle, "rows": rows, "closing": closing}
    return base.render("prepare/show.html.jinja", "prepare/show.css", "en", **told, **values)


def row(seen: Seen, renderer: Renderer) -> dict[str, Any]:
    """What the page says of a row; kept instead of the row, which may be much larger."""
    told = {"source": seen.source, "flagged": bool(seen.flags), "title": title(seen), "bad": ""}
    if isinstance(seen.row, BadRow):
        return {**told, "title": "", "bad": bad(seen.row)}
    counts = seen.counts()
    sums = " + ".join(f"{count} {kind}" for kind, count in counts.items())
    return {**told, "sums": f"{sum(counts.values())} tokens = {sums}", "parts": seen.drawn(renderer)}


def _broken(text: str) -> Markup:
    """`text` with a sign before every line feed, so that one sees which token has it."""
    return Markup("<u></u>\n").join(visible(text).split("\n"))


def _numbers(unit: Unit) -> Markup:
    """Mark-up, so that ids are not searched for secrets: there is one for every token of a page."""
    return escape(in_hex(unit))
