"""Rows of `luthier data show` as one HTML page that needs no other file, no script and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from luthier.data.render import Renderer
from luthier.prepare.show_rows import Seen, in_hex, visible
from luthier.prepare.show_screen import PAIR, bad, title
from luthier.types import BadRow

TAGS = {"trained": "b", "masked": "i", "cut": "s"}
"""Short names: a page has an element for every token."""


def page(heading: str, subtitle: str, rows: Sequence[Mapping[str, Any]], closing: str) -> str:
    """The page of `rows` (see `row`). Whatever is in the data is escaped: it is text and nothing else."""
    source = resources.files(__package__).joinpath("show.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    values = {"tags": TAGS, "pair": PAIR, "numbers": in_hex, "broken": _broken, "visible": visible}
    return environment.from_string(source).render(
        heading=visible(heading), subtitle=subtitle, rows=rows, closing=closing, **values
    )


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
