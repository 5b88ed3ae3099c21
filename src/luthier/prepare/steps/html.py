"""HTML and XML removal, by selectolax (MIT, on Lexbor, Apache-2.0; 1.5 MB; its only door).

Chosen over lxml (three times as large, and its HTML parser follows no standard) and Beautiful Soup (needs one
of them, or html.parser, whose result differs between Python versions). Lexbor builds the tree that browsers
build.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from luthier.errors import MissingPackage
from luthier.prepare.span import whole
from luthier.prepare.steps import Outcome, outcome
from luthier.prepare.text import html_pattern, markup

_FENCE = re.compile(r"(```|~~~).*?(?:\1|\Z)|`[^`\n]+`", re.DOTALL)
_DROPPED = set("script style noscript template head svg iframe object canvas -comment".split())
_BLOCKS = set(
    "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr html main nav ol p section summary ul".split()
)
_DEPTH = 200


@dataclass(frozen=True)
class _Page:
    """What a walk over a page keeps: tables and code as Markdown; `held` is code, which nothing touches.

    In the text, a piece of code is its number between two `joint`s, a sign that the text does not hold.
    """

    tables: bool
    code: bool
    joint: str
    held: list[str] = field(default_factory=list)

    def hold(self, code: str) -> str:
        self.held.append(code)
        return f"{self.joint}{len(self.held) - 1}{self.joint}"

    def released(self, text: str) -> str:
        number = f"{self.joint}([0-9]+){self.joint}"
        return re.sub(number, lambda found: self.held[int(found[1])], text)


def html_removal(text: str, tables: bool = True, code: bool = True, xml_tags: Iterable[str] = ()) -> Outcome:
    """HTML to plain text: paragraphs and lists to lines, code and tables to Markdown.

    tables=False, code=False: their bare text. xml_tags: names of other elements to remove (what stands inside
    stays). Links keep their text, pictures their alternative text; scripts and styles go as a whole.

    Pitfall: losing text or structure. What stands in Markdown code is not touched, and neither is anything
    that is no element of HTML: List<String>, a < b, <think>, <name>. Entities are resolved once, and only
    where tags or entities stand outside of code; a second time, &lt;b&gt; that was meant to be read goes too.
    """
    free = next((sign for sign in map(chr, range(0xFDD0, 0xFDF0)) if sign not in text), None)
    if free is None or not ("<" in text or "&" in text):
        return Outcome(text)
    page = _Page(tables, code, free)
    held = _FENCE.sub(lambda found: page.hold(found.group()), text)
    new = _without_elements(held, tuple(xml_tags))
    if markup(new):
        new = _plain(new, page) if html_pattern().search(new) else html.unescape(new)
    new = page.released(new)
    return outcome(text, (new, whole("html", text, new)))


def _without_elements(text: str, names: tuple[str, ...]) -> str:
    if not names:
        return text
    some = "|".join(map(re.escape, names))
    return re.sub(rf"</?(?:{some})(?:\s[^<>]*)?/?>|<\?xml\b[^<>]*\?>", "", text)


def _plain(text: str, page: _Page) -> str:
    """The text of a page. A "<" that begins no element of HTML is text, as it was meant."""
    guarded, last = [], 0
    for tag in html_pattern().finditer(text):
        guarded += [text[last : tag.start()].replace("<", "&lt;"), tag.group()]
        last = tag.end()
    guarded.append(text[last:].replace("<", "&lt;"))
    body = _parser()("".join(guarded)).body
    lines = "".join(_walk(body, page, 0)) if body is not None else ""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", lines)).strip("\n")


@functools.cache
def _parser() -> Any:
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as missing:
        raise MissingPackage("selectolax", "removing HTML", "data") from missing
    return LexborHTMLParser


def _walk(node: Any, page: _Page, depth: int) -> Iterator[str]:
    """The text below `node`; what is nested deeper than 200 gives its bare text."""
    child = node.child
    while child is not None:
        tag = child.tag
        if tag == "-text":
            yield child.text_content or ""
        elif tag not in _DROPPED:
            yield from [child.text(deep=True)] if depth > _DEPTH else _element(child, tag, page, depth + 1)
        child = child.next


def _element(node: Any, tag: str, page: _Page, depth: int) -> Iterator[str]:
    if tag == "br":
        yield "\n"
    elif tag == "img":
        yield node.attributes.get("alt") or ""
    elif tag == "table" and page.tables:
        yield from ("\n\n", _table(node, page, depth), "\n\n")
    elif tag in ("pre", "code") and page.code:
        yield _code(node, tag, page)
    elif tag == "li":
        yield from ("\n- ", "".join(_walk(node, page, depth)).strip())
    else:
        before, after = ("\n\n", "\n\n") if tag in _BLOCKS else _AROUND.get(tag, ("", ""))
        yield from (before, *_walk(node, page, depth), after)


_AROUND = {"tr": ("\n", ""), "title": ("\n", "\n"), "td": ("", "\t"), "th": ("", "\t")}


def _code(node: Any, tag: str, page: _Page) -> str:
    text = page.released(node.text(deep=True))
    if tag == "code" and "\n" not in text:
        return page.hold(f"`{text}`") if text.strip() else text
    inner = node.css_first("code") if tag == "pre" else node
    name = re.search(r"(?:language|lang)-([\w+#-]+)", (inner or node).attributes.get("class") or "")
    language = name[1] if name else ""
    return "\n\n" + page.hold(f"```{language}\n{text.strip(chr(10))}\n```") + "\n\n"


def _table(node: Any, page: _Page, depth: int) -> str:
    """Rows as lines of Markdown; a table inside a cell becomes the text of the cell."""
    bare = replace(page, tables=False, code=False)
    rows = []
    for part in node.iter():
        for row in [part] if part.tag == "tr" else part.iter():
            if row.tag == "tr":
                cells = ("".join(_walk(cell, bare, depth)) for cell in row.iter() if cell.tag in ("td", "th"))
                rows.append([" ".join(cell.split()).replace("|", "\\|") for cell in cells])
    rows = [row for row in rows if row]
    if not rows:
        return page.released("".join(_walk(node, bare, depth)))
    width = max(map(len, rows))
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])
