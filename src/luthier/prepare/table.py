"""A data set as the checks look at it: its rows side by side, as texts, in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from luthier.data.spec import DatasetSpec
from luthier.types import BadRow, Example, Row

LABEL_LENGTH, LABEL_KINDS = 60, 200
"""A column that nobody reads may hold labels when its texts are short and few are different."""


@dataclass
class Table:
    """Good rows, column by column; position i is the same row in each list.

    sources: "train.json:17" · inputs: what stands before the answer, turn by turn, without the system prompt
    (a blank line between turns) · systems: the system prompts · answers: what is learnt (the chosen answer
    of a pair; the text itself in pre-training) · rejected: the other answer of a pair · verdicts: of KTO rows
    · turns: messages in the row · labels: short texts of columns that training does not read, for annotators'
    agreement · bad: rows that cannot be used · rows: good and bad.
    """

    spec: DatasetSpec
    stage: str
    sources: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    systems: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    verdicts: list[bool | None] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    labels: dict[str, list[str | None]] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)
    _dropped: set[str] = field(default_factory=set)
    _shared: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def rows(self) -> int:
        return len(self.sources) + len(self.bad)

    def whole(self) -> Iterator[str]:
        """Input and answer of each row as one text."""
        return (f"{a}\n\n{b}" if a else b for a, b in zip(self.inputs, self.answers, strict=True))

    def add(self, row: Row | BadRow, meant: Example | BadRow) -> None:
        """Take in a row as it stands in the file, and what it means."""
        if isinstance(meant, BadRow):
            self.bad.append(BadRow(meant.source, meant.field, meant.reason))  # without its data: memory
            return
        said = meant.branches[0] if meant.branches else ()
        answer = "\n\n".join(turn.content or _calls(turn.tool_calls) for turn in said) or meant.answer or ""
        system = next((turn.content for turn in meant.trunk if turn.role == "system"), "")
        self.sources.append(meant.source)
        self.inputs.append("\n\n".join(turn.content for turn in meant.trunk if turn.role != "system"))
        self.systems.append(self._shared.setdefault(system, system))
        short = len(answer) <= LABEL_LENGTH  # labels repeat: one object for all
        self.answers.append(self._shared.setdefault(answer, answer) if short else answer)
        if len(meant.branches) > 1:
            self.rejected.append("\n\n".join(turn.content for turn in meant.branches[1]))
        if meant.verdict is not None:
            self.verdicts.append(meant.verdict)
        self.turns.append(len(meant.trunk) + len(said))
        if isinstance(row, Row):
            self._take_labels(row)

    def _take_labels(self, row: Row) -> None:
        read = {name for name in self.spec.columns.values() if name}
        place = len(self.sources) - 1
        for name, value in row.data.items():
            if name in read or name in self._dropped:
                continue
            column = self.labels.setdefault(name, [])
            if value is not None and not (isinstance(value, str) and len(value) <= LABEL_LENGTH):
                self._dropped.add(name)
                del self.labels[name]
                continue
            column += [None] * (place - len(column))
            column.append(value)


def _calls(calls: Sequence[object]) -> str:
    return "\n".join(map(str, calls))


def closed_columns(table: Table) -> dict[str, list[str | None]]:
    """The columns of `table.labels` that hold few different values, all of full length."""
    found = {}
    for name, values in table.labels.items():
        full = values + [None] * (len(table) - len(values))
        kinds = {value for value in full if value is not None}
        if 2 <= len(kinds) <= LABEL_KINDS and len(kinds) < len(table) / 2:
            found[name] = full
    return found
