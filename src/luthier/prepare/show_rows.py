"""Rows as `luthier data show` looks at them: which are asked for, what training makes of each, its flags."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from luthier.config import Config
from luthier.data import trace
from luthier.data.cutoff import Coded, Groups
from luthier.data.render import Renderer
from luthier.data.trace import Unit
from luthier.errors import UsageError
from luthier.pages.texts import HIDDEN
from luthier.types import BadRow, Example

BAD = "bad"
FLAGS = {
    trace.UNTRAINED: "one of its sequences has nothing that is trained",
    trace.ENDLESS: "a reply is trained without its end of turn",
    trace.CUT: "cut",
    BAD: "it cannot be used",
}
"""What a row can be filtered by, in words."""
_CUT, _ROW = (400, 100), (16_000, 4_000)
"""(The most units that are drawn whole, units at each end of more) of what is cut in one place, of a row."""
_PLACE = re.compile(r"(?:(?P<name>.+):)?(?P<low>\d+)(?P<open>-(?P<high>\d*))?")


@dataclass(frozen=True, slots=True)
class Part:
    """One sequence, or two that begin alike. A string among the units is a remark about that place."""

    trunk: list[Unit | str]
    branches: list[list[Unit | str]]


@dataclass(frozen=True, slots=True)
class Seen:
    """A row, and what training makes of it: several sequences with `history: as_template`, mostly one.

    flags: names of FLAGS · ends: of a document, behind how many of its tokens a block of pre-training ends.
    """

    source: str
    row: Example | BadRow
    parts: Sequence[Groups] = ()
    flags: Sequence[str] = ()
    ends: Sequence[int] = ()

    @property
    def verdict(self) -> bool | None:
        return self.row.verdict if isinstance(self.row, Example) else None

    def counts(self) -> dict[str, int]:
        """Tokens trained, masked and cut; a prompt that two answers share is counted once."""
        found = dict.fromkeys(("trained", "masked", "cut"), 0)
        for coded in (c for groups in self.parts for group in groups for c in group):
            found["trained" if coded.weight else "masked"] += len(coded.ids)
            found["cut"] += sum(len(ids) for _, ids in coded.gone)
        return found

    def drawn(self, renderer: Renderer) -> list[Part]:
        """The row for a screen or page: long runs of one kind without their middle, ends of blocks noted."""
        found = []
        for groups in self.parts:
            trunk, *branches = (trace.units(renderer.encoder, group, spelt=True) for group in groups)
            found.append(Part(_short(trunk), [_short(_with_ends(branch, self.ends)) for branch in branches]))
        return found


@dataclass
class Look:
    """Makes Seen of rows. held: tokens of documents that the block before them has begun with."""

    renderer: Renderer
    config: Config
    stage: str
    held: int = 0

    @property
    def packs(self) -> bool:
        """Whether where a row is cut depends on all rows before it."""
        return self.stage == "pt" and self.config.packing is not False

    def at(self, rows: Sequence[Example | BadRow]) -> Iterator[Seen]:
        """Raises TemplateError when the template cannot express a kind of message that a row has."""
        made = iter(self.renderer.pieces([row for row in rows if isinstance(row, Example)]))
        for row in rows:
            parts = row if isinstance(row, BadRow) else next(made)
            if isinstance(parts, BadRow):
                yield Seen(parts.source, parts, flags=[BAD])
            elif self.stage == "pt":
                yield self._document(row, parts[0])
            else:
                yield Seen(row.source, row, parts, trace.flags(parts))

    def _document(self, row: Example | BadRow, groups: Groups) -> Seen:
        """As `blocks.chop` cuts it. Only here: a last block of one token is left out, too, when documents
        are packed, which nobody knows before the last row."""
        size, length = self.config.cutoff_len, sum(len(c.ids) for c in groups[1])
        ends = range(size - self.held, length + 1, size)
        if self.packs:
            self.held = (self.held + length) % size
        elif length % size == 1:
            groups = [[], _without_last(groups[1])]
        return Seen(row.source, row, [groups], trace.flags([groups]), list(ends))


def _without_last(group: Sequence[Coded]) -> list[Coded]:
    """A block of one token has nothing to predict: it is left out."""
    last = group[-1]
    place = len(last.ids) - 1
    return [*group[:-1], replace(last, ids=last.ids[:place], gone=[(place, last.ids[place:])])]


def _with_ends(units: Iterable[Unit], ends: Sequence[int]) -> Iterator[Unit | str]:
    tokens, left = 0, list(ends)
    for unit in units:
        yield unit
        tokens += len(unit.ids)
        while left and left[0] <= tokens:
            left.pop(0)
            yield "a block ends here"


def _short(units: Iterable[Unit | str]) -> list[Unit | str]:
    found: list[Unit | str] = []
    for cut, run in itertools.groupby(units, lambda unit: isinstance(unit, Unit) and unit.cut):
        whole = list(run)
        found += _ends_of(whole, *_CUT, " cut") if cut else whole
    return _ends_of(found, *_ROW)


def _ends_of(units: list[Unit | str], most: int, edge: int, kind: str = "") -> list[Unit | str]:
    if len(units) <= most:
        return units
    gone = sum(len(unit.ids) for unit in units[edge:-edge] if isinstance(unit, Unit))
    return [*units[:edge], f"… {gone:,}{kind} tokens …", *units[-edge:]]


def visible(text: str) -> str:
    """The text with what nobody can see, or what a terminal or page would obey, as ‹U+001B›: control and
    formatting characters, but no tabs, line feeds and joiners."""
    return HIDDEN.sub(lambda found: f"‹U+{ord(found.group()):04X}›", text)


def in_hex(unit: Unit) -> str:
    """The unit's ids; where its tokens share a character, with the bytes of each."""
    if not unit.bytes:
        return " ".join(map(str, unit.ids))
    return " ".join(f"‹{found}›{number}" for found, number in zip(unit.bytes, unit.ids, strict=True))


