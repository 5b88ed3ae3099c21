"""The tokenizer as GGUF's metadata: tokens, their types, merges or scores, and the ids with a meaning.

llama.cpp cuts text before merging by rules that it has built in, each under a name; which of them a
tokenizer follows is recognised from its own regular expressions. A tokenizer that follows none is refused:
under a wrong name the file would load, and read other tokens than training did.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from luthier.errors import ExportError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens, `LLAMA_TOKEN_TYPE_*`."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NEVER = -1e9  # score of a token that no merge makes
_HARMLESS = {"NFC"}  # normalizers that leave nearly every text alone


def fields(folder: Path, rows: int, template: str | None) -> dict[str, Any]:
    """All `tokenizer.*` metadata. rows: of the embedding; ids beyond the vocabulary are filled up as unused.

    template: the chat template, else the one that lies with the tokenizer. Raises ExportError.
    """
    told = _read(folder / "tokenizer.json")
    config = _read(folder / "tokenizer_config.json", needed=False)
    model = told["model"]
    if model.get("type") != "BPE":
        raise ExportError(
            f"tokenizer.json: a {model.get('type')} tokenizer cannot be written to GGUF, only BPE"
        )
    tokens, types = _tokens(told, rows)
    ids = {token: i for i, token in enumerate(tokens)}
    found: dict[str, Any] = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    pieces = _pieces(told.get("pre_tokenizer"))
    found |= (
        _bytes(told, pieces) if any(p.startswith("bytes") for p in pieces) else _sentencepiece(told, tokens)
    )
    found |= _special(folder, config, told, ids)
    written = template if template is not None else _template(folder, config)
    if written:
        found["tokenizer.chat_template"] = written
    return found


def pre_tokenizer(told: Mapping[str, Any]) -> str:
    """`tokenizer.ggml.pre` of a byte-level tokenizer.json. Raises ExportError where there is none."""
    pieces = _pieces(told.get("pre_tokenizer"))
    ignores = bool(told["model"].get("ignore_merges"))
    for row in rows():
        if row["pieces"] == pieces and row.get("ignore_merges", ignores) == ignores:
            return str(row["name"])
    known = ", ".join(dict.fromkeys(row["name"] for row in rows()))
    raise ExportError(
        f"tokenizer.json: llama.cpp has no pre-tokenizer that cuts as {' + '.join(pieces) or 'none'}; it is"
        f" none of {known}. --to hf keeps this tokenizer as it is"
    )


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
    return [texts[i] for i in range(rows)], [types[i] for i in range(rows)]


def _pieces(told: Mapping[str, Any] | None) -> list[str]:
    """A pre-tokenizer in the words of pretokenizers.yaml; what has no word there is given by its type."""
    if told is None:
        return []
    kind = told["type"]
    if kind == "Sequence":
        return [piece for one in told["pretokenizers"] for piece in _pieces(one)]
    if kind == "Split" and told.get("behavior") == "Isolated" and not told.get("invert"):
        pattern = told["pattern"]
        return [f"split {pattern['Regex']}" if "Regex" in pattern else f"string {pattern.get('String')}"]
    if kind == "Digits" and told.get("individual_digits"):
        return ["digits"]
    if kind == "ByteLevel" and not told.get("add_prefix_space"):
        return ["bytes gpt2" if told.get("use_regex", True) else "bytes"]
    return [kind]


def _bytes(told: Mapping[str, Any], pieces: Sequence[str]) -> dict[str, Any]:
    """Byte-level BPE, which GGUF calls gpt2."""
    normalizer = (told.get("normalizer") or {}).get("type")
    if normalizer is not None and normalizer not in _HARMLESS:
        raise ExportError(f"tokenizer.json: llama.cpp does not normalise text by {normalizer}")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in told["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre_tokenizer(told),
        "tokenizer.ggml.merges": merges,
    }


def _sentencepiece(told: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    """SentencePiece BPE, which GGUF calls llama: pieces are joined by the score of what they make.

    A fast tokenizer has no scores but the rank of each merge, and ranks follow the scores.
    """
    model = told["model"]
    if not model.get("byte_fallback"):
        raise ExportError(
            "tokenizer.json: neither byte-level nor SentencePiece with bytes: GGUF has no such tokenizer"
        )
    best: dict[str, int] = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
        best.setdefault(left + right, rank)
    kinds = set(_types(told.get("normalizer"))) | set(_types(told.get("pre_tokenizer")))
    strange = kinds - {"Prepend", "Replace", "Metaspace", "Sequence", "Split", "NFC"}
    if strange:
        raise ExportError(f"tokenizer.json: SentencePiece in llama.cpp has no {', '.join(sorted(strange))}")
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": [float(-best[text]) if text in best else _NEVER for text in tokens],
        "tokenizer.ggml.add_space_prefix": "Prepend" in kinds or _prepends(told.get("pre_tokenizer")),
    }


def _types(told: Mapping[str, Any] | None) -> list[str]:
    if told is None:
        return []
    inner = [*(told.get("normalizers") or []), *(told.get("pretokenizers") or [])]
    return [told["type"], *(kind for one in inner for kind in _types(one))]


def _prepends(told: Mapping[str, Any] | None) -> bool:
    if told is None:
        return False
    own = told["type"] == "Metaspace" and told.get("prepend_scheme", "always") != "never"
    return own or any(_prepends(one) for one in told.get("pretokenizers") or [])


def _special(
    folder: Path, config: Mapping[str, Any], told: Mapping[str, Any], ids: Mapping[str, int]
) -> dict[str, Any]:
    """Ids of the tokens with a meaning. What ends a turn must be eos, eot or eom, or nothing ends it."""
    found: dict[str, Any] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        text = config.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        if isinstance(text, str) and text in ids:
            found[f"tokenizer.ggml.{key}_token_id"] = ids[text]
    ends = _read(folder / "generation_config.json", needed=False).get("eos_token_id")
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    found.setdefault("tokenizer.ggml.eos_token_id", ends[0] if ends else None)
    others = [end for end in ends if end != found["tokenizer.ggml.eos_token_id"]]
    if len(others) > 2:
        raise ExportError(f"generation_config.json: GGUF has room for three end tokens, not for {len(ends)}")
    found |= {f"tokenizer.ggml.{key}_token_id": end for key, end in zip(("eot", "eom"), others, strict=False)}
    begins, ended = _around(told.get("post_processor"))
    found |= {
        "tokenizer.ggml.add_bos_token": begins is not None,
        "tokenizer.ggml.add_eos_token": ended is not None,
    }
    if begins in ids:
        found["tokenizer.ggml.bos_token_id"] = ids[str(begins)]
    return {key: value for key, value in found.items() if value is not None}


def _around(told: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The tokens that the tokenizer itself puts before and after each text."""
    if told is None:
        return None, None
    if told["type"] == "Sequence":
        pairs = [_around(one) for one in told["processors"]]
        return next((b for b, _ in pairs if b), None), next((e for _, e in pairs if e), None)
    if told["type"] != "TemplateProcessing":
        return None, None
    single = [("SpecialToken" in part and part["SpecialToken"]["id"]) or None for part in told["single"]]
    place = next((i for i, part in enumerate(told["single"]) if "Sequence" in part), 0)
    return next((t for t in single[:place] if t), None), next((t for t in single[place:] if t), None)


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    found = config.get("chat_template")
    return found if isinstance(found, str) else None


@functools.cache
def rows() -> list[dict[str, Any]]:
    text = files("luthier.gguf").joinpath("pretokenizers.yaml").read_text("utf-8")
    loaded: list[dict[str, Any]] = yaml.safe_load(text)
    return loaded
