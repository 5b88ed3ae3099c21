"""Sequences that are too long: prompts are shortened in the middle, headers and endings are never touched.

What gives way, in this order: the middle of the longest texts of users and tools in the trunk, then in the
branch, then the ends of replies (before their end-of-turn token), the branch's first. System messages,
everything that the template writes, and at least FLOOR tokens of each text stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from luthier.data.encode import Encoder, Ids
from luthier.data.turns import READ, Piece

FLOOR = 16


class TooLong(Exception):
    """What may not be cut does not fit by itself."""


@dataclass(slots=True)
class Coded:
    """A piece in tokens. texts: messages of users and tools that stand in it.

    gone: what was cut out of it, each with its place among the piece's tokens before any was cut.
    """

    piece: Piece
    begins: bool
    ids: Ids
    weight: float
    texts: Sequence[str] = ()
    gone: list[tuple[int, Ids]] = field(default_factory=list)


Groups = list[list[Coded]]
"""The trunk, then the branches."""


def fit(encoder: Encoder, trunk: list[Coded], branches: list[list[Coded]], limit: int) -> int:
    """Shorten pieces in place until trunk + each branch has at most `limit` tokens; how many tokens went.

    Raises TooLong.
    """
    before = _length(trunk) + sum(_length(branch) for branch in branches)
    longest = max((_length(branch) for branch in branches), default=0)
    _shorten(encoder, trunk, _length(trunk) + longest - limit, _prompt_spans)
    for branch in branches:
        for spans in (_prompt_spans, _reply_spans):
            _shorten(encoder, branch, _length(trunk) + _length(branch) - limit, spans)
    longest = max((_length(branch) for branch in branches), default=0)
    _shorten(encoder, trunk, _length(trunk) + longest - limit, _reply_spans)
    left = _length(trunk) + longest
    if left > limit:
        raise TooLong(
            f"{left} tokens remain after cutting all that may be cut, more than cutoff_len = {limit}"
        )
    return before - _length(trunk) - sum(_length(branch) for branch in branches)


def _length(pieces: Sequence[Coded]) -> int:
    return sum(len(piece.ids) for piece in pieces)


Span = tuple[int, int]
Spans = Callable[[Encoder, Coded], list[tuple[Span, list[Span]]]]


def _prompt_spans(encoder: Encoder, coded: Coded) -> list[tuple[Span, list[Span]]]:
    """Token ranges of the messages in a piece that is read, with the characters of every token."""
    if coded.piece.turn != READ or not coded.texts:
        return []
    offsets = encoder.offsets(coded.piece.text, coded.begins)
    found, at = [], 0
    for text in coded.texts:
        start = coded.piece.text.find(text.strip(), at)
        if start < 0:
            continue
        at = start + len(text.strip())
        inside = [k for k, (a, b) in enumerate(offsets) if a >= start and b <= at and b > a]
        if inside:
            found.append(((inside[0], inside[-1] + 1), offsets))
    return found


def _reply_spans(encoder: Encoder, coded: Coded) -> list[tuple[Span, list[Span]]]:
    """The token range of a reply without its end of turn."""
    if coded.piece.turn == READ:
        return []
    offsets = encoder.offsets(coded.piece.text, coded.begins)
    stop = len(coded.piece.text) - coded.piece.end
    inside = sum(1 for _, b in offsets if b <= stop)
    return [((0, inside), offsets)] if inside else []


def _shorten(encoder: Encoder, pieces: list[Coded], excess: int, spans: Spans) -> None:
    """Take at least `excess` tokens out of the longest ranges that `spans` finds, if they hold so many."""
    if excess <= 0:
        return
    ranges = [(k, span, offsets) for k, coded in enumerate(pieces) for span, offsets in spans(encoder, coded)]
    level = _level([b - a for _, (a, b), _ in ranges], excess)
    middle = spans is _prompt_spans
    for k, (a, b), offsets in sorted(ranges, key=lambda r: (r[0], r[1]), reverse=True):
        kept = level if b - a > level else b - a
        if kept == b - a:
            continue
        gone = min(b - a - kept, excess)
        start = a + (b - a - gone) // 2 if middle else b - gone
        start, stop = _whole_characters(offsets, start, start + gone, a, b)
        excess -= stop - start
        # From the last range of a piece to its first, so `start` is the place among all of its tokens.
        pieces[k].gone.append((start, pieces[k].ids[start:stop]))
        pieces[k].ids = np.delete(pieces[k].ids, np.s_[start:stop])
        if excess <= 0:
            return


def _level(lengths: Sequence[int], excess: int) -> int:
    """The largest length to which all ranges can be cut so that `excess` tokens go; at least FLOOR."""
    low, high = FLOOR, max(lengths, default=FLOOR)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(max(length - middle, 0) for length in lengths) >= excess:
            low = middle
        else:
            high = middle - 1
    return low


def _whole_characters(offsets: list[Span], start: int, stop: int, low: int, high: int) -> Span:
    """Widen a range of tokens so that no character is left in part (byte-level tokens share characters)."""
    while start > low and offsets[start][0] < offsets[start - 1][1]:
        start -= 1
    while stop < high and stop > start and offsets[stop][0] < offsets[stop - 1][1]:
        stop += 1
    return start, stop
