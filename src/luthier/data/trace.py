"""What the model reads, token by token with the text that each stands for: made of `Renderer.pieces`, the
very pieces that training joins.

A character may take several tokens (byte-level BPE, byte fallback), which decoded one by one are rubbish; so
texts come from the tokenizer's offsets, and tokens that share a character are one Unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from luthier.data.cutoff import Coded, Groups
from luthier.data.encode import BREAK, SEAM, Encoder, Ids
from luthier.data.turns import READ

_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_LONGEST = 8
"""Tokens that one character can take, at most, where only decoding tells (UTF-8: 4 bytes)."""

UNTRAINED, ENDLESS, CUT = "no-trained-token", "end-of-turn-not-trained", "cut"


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest run of tokens that is whole characters, mostly one token.

    weight: with which it is learnt; 0: it is only read · cut: `cutoff_len` takes it out · bytes: of each
    token, in hexadecimal, where they share a character (when asked for).
    """

    text: str
    ids: tuple[int, ...]
    weight: float = 0.0
    cut: bool = False
    bytes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """ "trained", "masked" or "cut"."""
        return "cut" if self.cut else "trained" if self.weight else "masked"


def units(encoder: Encoder, group: Iterable[Coded], spelt: bool = False) -> list[Unit]:
    """The trunk or a branch of a sequence, unit by unit, with cut tokens in the place where they were.

    The texts of all units, one behind the other, are the rendered text. spelt: with the bytes of tokens.
    """
    return [unit for coded in group for unit in _units(encoder, coded, spelt)]


def texts(encoder: Encoder, group: Iterable[Coded]) -> Iterator[tuple[str, str]]:
    """The same as (text, kind), without looking into pieces that are whole: much faster."""
    for coded in group:
        if coded.gone:
            yield from ((unit.text, unit.kind) for unit in _units(encoder, coded, False))
        else:
            yield _plain(coded.piece.text), "trained" if coded.weight else "masked"


def flags(parts: Sequence[Groups]) -> list[str]:
    """What a person should look at in an example: UNTRAINED when one of its sequences has nothing to learn,
    ENDLESS when a reply is learnt without what ends it, CUT."""
    found = []
    if any(not any(c.weight and len(c.ids) for c in whole) for groups in parts for whole in _wholes(groups)):
        found.append(UNTRAINED)
    if any(_endless(whole) for groups in parts for whole in _wholes(groups)):
        found.append(ENDLESS)
    if any(c.gone for groups in parts for group in groups for c in group):
        found.append(CUT)
    return found


def _wholes(groups: Groups) -> Iterator[list[Coded]]:
    trunk, *branches = groups
    return (trunk + branch for branch in branches or [[]])


def _endless(whole: Sequence[Coded]) -> bool:
    """Whether a turn that is learnt lacks its end: nothing ends it, or that is not learnt or cut."""
    last = {coded.piece.turn: coded for coded in whole if coded.piece.turn != READ}
    learnt = {coded.piece.turn for coded in whole if coded.weight and coded.piece.turn != READ}
    return any(not (last[turn].piece.end and last[turn].weight) or _end_gone(last[turn]) for turn in learnt)


def _end_gone(coded: Coded) -> bool:
    total = len(coded.ids) + sum(len(ids) for _, ids in coded.gone)
    return any(start + len(ids) == total for start, ids in coded.gone)


def _units(encoder: Encoder, coded: Coded, spelt: bool) -> Iterator[Unit]:
    whole, gone = _whole(coded)
    text, ids = coded.piece.text, whole.tolist()
    at = 0  # how far the text is shown
    for first, last, upto in _runs(encoder, coded, whole):
        tokens = tuple(ids[first:last])
        shared = tuple(_bytes(encoder, token) for token in tokens) if spelt and len(tokens) > 1 else ()
        yield Unit(_plain(text[at:upto]), tokens, coded.weight, first in gone, shared)
        at = upto


def _whole(coded: Coded) -> tuple[Ids, set[int]]:
    """All tokens of a piece, those that were cut out in their places, and which these are (never a part of a
    character, so of no Unit in part)."""
    ids, gone = coded.ids, set[int]()
    for start, cut in sorted(coded.gone, key=lambda one: one[0]):
        ids = np.insert(ids, start, cut)
        gone.update(range(start, start + len(cut)))
    return ids, gone


def _runs(encoder: Encoder, coded: Coded, ids: Ids) -> list[tuple[int, int, int]]:
    """(first token, token behind the last, character behind the last) of each unit; every character of the
    piece belongs to one, also those for which there is no token."""
    if len(ids) == 0:
        return [(0, 0, len(coded.piece.text))] if coded.piece.text else []
    try:
        offsets = encoder.offsets(coded.piece.text, coded.begins)
    except ValueError:
        return _by_decoding(encoder, coded.piece.text, ids)
    if len(offsets) != len(ids):  # a token that no text stands for by itself, such as that behind a document
        return [(0, len(ids), len(coded.piece.text))]
    found: list[tuple[int, int, int]] = []
    for k, (start, stop) in enumerate(offsets):
        upto = found[-1][2] if found else 0
        end = max(upto, stop)
        if found and start < upto:
            found[-1] = (found[-1][0], k + 1, end)
        else:
            found.append((k, k + 1, end))
    found[-1] = (*found[-1][:2], len(coded.piece.text))
    return found


def _by_decoding(encoder: Encoder, text: str, ids: Ids) -> list[tuple[int, int, int]]:
    """The same for a tokenizer that does not say where its tokens come from: each is decoded behind the one
    before it, and found again in the text."""
    found: list[tuple[int, int, int]] = []
    decode = encoder.tokenizer.decode
    first = at = 0
    before: list[int] = []
    for k in range(len(ids)):
        own = [int(i) for i in ids[first : k + 1]]
        new = str(decode(before + own))[len(str(decode(before))) if before else 0 :]
        if (not new or new.endswith("\ufffd")) and len(own) < _LONGEST:
            continue
        place = text.find(new, at)
        at = place + len(new) if place >= 0 else at
        found.append((first, k + 1, at))
        first, before = k + 1, own
    if first < len(ids):
        found.append((first, len(ids), at))
    found[-1] = (*found[-1][:2], len(text))
    return found


def _plain(text: str) -> str:
    return text.replace(BREAK, "").replace(SEAM, "")


def _bytes(encoder: Encoder, token: int) -> str:
    """The bytes of a token in hexadecimal: of byte-level BPE, or of a fallback token such as <0xE4>."""
    word = str(encoder.tokenizer.convert_ids_to_tokens(token))
    single = _BYTE.fullmatch(word)
    if single:
        return single[1].lower()
    table = _byte_level()
    whole = all(letter in table for letter in word)
    return (bytes(table[letter] for letter in word) if whole else word.encode("utf-8", "replace")).hex(" ")


@cache
def _byte_level() -> dict[str, int]:
    """Letter -> byte of byte-level BPE (GPT-2's table)."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    table: Callable[[], dict[int, str]] = bytes_to_unicode
    return {letter: byte for byte, letter in table().items()}