@dataclass
class Selection:
    """Rows by number ("17", "3-7,12", "40-") or source ("train.json:17"); empty: all.

    A number is the one in the row's source, so with several files it names a row of each.
    """

    items: list[tuple[str | None, int, float]] = field(default_factory=list)
    found: set[int] = field(default_factory=set)
    rows: int = 0
    last: int = 0

    @classmethod
    def of(cls, words: Sequence[str]) -> Selection:
        """Raises UsageError for what is no row."""
        made = cls()
        for one in (part for word in words for part in word.split(",")):
            place = _PLACE.fullmatch(one.strip())
            if place is None:
                raise UsageError(f"data show: {one} names no row -> 17, 3-7,12, 40- or train.json:17")
            low = int(place["low"])
            high = low if not place["open"] else int(place["high"]) if place["high"] else float("inf")
            made.items.append((place["name"], low, high))
        return made

    def takes(self, source: str) -> bool:
        """Whether the row is asked for; remembers what was found."""
        name, _, number = source.rpartition(":")
        self.rows, self.last = self.rows + 1, int(number) if number.isdecimal() else self.rows + 1
        if not self.items:
            return True
        hits = {
            k
            for k, (file, low, high) in enumerate(self.items)
            if low <= self.last <= high and file in (None, name, name.rpartition("/")[2])
        }
        self.found |= hits
        return bool(hits)

    @property
    def done(self) -> bool:
        """All was found and, as numbers in one file only grow, no more row of it can be asked for."""
        found = len(self.found) == len(self.items)
        return found and bool(self.items) and self.last >= max(high for _, _, high in self.items)

    def check(self, name: str) -> None:
        """Raises UsageError when something that was asked for is in no row of the data set `name`."""
        for k, (file, low, high) in enumerate(self.items):
            if k in self.found:
                continue
            shown = f"{low}" if high == low else f"{low}-{'' if high == float('inf') else high}"
            raise UsageError(
                f"data show: there is no row {f'{file}:' if file else ''}{shown}; {name} has {self.rows:,} "
                f"row{'s' * (self.rows != 1)}, the last of them number {self.last} -> a number up to that"
            )
