"""The tokenizer as GGUF's metadata: tokens, their types, merges or scores, and the ids with a meaning.

What llama.cpp would read otherwise than training did is refused, or said in a note where only rare texts are
concerned; the proof after an export tells whether the user's own are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import ExportError
from luthier.gguf import pretokenizers, sentencepiece

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens, `LLAMA_TOKEN_TYPE_*`."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
PHI3 = {"<unk>", "<s>", "<|endoftext|>"}
"""In a model whose name says Phi-3 llama.cpp lets all special tokens but these take the blanks after them."""


@dataclass(frozen=True)
class Vocabulary:
    """fields: all `tokenizer.*` metadata · notes: what llama.cpp reads otherwise than the tokenizer · strips:
    special tokens take the blanks after them, as those of Phi-3 do."""

    fields: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    strips: bool = False


def read(folder: Path, rows: int, template: str | None) -> Vocabulary:
    """The tokenizer in `folder`. rows: of the embedding; ids beyond the vocabulary are filled up as unused.

    template: the chat template, else the one that lies with the tokenizer. Raises ExportError.
    """
    told = _read(folder / "tokenizer.json")
    config = _read(folder / "tokenizer_config.json", needed=False)
    _usual(told)
    tokens, types = _tokens(told, rows)
    ids = {token: i for i, token in enumerate(tokens)}
    found: dict[str, Any] = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    byte_level = "ByteLevel" in sentencepiece.types(told.get("pre_tokenizer"))
    more, notes = _byte_level(told) if byte_level else sentencepiece.fields(told, tokens, types)
    chat = template if template is not None else _template(folder, config)
    found |= more | _ends(folder, config, ids) | ({"tokenizer.chat_template": chat} if chat else {})
    notes += _begin(found, told, chat, ids)
    strips, said = _strips(told, ids)
    return Vocabulary(found, (*notes, *said), strips)


def strips(name: str) -> bool:
    """Whether llama.cpp takes a model of this name for a Phi-3 (see PHI3)."""
    return "phi3" in name.lower() or "phi-3" in name.lower()


def _read(path: Path, needed: bool = True) -> dict[str, Any]:
    if not path.is_file():
        if not needed:
            return {}
        raise ExportError(
            f"{path}: is missing; GGUF needs the tokenizer as tokenizer.json (save_pretrained writes it)"
        )
    try:
        loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ExportError(f"{path}: is no JSON ({error})") from error
    return loaded


def _usual(told: Mapping[str, Any]) -> None:
    """Raise ExportError unless it is BPE and merges as llama.cpp does."""
    model = told.get("model") or {}
    if model.get("type") != "BPE":
        raise ExportError(
            f"tokenizer.json: a {model.get('type')} tokenizer cannot be written to GGUF, only BPE"
        )
    strange = [
        name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)
    ]
    if strange:
        raise ExportError(f"tokenizer.json: llama.cpp merges without {', '.join(strange)}")


def _tokens(told: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Token texts and types by id, filled up to the rows of the embedding."""
    model = told["model"]
    vocabulary: Mapping[str, int] = model["vocab"]
    fallback = bool(model.get("byte_fallback"))
    types = {
        i: BYTE
        if fallback and _BYTE.fullmatch(text)
        else UNKNOWN
        if text == model.get("unk_token")
        else NORMAL
        for text, i in vocabulary.items()
    }
    texts = {i: text for text, i in vocabulary.items()}
    for added in told.get("added_tokens") or []:
        i = int(added["id"])
        texts[i] = added["content"]
        if types.get(i) != UNKNOWN:
            types[i] = CONTROL if added.get("special") else USER_DEFINED
    size = max(texts, default=-1) + 1
    if size > rows:
        raise ExportError(
            f"the tokenizer has {size} tokens, the model {rows}: one of them was resized without the other"
        )
    taken = set(texts.values())
    for i in set(range(rows)) - set(texts):
        name = f"[PAD{i}]"
        texts[i], types[i] = f"{name}{'_' * (name in taken)}", UNUSED
    found = [texts[i] for i in range(rows)]
    _apart(found)
    return found, [types[i] for i in range(rows)]


def _apart(tokens: Sequence[str]) -> None:
    """Raise ExportError for texts that llama.cpp cannot tell apart: it would end its process."""
    seen: dict[str, int] = {}
    for i, text in enumerate(tokens):
        if "\0" in text or seen.setdefault(text, i) != i:
            which = f"token {i}" if "\0" in text else f"tokens {seen[text]} and {i}"
            raise ExportError(
                f"tokenizer.json: llama.cpp cannot read {which} ({text!r}): a NUL, or twice the same"
            )


