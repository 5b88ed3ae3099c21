"""What is in a text that should not be there: each check takes a text and returns spans.

Pure functions of strings, without a model and without a tokenizer. What stands in Markdown code (fences and
back-ticks) is left out where code may well hold it: tags and placeholders; control tokens are reported there
too, since a tokenizer does not know Markdown. Offsets are those of the text as given.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

import yaml

from luthier.prepare import mojibake
from luthier.prepare.span import Span, excerpt

_CODE = re.compile(r"(```|~~~).*?(?:\1|\Z)|`[^`\n]+`", re.DOTALL)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]+|[\ud800-\udfff]+")
_ENTITY = re.compile(
    r"&(?:nbsp|amp|lt|gt|quot|apos|copy|reg|trade|hellip|mdash|ndash|bull|middot|laquo|raquo|[lr][sd]quo|times"
    r"|[eE]?(?:acute|grave|uml)|#\d{2,6}|#[xX][0-9a-fA-F]{2,6});"
)
_SENTENCE_END = re.compile(r"[。！？!?…．]|\.(?=\s|$)")
_CLOSED = tuple("。！？!?.…．：:；;)）]】}」』”’\"'>》`*_~|#—-％%")
_CUT_MARK = tuple(",，、；(（[【{「『“‘<《&")
_PAIRS = (("（", "）"), ("“", "”"), ("「", "」"), ("《", "》"), ("【", "】"))
_LOOP = re.compile(r"(.{1,60}?)\1{3,}", re.DOTALL)
_LOOP_WINDOW = 4000


@functools.cache
def rules() -> dict[str, Any]:
    """text.yaml: the patterns and limits of this module and of `measure`."""
    text = files("luthier.prepare").joinpath("text.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def without_code(text: str) -> str:
    """`text`, as long as before, with NUL in place of Markdown code."""
    if "`" not in text and "~~~" not in text:
        return text
    return _CODE.sub(lambda found: "\0" * len(found.group()), text)


def encoding(text: str) -> list[Span]:
    """Encoding damage ("mojibake", "lost"), controls and surrogates ("control_character")."""
    controls = _simple("control_character", _CONTROLS, text)
    return sorted([*mojibake.find(text), *controls], key=lambda span: span.start)


@functools.cache
def html_pattern() -> re.Pattern[str]:
    """A tag of HTML, a comment, a document type or a CDATA section. `name` is the element of a tag."""
    names = "|".join(sorted(rules()["html_elements"].split(), key=len, reverse=True))
    return re.compile(
        rf"</?(?P<name>{names})(?:\s[^<>]*)?/?>|<!--(?:(?!<!--).)*?-->|<!doctype\b[^<>]*>|<\?xml\b[^<>]*>"
        r"|<!\[CDATA\[|\]\]>",
        re.IGNORECASE | re.DOTALL,
    )


def markup(text: str) -> list[Span]:
    """Remains of HTML and XML outside of code: "html_tag" and "html_entity".

    Unknown names (<think>, <T>, <name>) are no HTML. A letter alone (<a>, <b>) counts where it has attributes
    or is closed somewhere: List<a> is not.
    """
    if "<" not in text and "&" not in text:
        return []
    view = without_code(text)
    found = _simple("html_entity", _ENTITY, view)
    closed = functools.cache(lambda name: re.search(f"</{name}>", view, re.IGNORECASE) is not None)
    for tag in html_pattern().finditer(view):
        name = (tag["name"] or "").lower()
        bare = len(name) == 1 and name != "p" and tag.group().lower() == f"<{name}>"
        if not bare or closed(name):
            found.append(Span("html_tag", *tag.span(), excerpt(tag.group())))
    return sorted(found, key=lambda span: span.start)


@functools.cache
def _special() -> re.Pattern[str]:
    return re.compile(rules()["special_tokens"], re.VERBOSE)


def special_tokens(text: str, extra: Iterable[str] = ()) -> list[Span]:
    """Control tokens of chat models as text: <|im_end|>, [INST], </s>. `extra`: those of the model at hand.

    In a training text such a token ends the turn or opens another one where nobody meant it.
    """
    found = _simple("special_token", _special(), text) if "<" in text or "[" in text else []
    for token in extra:
        start = text.find(token) if token else -1
        while start >= 0:
            end = start + len(token)
            if all(end <= other.start or start >= other.end for other in found):
                found.append(Span("special_token", start, end, excerpt(token)))
            start = text.find(token, end)
    return sorted(found, key=lambda span: span.start)


@functools.cache
def _placeholder() -> re.Pattern[str]:
    pattern = rules()["placeholders"].replace("zh_words", rules()["placeholder_words_zh"])
    pattern = pattern.replace("zh_headings", rules()["placeholder_headings_zh"])
    return re.compile(pattern.replace("words", rules()["placeholder_words"]), re.VERBOSE)


def placeholders(text: str) -> list[Span]:
    """What was never filled in: {{name}}, ${name}, <name>, [Your Name], 【姓名】, outside of code."""
    return _simple("placeholder", _placeholder(), without_code(text))


def truncated(text: str) -> list[Span]:
    """An ending that was cut off: "truncated" where it is plain, "open_ending" where prose just stops.

    Plain: an open code fence, an opening bracket or a comma at the end, a last word after which something
    must come ("of", "因为"), a bracket or quotation that is not closed. Labels, titles and lists end
    without a full stop and are not reported: an open ending needs two sentences before it. Whether that is
    rare enough in a data set to mean something, the caller can count.
    """
    body = text.rstrip()
    if len(body) < 12:
        return []
    start = max(0, len(body) - 20)
    if why := _cut(body):
        return [Span("truncated", start, len(body), f"{why}: …{excerpt(body[start:])}")]
    tail = body[-400:]
    prose = len(_SENTENCE_END.findall(tail)) >= 2 and "\n" not in tail[-40:]
    if prose and body[-1].isalnum() and "#" not in tail[-40:]:
        return [Span("open_ending", start, len(body), f"…{excerpt(body[start:])}")]
    return []


def _cut(body: str) -> str:
    """Why `body` is certainly cut off; "" if it is not."""
    if body.count("```") % 2:
        return "open code fence"
    if body.endswith(_CUT_MARK):
        return f"ends with {body[-1]}"
    last = re.search(r"[A-Za-z]+$", body)
    if last and last.group() in _open_words()[0] and _SENTENCE_END.search(body):
        return f'ends with "{last.group()}"'
    if body.endswith(_open_words()[1]) and len(_SENTENCE_END.findall(body)) >= 1:
        return f"ends with {body[-2:]}"
    for left, right in _PAIRS if not body.endswith(_CLOSED) else ():
        if right not in body[body.rfind(left) :] and left in body[-200:]:
            return f"{left} is not closed"
    return ""


@functools.cache
def _open_words() -> tuple[frozenset[str], tuple[str, ...]]:
    return frozenset(rules()["open_words_en"].split()), tuple(rules()["open_words_zh"].split())


def loops(text: str) -> list[Span]:
    """Something of up to 60 characters that is said four times or more in a row, over 24 characters or more.

    What a model does that was stopped late, or a page that was scraped badly. Rows of one sign (-----, a rule
    or a table) and blanks are none. Only the first and the last 4000 characters are looked at.
    """
    found = []
    halves = [(0, text)] if len(text) <= 2 * _LOOP_WINDOW else _ends(text)
    for offset, part in halves:
        if not _may_loop(part):
            continue
        triples = set(zip(part, part[1:], part[2:], strict=False)) if len(part) <= 400 else ()
        if len(triples) > 0.7 * len(part):
            continue
        for loop in _LOOP.finditer(part):
            if len(loop.group()) >= 24 and re.search(r"\w", loop[1]):
                shown = f"{excerpt(loop[1], 30)} x {len(loop.group()) // len(loop[1])}"
                found.append(Span("loop", offset + loop.start(), offset + loop.end(), shown))
    return found


def _may_loop(text: str) -> bool:
    """False where there is no loop, in a fiftieth of the time.

    A loop of length L >= 24 and period p <= L / 4 equals itself p characters on for L - p >= max(18, 3p)
    characters; 12 of them that begin at a multiple of 6 are among these.
    """
    for at in range(0, max(0, len(text) - 12), 6):
        block = text[at : at + 12]
        again = text.find(block, at + 1, at + 72)
        while again >= 0:
            if _agree(text, at, again) >= max(18, 3 * (again - at)):
                return True
            again = text.find(block, again + 1, at + 72)
    return False


def _agree(text: str, one: int, other: int) -> int:
    """Length of the longest piece around `one` that equals the piece as far around `other`."""
    ahead = 0
    while other + ahead < len(text) and text[one + ahead] == text[other + ahead]:
        ahead += 1
    back = 0
    while one > back and text[one - back - 1] == text[other - back - 1]:
        back += 1
    return ahead + back


def _ends(text: str) -> list[tuple[int, str]]:
    return [(0, text[:_LOOP_WINDOW]), (len(text) - _LOOP_WINDOW, text[-_LOOP_WINDOW:])]


def _simple(kind: str, pattern: re.Pattern[str], text: str) -> list[Span]:
    return [Span(kind, *found.span(), excerpt(found.group())) for found in pattern.finditer(text)]


# name -> what looks for it; personal data, Unicode classes and whole-text measures have modules of their own.
CHECKS: dict[str, Callable[[str], list[Span]]] = {
    "encoding": encoding,
    "markup": markup,
    "special_tokens": special_tokens,
    "placeholders": placeholders,
    "truncated": truncated,
    "loops": loops,
}
