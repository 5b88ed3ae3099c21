"""A pipeline of cleaning steps on rows: what each step did to each row, and the account of it."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.data import formats
from luthier.errors import UsageError
from luthier.prepare import leaves as places
from luthier.prepare import steps
from luthier.prepare.leaves import Leaf, Path
from luthier.prepare.opened import Opened
from luthier.prepare.span import Change, Span
from luthier.prepare.steps import STEPS, Outcome
from luthier.prepare.steps.duplicates import Texts
from luthier.types import BadRow, Example, Row

Rows = Iterator[tuple[Row | BadRow, Example | BadRow]]
UNREADABLE = "unreadable"
"""In place of a step's name: rows that cannot be read at all, and so cannot be written either."""
_HALF = re.compile("[\ud800-\udfff]")
_REMEMBERED, _SHORT = 4096, 1000


@dataclass(frozen=True)
class Call:
    """A step with its options. given: whose texts it looks at; None for those that the table names."""

    step: str
    options: Mapping[str, Any] = field(default_factory=dict)
    given: frozenset[str] | None = None

    @functools.cached_property
    def roles(self) -> frozenset[str]:
        """Whose texts it looks at. Who names the answers means both of a pair, or one would give itself
        away by what was cleaned in the other."""
        if self.given is None:
            return frozenset(STEPS[self.step].roles) or frozenset(places.ROLES) - {"other"}
        return self.given | {"rejected"} if "assistant" in self.given else self.given

    @functools.cached_property
    def function(self) -> Callable[..., Any]:
        """The step. Short texts, of which labels and instructions repeat, are looked at once."""
        step = functools.partial(steps.load(self.step), **self.options)
        if STEPS[self.step].takes != "text":
            return step
        known = functools.lru_cache(_REMEMBERED)(step)
        return lambda text: known(text) if len(text) <= _SHORT else step(text)


@dataclass(frozen=True, slots=True)
class Event:
    """What a step did to a row: changed the text at `path`, made suggestions there, or removed the row.

    row: as it was when the step removed it, after the changes of the steps before; None for other events.
    """

    step: str
    path: Path = ()
    changes: tuple[Change, ...] = ()
    suggested: tuple[Span, ...] = ()
    reason: str = ""
    row: Any = None
    removed: bool = False


@dataclass
class Account:
    """What a step did in all. rows and characters: as (into the step, out of it); characters are those of
    the texts that the format reads. samples: the first few events, with their rows' sources."""

    rows: list[int] = field(default_factory=lambda: [0, 0])
    characters: list[int] = field(default_factory=lambda: [0, 0])
    changed_rows: int = 0
    changed_texts: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    suggested: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[str, Event]] = field(default_factory=list)

    def take(self, source: str, events: Sequence[Event]) -> None:
        """Count what the step did to one row."""
        self.changed_rows += any(event.changes for event in events)
        for event in events:
            self.changed_texts += bool(event.changes)
            self.kinds.update(change.kind for change in event.changes)
            self.suggested.update(span.kind for span in event.suggested)
            if event.removed:
                self.reasons[_kind_of(event.reason)] += 1
            if len(self.samples) < SAMPLES:
                self.samples.append((source, event))

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "characters": self.characters,
            "changed_rows": self.changed_rows,
            "changed_texts": self.changed_texts,
            "kinds": dict(self.kinds),
            "reasons": dict(self.reasons.most_common(20)),
            "suggested": dict(self.suggested),
        }


SAMPLES = 3


def _kind_of(reason: str) -> str:
    """A reason without what differs from row to row: sources and figures."""
    return re.sub(r"\S+:\d+|\d[\d.,]*", "N", reason)


@dataclass
class Work:
    """A row while it is cleaned, in place. meant: what it means by now; None when that must be told anew."""

    row: Row
    source: Opened
    meant: Example | BadRow | None
    leaves: list[Leaf]
    texts: list[str]

    @classmethod
    def of(cls, row: Row, meant: Example | BadRow, source: Opened) -> Work:
        found = list(places.leaves(row.data, source.spec, source.stage))
        return cls(row, source, meant, found, [leaf.text for leaf in found])

    @property
    def example(self) -> Example | BadRow:
        """What the row means as it is now."""
        if self.meant is None:
            try:
                self.meant = formats.to_example(self.row, self.source.spec, self.source.stage)
            except formats.RowProblem as problem:
                self.meant = BadRow(self.row.source, problem.field, problem.reason)
        return self.meant

    @property
    def characters(self) -> int:
        return sum(
            len(text) for leaf, text in zip(self.leaves, self.texts, strict=True) if leaf.role != "other"
        )


