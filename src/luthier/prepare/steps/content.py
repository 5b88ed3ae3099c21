"""Harmful content, by lists, rules and an optional classifier."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import yaml

from luthier.errors import UsageError
from luthier.prepare.span import Span
from luthier.prepare.steps import Outcome

Classifier = Callable[[str], Mapping[str, float]]
Rules = Mapping[str, re.Pattern[str]]


def content_filter(
    text: str,
    lists: str = "",
    drop: bool = False,
    classifier: Classifier | None = None,
    threshold: float = 0.9,
) -> Outcome:
    """Reports harmful content by category, or drops it.

    lists: a YAML file of categories, each with words and /regular expressions/, instead of the few built-in
    rules. classifier: a function from a text to a probability for each category; above `threshold` counts.

    Pitfall: no list covers everything, and words do not say what is meant: a refusal, a medical answer, a
    novel and a lesson on safety all hold the same words, and what offends differs between cultures. So the
    step reports and leaves the decision to people; `drop` is for corpora where a false alarm costs nothing.
    Which words count can be said only by those who know their readers: hence a file.
    """
    found = find(text, read(lists) if lists else builtin())
    scores = classifier(text) if classifier is not None else {}
    for category, probability in scores.items():
        if probability >= threshold:
            found.append(Span(category, 0, len(text), f"classifier: {probability:.2f}"))
    reason = ", ".join(sorted({each.kind for each in found}))
    if found and drop:
        return Outcome(None, reason=reason, suggested=tuple(found))
    return Outcome(text, reason=reason, suggested=tuple(found))


def find(text: str, rules: Rules) -> list[Span]:
    """What of `rules` stands in `text`; the excerpt shows the first letter only."""
    found = [
        Span(category, *hit.span(), hit.group()[0] + "***")
        for category, pattern in rules.items()
        for hit in pattern.finditer(text)
    ]
    return sorted(found, key=lambda span: span.start)


@functools.cache
def builtin() -> Rules:
    """The few rules that come with the package."""
    text = files("luthier.prepare.steps").joinpath("content.yaml").read_text(encoding="utf-8")
    return compiled(yaml.safe_load(text), "content.yaml")


@functools.lru_cache(maxsize=8)
def read(path: str) -> Rules:
    """Rules of a file. Raises UsageError when it cannot be read or is no mapping of lists of texts."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {error} -> a YAML file: category: [word, /regular expression/]") from error
    return compiled(loaded, path)


def compiled(lists: object, where: str) -> Rules:
    """category -> one pattern. Raises UsageError with the place of the first entry that cannot be used."""
    if not isinstance(lists, Mapping) or not lists:
        raise UsageError(f"{where}: no mapping -> category: [word, /regular expression/]")
    rules: dict[str, re.Pattern[str]] = {}
    for category, entries in lists.items():
        if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
            raise UsageError(f"{where}:{category}: no list -> [word, /regular expression/]")
        parts = [_pattern(entry, f"{where}:{category}:{n}") for n, entry in enumerate(entries, 1)]
        rules[str(category)] = re.compile("|".join(f"(?:{part})" for part in parts), re.IGNORECASE)
    return rules


def _pattern(entry: object, where: str) -> str:
    if not isinstance(entry, str) or not entry.strip("/ "):
        raise UsageError(f"{where}: {entry!r} is no word -> put it into quotation marks")
    if not (entry.startswith("/") and entry.endswith("/") and len(entry) > 2):
        word = re.escape(entry)
        return rf"(?<![^\W_]){word}(?![^\W_])" if entry.isascii() else word
    try:
        re.compile(entry[1:-1])
    except re.error as error:
        raise UsageError(f"{where}: {entry}: {error} -> a regular expression of Python") from error
    return entry[1:-1]
