"""Sentences about runs in English and Chinese: `words.yaml` has the wording, the callers the figures."""

from __future__ import annotations

from typing import Any

Note = dict[str, str]
"""{"key", "en", "zh"}: which sentence, and the sentence in each language, as evaluations have them."""


def note(key: str, **values: Any) -> Note:
    """The sentence `key` with these values in its places."""
    from luthier.pages import base  # its template engine is not needed to list runs

    wording = base.words("runs/words.yaml")
    return {"key": key, **{name: wording[name]["notes"][key].format(**values) for name in ("en", "zh")}}
