"""SentencePiece BPE as GGUF's metadata, from a tokenizer of the tokenizers library that stands for one.

llama.cpp joins the two neighbours whose joint text has the best score; the library joins by a list of pairs.
The two are the same where the list holds every way to make each token, one token after the other, as lists
made from SentencePiece's files do. A list learnt as pairs is something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.errors import ExportError
from luthier.gguf import pretokenizers

_NORMAL = 1
_BLANK = "▁"
_NEVER = -1e9  # score of a token that no merge makes
_ODD = 0.01
"""Share of tokens whose pairs may be incomplete; more, and the list is not SentencePiece's."""


def fields(
    told: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> tuple[dict[str, Any], list[str]]:
    """`tokenizer.ggml.*` of a tokenizer.json with bytes as last resort, and notes. Raises ExportError."""
    missing = [f"<0x{i:02X}>" for i in range(256) if f"<0x{i:02X}>" not in told["model"]["vocab"]]
    if not told["model"].get("byte_fallback") or missing:
        raise ExportError(
            "tokenizer.json: neither byte-level nor SentencePiece with a token for each byte, so not for GGUF"
        )
    prefix, notes = _prefix(told)
    best, odd = _ranks(told, tokens, types)
    if len(odd) > _ODD * len(best):
        raise ExportError(
            f"tokenizer.json: its merges are no SentencePiece's; llama.cpp would join {odd[0]!r}"
            f" and {len(odd) - 1} other tokens otherwise. --to hf keeps this tokenizer as it is"
        )
    if odd:
        notes.append(f"llama.cpp may join {', '.join(map(repr, odd[:5]))} otherwise than the tokenizer")
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": [float(-best[text]) if text in best else _NEVER for text in tokens],
        "tokenizer.ggml.add_space_prefix": prefix,
    }, notes


def types(told: Mapping[str, Any] | None) -> list[str]:
    """The types of a normalizer or pre-tokenizer and of all that it consists of."""
    return [part["type"] for part in _parts(told)]


def _parts(told: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if told is None:
        return []
    inner = [*(told.get("normalizers") or []), *(told.get("pretokenizers") or [])]
    return [told, *(part for one in inner for part in _parts(one))]


def _prefix(told: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Whether a blank is put before a text. Raises ExportError for anything else that is done to it."""
    prefix, blanks = False, False
    notes: tuple[str, ...] = ()
    for part in (*_parts(told.get("normalizer")), *_parts(told.get("pre_tokenizer"))):
        kind = part["type"]
        if kind == "Prepend" and part.get("prepend") == _BLANK:
            prefix = True
        elif kind == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == _BLANK:
            blanks = True
        elif kind == "Metaspace" and part.get("replacement") == _BLANK and not part.get("split", True):
            blanks = True
            prefix, notes = _SCHEMES[part.get("prepend_scheme", "always")]
        elif kind != "Sequence" and not (blanks and _nothing(part)):
            raise ExportError(f"tokenizer.json: SentencePiece in llama.cpp has no {kind} as it is here")
    if not blanks:
        raise ExportError(
            f"tokenizer.json: SentencePiece in llama.cpp writes blanks as {_BLANK}, this does not"
        )
    return prefix, list(notes)


_SCHEMES: Mapping[str, tuple[bool, tuple[str, ...]]] = {
    "never": (False, ()),
    "always": (
        True,
        ("llama.cpp puts a blank before a text that begins with one, too; the tokenizer does not",),
    ),
    "first": (
        False,
        ("the tokenizer puts a blank before a text but none after a special token, llama.cpp none at all",),
    ),
}
"""prepend_scheme of Metaspace -> add_space_prefix, and what differs. Chats begin with a special token."""


def _nothing(part: Mapping[str, Any]) -> bool:
    """Cutting at blanks of which there are none any more."""
    return part["type"] == "Split" and part.get("pattern") == {"String": " "}


def _ranks(
    told: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> tuple[dict[str, int], list[str]]:
    """Token -> rank of the first pair that makes it; and tokens whose pairs are not all there in a row."""
    pairs: dict[str, list[tuple[int, str]]] = {}
    for rank, (left, right) in enumerate(pretokenizers.pairs(told)):
        pairs.setdefault(left + right, []).append((rank, left))
    plain = {text for text, kind in zip(tokens, types, strict=True) if kind == _NORMAL}
    odd = []
    for text in plain:
        made = pairs.get(text, [])
        wanted = {text[:i] for i in range(1, len(text)) if text[:i] in plain and text[i:] in plain}
        row = not made or made[-1][0] - made[0][0] == len(made) - 1
        if not row or not wanted <= {left for _, left in made}:
            odd.append(text)
    return {text: made[0][0] for text, made in pairs.items()}, sorted(odd)
