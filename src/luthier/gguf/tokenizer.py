"""A tokenizer of transformers from the vocabulary of a GGUF file: `vocabulary` the other way round.

With it a file alone can be talked to: prompts are rendered and cut as in training, and what llama.cpp reads
is checked against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import ModelError
from luthier.gguf import pretokenizers, vocabulary
from luthier.gguf.read import Header, header
from luthier.gguf.vocabulary import BYTE, CONTROL, PHI3, UNKNOWN, UNUSED, USER_DEFINED

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Merge = tuple[str, str]
_LONGEST = 512
"""Characters of a token's first half. Real ones have fewer; a file of one huge token must not take hours."""


def tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, with its chat template. Raises ModelError for an unknown kind."""
    from transformers import PreTrainedTokenizerFast

    head = header(path)
    made = core(head, str(path))
    tokens = head.metadata["tokenizer.ggml.tokens"]
    named: dict[str, str] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        i = head.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(i, int) and 0 <= i < len(tokens):
            named[f"{name}_token"] = tokens[i]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made,
        chat_template=head.metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        padding_side="right",
        **named,
    )


def core(head: Header, where: str) -> Tokenizer:
    """The same without names of tokens and template, as the tokenizers library has it. where: for errors."""
    from tokenizers import AddedToken

    told = head.metadata
    maker = {"gpt2": _bytes, "llama": _sentencepiece}.get(str(told.get("tokenizer.ggml.model")))
    tokens: list[str] = told["tokenizer.ggml.tokens"]
    types: list[int] = told.get("tokenizer.ggml.token_type") or [vocabulary.NORMAL] * len(tokens)
    if maker is None:
        raise ModelError(
            f"{where}: its tokenizer ({told.get('tokenizer.ggml.model')}) cannot be rebuilt here"
        )
    try:
        made = maker(told, tokens, types, where)
    except ModelError:
        raise
    except Exception as error:  # what the library, which is not Python, says to merges that do not fit
        raise ModelError(f"{where}: its tokenizer cannot be rebuilt ({error})") from error
    strips = vocabulary.strips(str(told.get("general.name")))
    extra = [
        AddedToken(text, special=kind != USER_DEFINED, normalized=False, rstrip=strips and text not in PHI3)
        for text, kind in zip(tokens, types, strict=True)
        if kind in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    made.add_tokens(extra)
    _around(made, told, tokens)
    return made


def _bytes(told: Any, tokens: Sequence[str], types: Sequence[int], where: str) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models

    name = told.get("tokenizer.ggml.pre")
    row = pretokenizers.row(name)
    if row is None:
        known = ", ".join(dict.fromkeys(row["name"] for row in pretokenizers.rows()))
        raise ModelError(f"{where}: its pre-tokenizer {name!r} is none of those known here: {known}")
    merges = [_pair(merge) for merge in told.get("tokenizer.ggml.merges") or []]
    model = models.BPE(_ids(tokens), merges, ignore_merges=bool(row.get("ignore_merges")))
    made = Tokenizer(model)
    made.pre_tokenizer = _cutting(row["pieces"])
    made.decoder = decoders.ByteLevel()
    return made


def _cutting(pieces: Sequence[str]) -> Any:
    from tokenizers import Regex, pre_tokenizers

    found: list[Any] = []
    for piece in pieces:
        word, _, rest = piece.partition(" ")
        if word == "split":
            found.append(pre_tokenizers.Split(Regex(rest), "isolated"))
        elif word == "digits":
            found.append(pre_tokenizers.Digits(individual_digits=True))
        else:
            found.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rest == "gpt2"))
    return pre_tokenizers.Sequence(found)


def _sentencepiece(told: Any, tokens: Sequence[str], types: Sequence[int], where: str) -> Tokenizer:
    """BPE whose merges are all ways to make a token out of two, best score first."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = told.get("tokenizer.ggml.scores") or [0.0] * len(tokens)
    prefix = bool(told.get("tokenizer.ggml.add_space_prefix", True))
    unknown = next((text for text, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    model = models.BPE(
        _ids(tokens),
        _merges(tokens, types, scores),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=BYTE in types,
    )
    made = Tokenizer(model)
    space = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space] if prefix else [space])
    parts: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefix else parts)
    return made


def _merges(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[Merge]:
    ids = {text: i for i, text in enumerate(tokens) if types[i] not in (BYTE, CONTROL, UNKNOWN, UNUSED)}
    found: list[tuple[float, int, int, Merge]] = []
    for text, i in ids.items():
        for cut in range(1, min(len(text), _LONGEST)):
            left, right = ids.get(text[:cut]), ids.get(text[cut:])
            if left is not None and right is not None:
                found.append((-scores[i], left, right, (text[:cut], text[cut:])))
    return [merge for *_, merge in sorted(found)]


def _around(made: Tokenizer, told: Any, tokens: Sequence[str]) -> None:
    """What the tokenizer itself puts before and after a text."""
    from tokenizers import processors

    ids: dict[str, int] = {}
    parts = ["$A"]
    for name, place in (("bos", 0), ("eos", 2)):
        i = told.get(f"tokenizer.ggml.{name}_token_id")
        if told.get(f"tokenizer.ggml.add_{name}_token") and isinstance(i, int) and 0 <= i < len(tokens):
            parts.insert(place, tokens[i])
            ids[tokens[i]] = i
    if ids:
        made.post_processor = processors.TemplateProcessing(
            single=parts, pair=None, special_tokens=list(ids.items())
        )


def _ids(tokens: Sequence[str]) -> dict[str, int]:
    return {text: i for i, text in enumerate(tokens)}


def _pair(merge: str) -> Merge:
    left, _, right = merge.partition(" ")
    return left, right