def _byte_level(told: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Byte-level BPE, which GGUF calls gpt2."""
    normalizers = set(sentencepiece.types(told.get("normalizer"))) - {"Sequence"}
    if normalizers - {"NFC"}:
        raise ExportError(
            f"tokenizer.json: llama.cpp does not normalise text by {', '.join(sorted(normalizers))}"
        )
    pre, notes = pretokenizers.named(told)
    if normalizers:
        notes.append(
            "the tokenizer joins accents to their letters (NFC), llama.cpp reads them as they come; in"
            " nearly every text they are"
        )
    merges = [" ".join(pair) for pair in pretokenizers.pairs(told)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": merges,
    }, notes


def _ends(folder: Path, config: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """Ids of the tokens with a meaning. What ends a turn must be eos, eot or eom, or nothing ends it."""
    found: dict[str, Any] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        text = config.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        if isinstance(text, str) and text in ids:
            found[f"tokenizer.ggml.{key}_token_id"] = ids[text]
    ends = _read(folder / "generation_config.json", needed=False).get("eos_token_id")
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if ends:
        found.setdefault("tokenizer.ggml.eos_token_id", ends[0])
    end = found.get("tokenizer.ggml.eos_token_id")
    if end is None:
        raise ExportError(
            f"{folder}: names no token that ends a text, and llama.cpp would take one by its number -> set"
            " eos_token in tokenizer_config.json"
        )
    others = [one for one in ends if one != end]
    if len(others) > 2:
        raise ExportError(f"generation_config.json: GGUF has room for three end tokens, not for {len(ends)}")
    return found | {
        f"tokenizer.ggml.{key}_token_id": one for key, one in zip(("eot", "eom"), others, strict=False)
    }


def _begin(
    found: dict[str, Any], told: Mapping[str, Any], chat: str | None, ids: Mapping[str, int]
) -> list[str]:
    """What llama.cpp puts before each text by itself, added to `found`; and notes.

    A chat prompt is given that token, too (once, if its template writes it), so it must not be where the
    template leaves it out. After a text nothing is put: it would stand between a prompt and its answer.
    """
    key = "tokenizer.ggml.bos_token_id"
    before, after = _around(told.get("post_processor"))
    notes = []
    if len(before) == 1:
        found[key] = ids[before[0]]
    written = chat is None or "bos_token" in chat or any(text in chat for text in before)
    adds = len(before) == 1 and written
    if before and not adds:
        notes.append(f"llama.cpp leaves out {' '.join(before)} where it is given a text that is no chat")
    if after:
        notes.append(f"llama.cpp leaves out {' '.join(after)}, which the tokenizer puts after each text")
    if key not in found and chat is not None and "bos_token" in chat:
        notes.append("the chat template says bos_token, which this tokenizer has not")
    # Without one llama.cpp takes token 11, whatever that is, for the beginning of a text.
    found.setdefault(key, found["tokenizer.ggml.eos_token_id"])
    found |= {"tokenizer.ggml.add_bos_token": adds, "tokenizer.ggml.add_eos_token": False}
    return notes


def _around(told: Mapping[str, Any] | None) -> tuple[list[str], list[str]]:
    """The tokens that the tokenizer itself puts before and after each text."""
    if told is None:
        return [], []
    if told["type"] == "Sequence":
        pairs = [_around(one) for one in told["processors"]]
        return next((b for b, _ in pairs if b), []), next((e for _, e in pairs if e), [])
    if told["type"] != "TemplateProcessing":
        return [], []
    place = next((i for i, part in enumerate(told["single"]) if "Sequence" in part), 0)
    texts = [
        [part["SpecialToken"]["id"] for part in side if "SpecialToken" in part]
        for side in (told["single"][:place], told["single"][place:])
    ]
    return texts[0], texts[1]


def _strips(told: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[bool, list[str]]:
    """Whether special tokens take the blanks after them as Phi-3's do; and notes on those that differ."""
    added = told.get("added_tokens") or []
    strips = any(one.get("rstrip") for one in added) and ids.keys() >= PHI3 | {"</s>"}
    other = [
        one["content"]
        for one in added
        if one.get("lstrip")
        or one.get("single_word")
        or bool(one.get("rstrip")) != (strips and one["content"] not in PHI3)
    ]
    if not other:
        return strips, []
    return strips, [
        f"llama.cpp takes the blanks around {', '.join(map(repr, other[:5]))} otherwise than the tokenizer"
    ]


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    found = config.get("chat_template")
    return found if isinstance(found, str) else None
