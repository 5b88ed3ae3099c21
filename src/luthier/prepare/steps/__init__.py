"""Cleaning steps: a table of pure functions, each named by its field's term.

A step on texts takes one and options, and returns an `Outcome`: the new text with the changes that lead to
it, or None for a text that should go, with the reason. Nothing is decided silently: `reason` is what a ledger
prints, and `counts` adds up changes by kind. A step that only suggests has `suggested` spans and changes
nothing.

Other steps look at the meaning of a row (an `Example`, or the `BadRow` that has none) or, as deduplication
must, at all rows at once.
"""

from __future__ import annotations

import difflib
import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from luthier.errors import UsageError
from luthier.prepare.span import Change, Span
from luthier.types import Example


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step made of a text. text None: the text should go, because of `reason`.

    `reason` is "" for a text that stays as it is. `suggested` are spans that nobody acted on.
    """

    text: str | None
    changes: tuple[Change, ...] = ()
    reason: str = ""
    suggested: tuple[Span, ...] = ()

    @property
    def counts(self) -> Counter[str]:
        """Changes by kind."""
        return Counter(change.kind for change in self.changes)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: where the step is, whether it belongs to a usual cleaning, what it does.

    takes: "text", one at a time · "row": an Example or BadRow; the Outcome's text is None when it should go ·
    "all": `duplicates.Texts` of the whole data set, and returns source -> reason of the rows that should go.
    roles: whose texts it is given unless the user says so; () for all that training reads.
    """

    path: str
    on: bool
    what: str
    takes: Literal["text", "row", "all"] = "text"
    roles: tuple[str, ...] = ()


# In the order of a usual cleaning: repair, then drop (cheap before dear), then what changes what is said.
STEPS: dict[str, Row] = {
    "encoding_repair": Row("unicode:encoding_repair", True, "repair wrongly decoded text (mojibake)"),
    "unicode_normalization": Row("unicode:unicode_normalization", True, "one form for equal characters"),
    "html_removal": Row("html:html_removal", True, "HTML and XML to text; code and tables as Markdown"),
    "chinese_conversion": Row("chinese:chinese_conversion", False, "traditional to simplified or back"),
    "structure": Row("missing:structure", False, "drop rows that training cannot use", "row"),
    "row_removal": Row("missing:row_removal", False, "drop rows by their number", "row"),
    "missing_text": Row("missing:missing_text", True, "drop rows without a question or an answer", "row"),
    "leakage": Row("duplicates:leakage", False, "drop rows that are, or nearly, in another data set", "all"),
    "deduplication": Row("duplicates:deduplication", True, "drop copies, exact and near", "all"),
    "quality_filter": Row(
        "quality:quality_filter",
        True,
        "drop by length, repetition, symbols, language",
        roles=("assistant", "text"),
    ),
    "content_filter": Row("content:content_filter", False, "report or drop harmful content by rules"),
    "pii_anonymization": Row(
        "privacy:pii_anonymization", True, "mask personal data and secrets, or fake them"
    ),
    "placeholder_filling": Row("placeholders:placeholder_filling", False, "fill in {{name}} and its like"),
    "label_names": Row("labels:label_names", False, "one name for each label, as told"),
    "lowercasing": Row("words:lowercasing", False, "lower case everywhere"),
    "punctuation_removal": Row("words:punctuation_removal", False, "uniform punctuation, or none"),
    "stop_word_removal": Row("words:stop_word_removal", False, "remove the, of, 的, 是 and their like"),
    "lemmatization": Row("words:lemmatization", False, "words to their dictionary form"),
    "spelling": Row("words:spelling", False, "suggest corrections of words, never apply them"),
}
Step = Callable[..., Any]


def load(name: str) -> Step:
    """The function of the step `name`. Raises UsageError for a name that is none."""
    row = STEPS.get(name)
    if row is None:
        raise UsageError(f"no cleaning step {name!r} -> {nearest(name, STEPS)}")
    module, _, function = row.path.partition(":")
    step: Step = getattr(importlib.import_module(f"luthier.prepare.steps.{module}"), function)
    return step


def nearest(name: str, known: Iterable[str]) -> str:
    """What to write instead of a name that is not there."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"


def outcome(text: str, made: tuple[str, list[Change]]) -> Outcome:
    """An Outcome of (new text, changes), whose reason counts the kinds."""
    new, changes = made
    counts = Counter(change.kind for change in changes)
    return Outcome(new, tuple(changes), ", ".join(f"{kind} x {n}" for kind, n in counts.items()))


def texts(example: Example) -> Iterator[tuple[str, str, str]]:
    """(where, role, text) of everything in `example` that a person or a model wrote."""
    yield from ((f"trunk {i}", turn.role, turn.content) for i, turn in enumerate(example.trunk))
    for k, branch in enumerate(example.branches):
        yield from ((f"branch {k}.{i}", turn.role, turn.content) for i, turn in enumerate(branch))
    if example.answer is not None:
        yield "answer", "assistant", example.answer