def run(
    work: Work,
    calls: Sequence[Call],
    gone: Mapping[int, Mapping[str, str]],
    accounts: Sequence[Account] = (),
) -> list[Event]:
    """Clean one row by `calls`; what was done to it. The last event tells when it was removed.

    gone: for the place of each step that looks at all rows, source -> reason of those that it removes.
    """
    events: list[Event] = []
    size = work.characters if accounts else 0
    for place, call in enumerate(calls):
        done = _step(work, call, gone.get(place, {}))
        events += done
        removed = bool(done) and done[-1].removed
        if accounts:
            account = accounts[place]
            account.rows[0] += 1
            account.characters[0] += size
            if done:
                account.take(work.row.source, done)
                size = work.characters
            if not removed:
                account.rows[1] += 1
                account.characters[1] += size
        if removed:
            break
    return events


def _step(work: Work, call: Call, gone: Mapping[str, str]) -> list[Event]:
    takes = STEPS[call.step].takes
    if takes == "text":
        return list(_on_texts(work, call))
    if takes == "row":
        made: Outcome = call.function(work.example)
        return [] if made.text is not None else [_removal(work, call.step, made.reason)]
    reason = gone.get(work.row.source)
    return [] if reason is None else [_removal(work, call.step, reason)]


def _on_texts(work: Work, call: Call) -> Iterator[Event]:
    """A text that should go takes the row with it: half a conversation is none. An empty text is left to
    `missing_text`, and a text that cannot be encoded to the step that repairs it."""
    outcomes: list[tuple[int, Outcome]] = []
    for i, (leaf, text) in enumerate(zip(work.leaves, work.texts, strict=True)):
        if leaf.role not in call.roles or not text or text.isspace():
            continue
        if not text.isascii() and call.step != "unicode_normalization" and _HALF.search(text):
            continue
        made = call.function(text)
        if made.text is None:
            yield _removal(work, call.step, f"{leaf.shown}: {made.reason}")
            return
        if made.changes or made.suggested:
            outcomes.append((i, made))
    for i, made in outcomes:
        leaf = work.leaves[i]
        changes = made.changes
        if changes and made.text is not None:
            changes = places.put(work.row.data, leaf, made.text, changes)
            work.texts[i], work.meant = made.text, None
        yield Event(call.step, leaf.path, changes, made.suggested)


def _removal(work: Work, step: str, reason: str) -> Event:
    return Event(step, reason=reason, row=work.row.data, removed=True)


def decisions(
    source: Opened, calls: Sequence[Call], other: Callable[[str], Opened], rows: Callable[[Opened], Rows]
) -> dict[int, dict[str, str]]:
    """For the place of each step that looks at all rows: source -> reason of the rows that it removes.

    Steps of that kind that follow each other share one reading of the data set, in which the steps before
    them are run, so that they see what those leave; on another data set, too, since a row that was cleaned
    is compared with what the same cleaning makes of the other. other: a data set, by its name · rows: reads
    a data set (and shows how far it is). Raises UsageError for a `reviewed` column that no row has.
    """
    gone: dict[int, dict[str, str]] = {}
    for first, last in _together(calls):
        named = [str(call.options.get("reviewed", "")) for call in calls[first:last]]
        texts = _texts(source, before := calls[:first], gone, max(named), rows)
        read = functools.partial(_other_texts, other, before, rows)
        for place in range(first, last):
            gone[place] = calls[place].function(texts, read)
            texts = texts.without(gone[place])
    return gone


def _other_texts(
    other: Callable[[str], Opened], calls: Sequence[Call], rows: Callable[[Opened], Rows], name: str
) -> Texts:
    return _texts(other(name), calls, {}, "", rows)


def _together(calls: Sequence[Call]) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of the steps in a row that look at all rows."""
    kinds = itertools.groupby(range(len(calls)), lambda place: STEPS[calls[place].step].takes == "all")
    for all_rows, places_ in kinds:
        if all_rows:
            found = list(places_)
            yield found[0], found[-1] + 1


def _texts(
    source: Opened,
    calls: Sequence[Call],
    gone: Mapping[int, Mapping[str, str]],
    column: str,
    rows: Callable[[Opened], Rows],
) -> Texts:
    """What the rows say after `calls`; column: the one that says that a person has looked at the row."""
    texts, known = Texts(), not column
    for row, meant in rows(source):
        if isinstance(row, BadRow):
            continue
        work = Work.of(row, meant, source)
        events = run(work, calls, gone)
        known = known or column in row.data
        if not (events and events[-1].removed) and isinstance(work.example, Example):
            texts.add(work.example, row.data.get(column) if column else None)
    if not known:
        raise UsageError(f"deduplication.reviewed: no row has a column {column!r} -> name one that is there")
    return texts


def fits_json(value: Any) -> bool:
    """Whether `value` can be kept in a ledger."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
