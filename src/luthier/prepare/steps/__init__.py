"""Cleaning steps: a table of pure functions, each named by its field's term.

A step takes a text and options and returns an `Outcome`: the new text with the changes that lead to it, or
None for a text that should go, with the reason. Nothing is decided silently: `reason` is what a ledger
prints, and `counts` adds up changes by kind. A step that only suggests has `spans` and changes nothing.

Deduplication is the one row of the cleaning table that is no step on a text: it needs the whole data set.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from luthier.errors import UsageError
from luthier.prepare.span import Change, Span
from luthier.types import Example, Message


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

    whole: the step takes an Example (it needs to know which part is the answer), not a text.
    """

    path: str
    on: bool
    what: str
    whole: bool = False


STEPS: dict[str, Row] = {
    "missing_text": Row("missing:missing_text", True, "drop rows without a question or an answer", True),
    "encoding_repair": Row("unicode:encoding_repair", True, "repair wrongly decoded text (mojibake)"),
    "unicode_normalization": Row("unicode:unicode_normalization", True, "one form for equal characters"),
    "html_removal": Row("html:html_removal", True, "HTML to text; code and tables as Markdown"),
    "chinese_conversion": Row("chinese:chinese_conversion", False, "traditional to simplified or back"),
    "pii_anonymization": Row(
        "privacy:pii_anonymization", True, "mask personal data and secrets, or fake them"
    ),
    "placeholder_filling": Row("placeholders:placeholder_filling", False, "fill in {{name}} and its like"),
    "quality_filter": Row("quality:quality_filter", True, "drop by length, repetition, symbols, language"),
    "content_filter": Row("content:content_filter", False, "report or drop harmful content by rules"),
    "lowercasing": Row("words:lowercasing", False, "lower case everywhere"),
    "punctuation_removal": Row("words:punctuation_removal", False, "uniform punctuation, or none"),
    "stop_word_removal": Row("words:stop_word_removal", False, "remove the, of, 的, 是 and their like"),
    "lemmatization": Row("words:lemmatization", False, "words to their dictionary form"),
    "spelling": Row("words:spelling", False, "suggest corrections of words, never apply them"),
}
Step = Callable[..., Outcome]
ROLES = ("system", "user", "assistant", "tool", "text")


def load(name: str) -> Step:
    """The function of the step `name`. Raises UsageError for a name that is none."""
    row = STEPS.get(name)
    if row is None:
        raise UsageError(f"no cleaning step {name!r} -> one of {', '.join(STEPS)}")
    module, _, function = row.path.partition(":")
    step: Step = getattr(importlib.import_module(f"luthier.prepare.steps.{module}"), function)
    return step


def outcome(text: str, made: tuple[str, list[Change]]) -> Outcome:
    """An Outcome of (new text, changes), whose reason counts the kinds."""
    new, changes = made
    counts = Counter(change.kind for change in changes)
    return Outcome(new, tuple(changes), ", ".join(f"{kind} x {n}" for kind, n in counts.items()))


@dataclass(frozen=True)
class Cleaned:
    """An Example after a step. example None: dropped, because of `reason`.

    parts: for every text that changed, where it stands ("trunk 0", "branch 1.0", "answer") and its Outcome.
    """

    example: Example | None
    reason: str = ""
    parts: Mapping[str, Outcome] = field(default_factory=dict)


def on_example(name: str, example: Example, roles: Collection[str] = ROLES, **options: Any) -> Cleaned:
    """The step `name` on every text of `roles` in `example`, which itself stays as it is.

    A text that should go takes the whole example with it: half a conversation is none. Tool calls and tool
    descriptions are left alone, since changing them would break what they name.
    """
    step = load(name)
    if STEPS[name].whole:
        made = step(example, **options)
        return Cleaned(example if made.text is not None else None, made.reason)
    outcomes = {where: step(text, **options) for where, role, text in texts(example) if role in roles}
    gone = next(((where, made) for where, made in outcomes.items() if made.text is None), None)
    if gone:
        return Cleaned(None, f"{gone[0]}: {gone[1].reason}", {gone[0]: gone[1]})
    parts = {where: made for where, made in outcomes.items() if made.changes or made.suggested or made.reason}
    if not any(made.changes for made in parts.values()):
        return Cleaned(example, "", parts)
    reason = "; ".join(f"{where}: {made.reason}" for where, made in parts.items() if made.changes)
    return Cleaned(_rewritten(example, parts), reason, parts)


def texts(example: Example) -> Iterator[tuple[str, str, str]]:
    """(where, role, text) of everything in `example` that a person or a model wrote."""
    yield from ((f"trunk {i}", turn.role, turn.content) for i, turn in enumerate(example.trunk))
    for k, branch in enumerate(example.branches):
        yield from ((f"branch {k}.{i}", turn.role, turn.content) for i, turn in enumerate(branch))
    if example.answer is not None:
        yield "answer", "assistant", example.answer


def _rewritten(example: Example, parts: Mapping[str, Outcome]) -> Example:
    def turns(messages: Iterable[Message], prefix: str) -> tuple[Message, ...]:
        new = ((turn, parts.get(f"{prefix}{i}")) for i, turn in enumerate(messages))
        return tuple(
            replace(turn, content=made.text) if made and made.text is not None else turn for turn, made in new
        )

    answer = parts.get("answer")
    return replace(
        example,
        trunk=turns(example.trunk, "trunk "),
        branches=tuple(turns(branch, f"branch {k}.") for k, branch in enumerate(example.branches)),
        answer=answer.text if answer else example.answer,
    )
