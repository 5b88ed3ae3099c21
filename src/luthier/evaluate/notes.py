"""Sentences of a report in English and Chinese: `notes.yaml` has the wording, the callers the figures."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

import yaml

Note = dict[str, str]
"""{"key", "en", "zh"}: which sentence, and the sentence in each language, as report.json holds it."""


def note(key: str, **values: Any) -> Note:
    """The sentence `key` of notes.yaml with these values in its places; a value may be a Note itself."""
    wording = _wording()[key]
    return {"key": key, **{name: wording[name].format(**_in(values, name)) for name in ("en", "zh")}}


def _in(values: dict[str, Any], language: str) -> dict[str, Any]:
    return {name: one[language] if isinstance(one, dict) else one for name, one in values.items()}


@functools.cache
def _wording() -> dict[str, dict[str, str]]:
    text = files("luthier.evaluate").joinpath("notes.yaml").read_text("utf-8")
    loaded: dict[str, dict[str, str]] = yaml.safe_load(text)
    return loaded
