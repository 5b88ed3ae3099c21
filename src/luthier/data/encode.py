"""The tokenizer's door: pieces of text to ids, many at once, each as if it stood inside a longer text.

Two things a plain call would get wrong are settled here. Text of a message that spells a control token is
broken after its first character (BREAK), so no part of it can become that token, whatever the tokenizer.
And tokenizers that put a space before a text (SentencePiece) must do so only where a text really begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = npt.NDArray[np.int32]
Piece = tuple[str, bool]
"""(text, whether it begins the sequence)."""

BREAK = "\ufdd0"
"""A Unicode noncharacter: never text, so it can mark a place in one. Messages that hold one are refused."""
SEAM = "\ufdd3"
"""A place where a piece may be cut without changing its tokens, so that its parts are remembered."""
RESERVED = ("\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3")
_INSIDE = RESERVED[2]
_MEMORY = 8 << 20
"""Characters of pieces that are remembered with their ids (labels, fixed prompts, repeated rows)."""


class Control:
    """Finds the texts in messages that spell one of some tokens."""

    def __init__(self, tokens: Iterable[str]) -> None:
        words = sorted({t for t in tokens if len(t) > 1}, key=len, reverse=True)
        self.words = tuple(words)
        self._hints = tuple({w[:2] for w in words})
        pattern = "|".join(map(re.escape, words)) or "(?!)"
        self._at = re.compile(f"(?=(?:{pattern}))(.)", re.DOTALL)
        self.first = re.compile(pattern)

    def broken(self, text: str) -> str:
        """The text with BREAK after the first character of every occurrence (overlapping ones too)."""
        for hint in self._hints:
            if hint in text:
                return self._at.sub(rf"\g<1>{BREAK}", text)
        return text


class Encoder:
    """Ids of pieces, with a memory for parts that come again."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._known: dict[str, Ids] = {}
        self._size = 0
        newline, after, alone = self._plain(["\n", "\na", "a"])
        self._newline = newline
        self._prefixes = after[: len(newline)] == newline and after[len(newline) :] != alone
        self.seams = re.compile("|".join(map(re.escape, self._isolating())) or "(?!)")

    def _isolating(self) -> list[str]:
        """Special tokens at which a text may be cut without changing any other token of it."""
        if self._backend is None or self._prefixes:
            return []
        found = [
            (str(token), number)
            for number, token in self.tokenizer.added_tokens_decoder.items()
            if token.special and not (token.lstrip or token.rstrip or token.single_word)
        ]
        alone, tail = self._plain(["a b ", " c\n"])
        whole = self._plain([f"a b {token} c\n" for token, _ in found])
        return [
            token for (token, number), ids in zip(found, whole, strict=True) if ids == [*alone, number, *tail]
        ]

    def with_seams(self, text: str) -> str:
        """The text with SEAM before its first and behind its last special token."""
        found = list(self.seams.finditer(text))
        if not found:
            return text
        first, last = found[0].start(), found[-1].end()
        return SEAM.join(part for part in (text[:first], text[first:last], text[last:]) if part)

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole texts; nothing added, nothing cut off."""
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
            found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in found]
        return [list(self.tokenizer.encode(text, add_special_tokens=False)) for text in texts]

    def encode(self, pieces: Sequence[Piece]) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Ids of all pieces, one behind the other, and where each piece starts (and the last one ends).

        Equal parts are encoded once.
        """
        if not pieces:
            return np.zeros(0, np.int32), np.zeros(1, np.int64)
        parts: list[str] = []
        counts: list[int] = []
        for text, begins in pieces:
            split = self._parts(text, begins)
            parts += split
            counts.append(len(split))
        self._learn(parts)
        arrays = [self._known[part] for part in parts]
        ends = np.cumsum(np.fromiter(map(len, arrays), np.int64, len(arrays)))
        starts = np.concatenate([[0], ends[np.cumsum(counts) - 1]])
        return np.concatenate(arrays), starts

    def _learn(self, parts: Sequence[str]) -> None:
        """Encode what is not remembered; what was before is forgotten when it would grow too large."""
        if self._size > _MEMORY:
            self._known, self._size = {}, 0
        known = self._known
        wanted = list(dict.fromkeys([part for part in parts if part not in known]))
        known.update(zip(wanted, self._encoded(wanted), strict=True))
        self._size += sum(map(len, wanted))

    def _parts(self, text: str, begins: bool) -> list[str]:
        """A piece cut at its marks. A part that must not be given a beginning's space starts with _INSIDE."""
        parts = text.replace(SEAM, BREAK).split(BREAK)
        if self._prefixes:
            return [part if begins and k == 0 else _INSIDE + part for k, part in enumerate(parts)]
        return parts

    def _encoded(self, parts: Sequence[str]) -> list[Ids]:
        if not self._prefixes:
            return [np.array(ids, dtype=np.int32) for ids in self._plain(parts)]
        inside = [part.startswith(_INSIDE) for part in parts]
        found = self._plain(
            ["\n" + part[1:] if shifted else part for part, shifted in zip(parts, inside, strict=True)]
        )
        skip = len(self._newline)
        return [
            np.array(ids[skip * shifted :], dtype=np.int32)
            for ids, shifted in zip(found, inside, strict=True)
        ]

    def offsets(self, text: str, begins: bool) -> list[tuple[int, int]]:
        """Where each token of a piece comes from: character ranges in `text`, marks counted.

        Raises ValueError for a tokenizer that cannot tell.
        """
        if self._backend is None:
            raise ValueError("this tokenizer does not say where its tokens come from")
        found: list[tuple[int, int]] = []
        at = 0
        for k, part in enumerate(text.replace(SEAM, BREAK).split(BREAK)):
            shifted = self._prefixes and not (begins and k == 0)
            encoding = self._backend.encode("\n" + part if shifted else part, add_special_tokens=False)
            skip, lead = (len(self._newline), 1) if shifted else (0, 0)
            found.extend((at + a - lead, at + b - lead) for a, b in encoding.offsets[skip:])
            at += len(part) + 1
        return found

    def backend_text(self) -> str:
        """The whole tokenizer as JSON; "" for one that is not of the `tokenizers` library."""
        return str(self._backend.to_str()) if self._backend is not None else ""
