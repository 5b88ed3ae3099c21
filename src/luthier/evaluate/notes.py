"""Sentences of a report in English and Chinese: `notes.yaml` has the wording, the callers the figures."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

import yaml

Note = dict[str, str]
"""{"key", "en", "zh"}: which sentence, and the sentence in each language, as report.json holds it."""


def note(key: str, **values: Any) -> Note:
    """The sentence `key` of notes.yaml with these values in its places."""
    wording = _wording()[key]
    return {"key": key, **{language: wording[language].format(**values) for language in ("en", "zh")}}


@functools.cache
def _wording() -> dict[str, dict[str, str]]:
    text = files("luthier.evaluate").joinpath("notes.yaml").read_text("utf-8")
    loaded: dict[str, dict[str, str]] = yaml.safe_load(text)
    return loaded
