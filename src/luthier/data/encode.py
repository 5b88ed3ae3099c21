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
RESERVED = ("\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3")
_MEMORY = 16 << 20
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
    """Ids of pieces. `special`: tokens that only a template may write."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._known: dict[Piece, Ids] = {}
        self._size = 0
        newline, after = self._plain(["\n", "\na"])
        self._newline = newline
        self._prefixes = after[len(newline) :] != self._plain(["a"])[0] and after[: len(newline)] == newline

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole texts; nothing added, nothing cut off."""
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
            found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in found]
        return [list(self.tokenizer.encode(text, add_special_tokens=False)) for text in texts]

    def encode(self, pieces: Sequence[Piece]) -> list[Ids]:
        """Ids of each piece; equal pieces are encoded once."""
        wanted = list(dict.fromkeys(piece for piece in pieces if piece not in self._known))
        fresh = dict(zip(wanted, self._encoded(wanted), strict=True))
        result = [fresh[piece] if piece in fresh else self._known[piece] for piece in pieces]
        self._remember(fresh)
        return result

    def _remember(self, fresh: dict[Piece, Ids]) -> None:
        size = sum(len(text) for text, _ in fresh)
        if self._size + size > _MEMORY:
            self._known, self._size = {}, 0
        if size <= _MEMORY:
            self._known.update(fresh)
            self._size += size

    def _encoded(self, pieces: Sequence[Piece]) -> list[Ids]:
        parts: list[str] = []
        counts: list[list[bool]] = []
        for text, begins in pieces:
            split = text.split(BREAK) if BREAK in text else [text]
            inner = [self._prefixes and not (begins and k == 0) for k in range(len(split))]
            parts.extend("\n" + part if shifted else part for part, shifted in zip(split, inner, strict=True))
            counts.append(inner)
        found = iter(self._plain(parts))
        result = []
        for inner in counts:
            ids: list[int] = []
            for shifted in inner:
                part = next(found)
                ids = ids + part[len(self._newline) :] if shifted else ids + part if ids else part
            result.append(np.array(ids, dtype=np.int32))
        return result

    def offsets(self, text: str, begins: bool) -> list[tuple[int, int]]:
        """Where each token of a piece comes from: character ranges in `text`, BREAKs counted.

        Raises ValueError for a tokenizer that cannot tell.
        """
        if self._backend is None:
            raise ValueError("this tokenizer does not say where its tokens come from")
        found: list[tuple[int, int]] = []
        at = 0
        for k, part in enumerate(text.split(BREAK)):
            shifted = self._prefixes and not (begins and k == 0)
            encoding = self._backend.encode("\n" + part if shifted else part, add_special_tokens=False)
            skip, lead = (len(self._newline), 1) if shifted else (0, 0)
            found.extend((at + a - lead, at + b - lead) for a, b in encoding.offsets[skip:])
            at += len(part) + 1
        return found

    def backend_text(self) -> str:
        """The whole tokenizer as JSON; "" for one that is not of the `tokenizers` library."""
        return str(self._backend.to_str()) if self._backend is not None else ""
