"""How a tokenizer cuts text before it merges, and by which name of llama.cpp's that goes.

llama.cpp has its ways of cutting built in, each under a name; which of them a tokenizer follows is recognised
from its own regular expressions (pretokenizers.yaml). A tokenizer that follows none is refused: under a wrong
name the file would load, and read other tokens than training did.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from luthier.errors import ExportError


def named(told: Mapping[str, Any]) -> tuple[str, list[str]]:
    """`tokenizer.ggml.pre` of a byte-level tokenizer.json, and notes on what is not cut quite alike.

    Raises ExportError where llama.cpp has no such way of cutting.
    """
    asked = pieces(told.get("pre_tokenizer"))
    ignores = bool(told["model"].get("ignore_merges"))
    same = [row for row in rows() if row["pieces"] == asked]
    row = next((row for row in same if bool(row.get("ignore_merges")) == ignores), None)
    if row is None and same and _merges_reach_all(told):
        row = same[0]  # a word that is a token is found by merging, too
    if row is None:
        known = ", ".join(dict.fromkeys(row["name"] for row in rows()))
        words = ", words that are tokens unmerged" if same else ""
        raise ExportError(
            "tokenizer.json: llama.cpp has no pre-tokenizer that cuts as"
            f" {' + '.join(asked) or 'none'}{words}: none of {known}. --to hf keeps this tokenizer as it is"
        )
    whole = row.get("whole")
    made = (left + right for left, right in pairs(told))
    joined = next((text for text in made if whole and re.search(whole, text)), None)
    if joined is not None:
        raise ExportError(
            f"tokenizer.json: llama.cpp's {row['name']!r} would make the token {joined!r} out of what this"
            " tokenizer cuts apart. --to hf keeps this tokenizer as it is"
        )
    return str(row["name"]), [f"llama.cpp's {row['name']!r} {row['note']}"] if "note" in row else []


def pieces(told: Mapping[str, Any] | None) -> list[str]:
    """A pre-tokenizer in the words of pretokenizers.yaml; what has no word there is given by its type."""
    if told is None:
        return []
    kind = told["type"]
    if kind == "Sequence":
        return [piece for one in told["pretokenizers"] for piece in pieces(one)]
    if kind == "Split" and told.get("behavior") == "Isolated" and not told.get("invert"):
        pattern = told["pattern"]
        return [f"split {pattern['Regex']}" if "Regex" in pattern else f"string {pattern.get('String')}"]
    if kind == "Digits" and told.get("individual_digits"):
        return ["digits"]
    if kind == "ByteLevel" and not told.get("add_prefix_space"):
        return ["bytes gpt2" if told.get("use_regex", True) else "bytes"]
    return [f"{kind} with add_prefix_space" if kind == "ByteLevel" else kind]


def row(name: object) -> Mapping[str, Any] | None:
    """The row of a name that a file says, or of the one that llama.cpp takes it for."""
    return next((row for row in rows() if name == row["name"] or name in row.get("also", ())), None)


@functools.cache
def rows() -> list[dict[str, Any]]:
    text = files("luthier.gguf").joinpath("pretokenizers.yaml").read_text("utf-8")
    loaded: list[dict[str, Any]] = yaml.safe_load(text)
    return loaded


def pairs(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json, written as one text each or as two."""
    split = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in told["model"]["merges"])
    return [(left, right) for left, right in split]


def _merges_reach_all(told: Mapping[str, Any]) -> bool:
    """Whether merging makes each token out of its own text, so that ignoring merges changes nothing."""
    from tokenizers import models

    model = told["model"]
    plain = models.BPE(model["vocab"], pairs(told))
    added = {one["content"] for one in told.get("added_tokens") or []}
    return all(len(plain.tokenize(text)) == 1 for text in model["vocab"] if text not in added)
