"""The same template over many rows: rendered once with placeholders, then filled in.

Rendering Jinja for every row costs more than encoding it. Rows of one shape (the same roles in the same
order) differ only in their texts, and a template writes most texts as they are. What it may do instead is
known from its syntax tree (`jinja.watched`) and from trying: texts it looks for, spaces it strips. A row
that touches any of that, and every row of a template that is not understood, is rendered by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luthier.data.encode import RESERVED, SEAM, Control
from luthier.data.jinja import Plain, Watched
from luthier.data.turns import Piece, RowProblem
from luthier.types import Message

_OPEN, _CLOSE = RESERVED[2], RESERVED[3]
_MARK = re.compile(f"{_OPEN}[^{_OPEN}{_CLOSE}]{{0,99}}?(\\d{{1,9}}){_CLOSE}")
"""Bounded, so that a template that writes many beginnings and no end cannot make the search long."""
_AROUND = ((" ", " "), ("\n", "\n"), ("\t\n ", " \n\t"), ("\n \n", "\n \n"))
_TRIMS: tuple[Callable[[str], str], ...] = (
    str, str.strip, str.rstrip, str.lstrip,
    lambda s: s.strip("\n"), lambda s: s.lstrip("\n"), lambda s: s.rstrip("\n"),
)  # fmt: skip
_MOST_MESSAGES, _MOST_SHAPES, _CHECKED = 32, 512, 4

Roles = tuple[str, ...]
Cut = Callable[[Sequence[Plain]], list[Piece]]


@dataclass(frozen=True, slots=True)
class _Outline:
    """A Piece with holes: texts, and numbers of the messages between them; fixed: its text if it has none."""

    parts: tuple[str | int, ...]
    turn: int
    end: int
    fixed: str = ""


@dataclass(slots=True)
class _Shape:
    outlines: tuple[_Outline, ...]
    trims: dict[str, Callable[[str], str] | None]
    checks_left: int = _CHECKED


def _placeholder(k: int) -> str:
    """Whatever changes a text (escaping, case, inner spaces) changes this one, and is then found out."""
    return f'{_OPEN}q"Zß<&\\ \n\n  {k}{_CLOSE}'


def _filled(outline: _Outline, texts: Sequence[str]) -> str:
    return "".join([part if isinstance(part, str) else texts[part] for part in outline.parts])


class Shapes:
    """Outlines of conversations by their roles. `cut` is the exact, slow way."""

    def __init__(self, cut: Cut, watched: Watched, with_seams: Callable[[str], str]) -> None:
        self._cut, self._watched, self._with_seams = cut, watched, with_seams
        self._known: dict[Roles, _Shape | None] = {}

    def pieces(
        self, messages: Sequence[Message], texts: list[str], exact: Callable[[], list[Piece]]
    ) -> list[Piece] | None:
        """The pieces of a conversation whose texts are `texts`; None when it must be rendered by itself.

        The first rows of a shape are rendered both ways; a shape that differs is never used again.
        """
        if not self._watched.verbatim:
            return None
        roles = tuple([message.role for message in messages])
        shape = self._known[roles] if roles in self._known else self._learn(roles)
        if shape is None:
            return None
        for k, text in enumerate(texts):
            if not text or self._is_watched(text):
                return None
            if text[0].isspace() or text[-1].isspace():
                trim = shape.trims[roles[k]]
                if trim is None:
                    return None
                texts[k] = text = trim(text)
                if not text:
                    return None
        pieces = [
            Piece(outline.fixed or _filled(outline, texts), outline.turn, outline.end)
            for outline in shape.outlines
        ]
        if shape.checks_left:
            shape.checks_left -= 1
            true = exact()
            if [(p.text, p.turn, p.end) for p in true] != [(unseamed(p.text), p.turn, p.end) for p in pieces]:
                self._known[roles] = None
                return true
        return pieces

    def _is_watched(self, text: str) -> bool:
        for word in self._watched.inside:
            if word in text:
                return True
        return text in self._watched.whole

    def _learn(self, roles: Roles) -> _Shape | None:
        if len(self._known) >= _MOST_SHAPES:
            self._known.clear()
        self._known[roles] = None
        if "tool" not in roles and len(roles) <= _MOST_MESSAGES:
            outlines = self._outlines(roles, lambda k: _placeholder(k))
            if outlines is not None:
                trims = {role: self._trim(roles, role, outlines) for role in set(roles)}
                self._known[roles] = _Shape(tuple(self._seamed(outline) for outline in outlines), trims)
        return self._known[roles]

    def _outlines(self, roles: Roles, text_of: Callable[[int], str]) -> tuple[_Outline, ...] | None:
        """None when the template refuses the roles, or does not write each text exactly once."""
        try:
            pieces = self._cut([{"role": role, "content": text_of(k)} for k, role in enumerate(roles)])
        except RowProblem:
            return None
        outlines, seen = [], []
        for piece in pieces:
            parts: list[str | int] = []
            at = 0
            for mark in _MARK.finditer(piece.text):
                if mark[0] != _placeholder(int(mark[1])):
                    return None
                parts += [piece.text[at : mark.start()], int(mark[1])]
                seen.append(int(mark[1]))
                at = mark.end()
            parts.append(piece.text[at:])
            outlines.append(_Outline(tuple(p for p in parts if p != ""), piece.turn, piece.end))
        return tuple(outlines) if sorted(seen) == list(range(len(roles))) else None

    def _seamed(self, outline: _Outline) -> _Outline:
        """With SEAMs in what the template writes, though not within the end of turn, whose length counts."""
        parts = [self._with_seams(part) if isinstance(part, str) else part for part in outline.parts]
        last = parts[-1] if parts else 0
        if isinstance(last, str) and outline.end and SEAM in last[-outline.end :]:
            parts[-1] = outline.parts[-1]
        fixed = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else ""
        return _Outline(tuple(parts), outline.turn, outline.end, fixed)

    def _trim(self, roles: Roles, role: str, outlines: tuple[_Outline, ...]) -> Callable[[str], str] | None:
        """What the template does to spaces around the texts of a role; None when it is nothing known."""
        candidates = [*_TRIMS]
        for before, after in _AROUND:
            texts = [
                before + _placeholder(k) + after if r == role else _placeholder(k)
                for k, r in enumerate(roles)
            ]
            try:
                found = self._cut(
                    [{"role": r, "content": text} for r, text in zip(roles, texts, strict=True)]
                )
            except RowProblem:
                return None
            for trim in [*candidates]:
                filled = [trim(text) if r == role else text for r, text in zip(roles, texts, strict=True)]
                expected = [_filled(outline, filled) for outline in outlines]
                if expected != [piece.text for piece in found]:
                    candidates.remove(trim)
            if not candidates:
                return None
        return candidates[0]


def unseamed(text: str) -> str:
    return text.replace(SEAM, "")


def texts_of(messages: Sequence[Message], controls: dict[str, Control]) -> list[str] | None:
    """Texts with control tokens broken; None when a message needs more care (tool calls, noncharacters)."""
    texts = []
    for message in messages:
        text = message.content
        if message.tool_calls:
            return None
        for mark in RESERVED:
            if mark in text:
                return None
        texts.append(controls[message.role].broken(text))
    return texts
