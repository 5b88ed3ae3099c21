"""A place in a text, and what a step did to one: the two nouns of the rooms that look at texts.

Offsets count characters of the text that was looked at. Texts are never changed in place: a step returns a
new text and the changes that lead to it, in order and without overlap, so that they can be counted, shown,
written to a ledger and taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """text[start:end] is `kind`. `shown` is short and fit for a report: what is private in it is masked."""

    kind: str
    start: int
    end: int
    shown: str


@dataclass(frozen=True, slots=True)
class Change:
    """text[start:end], which was `before`, became `after`.

    `before` is the real text, also where it is private: undoing needs it, a report must not print it.
    """

    kind: str
    start: int
    end: int
    before: str
    after: str


def excerpt(piece: str, limit: int = 40) -> str:
    """`piece` in one line of at most `limit` characters."""
    line = " ".join(piece.split()) if piece.strip() else piece.encode("unicode_escape").decode("ascii")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def replaced(text: str, spans: Iterable[Span], new: Callable[[Span], str]) -> tuple[str, list[Change]]:
    """`text` with new(span) in place of each of `spans` (in order, without overlap)."""
    changes = []
    for found in spans:
        before, after = text[found.start : found.end], new(found)
        if before != after:
            changes.append(Change(found.kind, found.start, found.end, before, after))
    return apply(text, changes), changes


def apply(text: str, changes: Iterable[Change]) -> str:
    """The new text. Raises ValueError when `changes` were not made of this text."""
    parts, last = [], 0
    for change in changes:
        if change.start < last or text[change.start : change.end] != change.before:
            raise ValueError(f"characters {change.start} to {change.end} are not what the change expects")
        parts += [text[last : change.start], change.after]
        last = change.end
    return "".join([*parts, text[last:]])


def revert(new: str, changes: Iterable[Change]) -> str:
    """The text before `changes`. Raises ValueError when `new` is not what they lead to."""
    back, shift = [], 0
    for change in changes:
        start = change.start + shift
        back.append(Change(change.kind, start, start + len(change.after), change.after, change.before))
        shift += len(change.after) - (change.end - change.start)
    return apply(new, back)


def whole(kind: str, before: str, after: str) -> list[Change]:
    """One change for a text that was rewritten, without what is equal at both ends; none if it is equal."""
    if before == after:
        return []
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    end = len(before) - tail
    return [Change(kind, head, end, before[head:end], after[head : len(after) - tail])]


def chain(first: list[Change], second: list[Change]) -> list[Change]:
    """One list of changes for two steps in a row: `second` was made of the text that `first` leads to.

    Changes that touch become one, of the kind of the earlier one.
    """
    if not first or not second:
        return first or second
    pieces: list[tuple[int, int, Change, bool]] = [(c.start, c.end, c, False) for c in second]
    shift = 0
    for change in first:
        start = change.start + shift
        pieces.append((start, start + len(change.after), change, True))
        shift += len(change.after) - len(change.before)
    pieces.sort(key=lambda piece: (piece[0], piece[1], not piece[3]))
    groups: list[list[tuple[int, int, Change, bool]]] = []
    reach = -1
    for piece in pieces:
        if not groups or piece[0] > reach:
            groups.append([])
        groups[-1].append(piece)
        reach = max(reach, piece[1]) if len(groups[-1]) > 1 else piece[1]
    merged, shift = [], 0
    for group in groups:
        change = _merged(group, shift)
        shift += sum(len(c.after) - len(c.before) for _, _, c, is_first in group if is_first)
        if change.before != change.after:
            merged.append(change)
    return merged


def _merged(group: list[tuple[int, int, Change, bool]], shift: int) -> Change:
    """The changes of one place, which in between lies `shift` characters later than in the original."""
    low, high = min(piece[0] for piece in group), max(piece[1] for piece in group)
    middle: list[str | None] = [None] * (high - low)
    for start, end, change, is_first in group:
        middle[start - low : end - low] = change.after if is_first else change.before
    text = "".join(sign or "" for sign in middle)
    before = revert(text, [_moved(c, c.start - (low - shift)) for _, _, c, is_first in group if is_first])
    after = apply(text, [_moved(c, c.start - low) for _, _, c, is_first in group if not is_first])
    return Change(group[0][2].kind, low - shift, low - shift + len(before), before, after)


def _moved(change: Change, start: int) -> Change:
    return Change(change.kind, start, start + len(change.before), change.before, change.after)
