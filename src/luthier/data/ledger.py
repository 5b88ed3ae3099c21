"""Nothing is lost silently: rows and tokens are counted on the way in, and where they went.

rows in = kept + dropped (a reason and a count each), where one row may be split into several examples;
tokens in = trained + masked (read, not learnt) + cut (removed by `cutoff_len`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from luthier.errors import DataError
from luthier.types import BadRow

_NUMBER = re.compile(r"\d+")


@dataclass
class Ledger:
    """The account of one data set. examples: what is trained on, kept rows with split ones as their parts."""

    dataset: str
    rows_in: int = 0
    kept: int = 0
    examples: int = 0
    split_rows: int = 0
    cut_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    tokens_in: int = 0
    trained: int = 0
    masked: int = 0
    cut: int = 0
    converted: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def drop(self, bad: BadRow) -> None:
        """Count a row that is left out, with others of its kind: the same reason but for its numbers."""
        self.rows_in += 1
        self.dropped[_NUMBER.sub("N", f"{bad.field}: {bad.reason}" if bad.field else bad.reason)] += 1

    @property
    def bad(self) -> int:
        return sum(self.dropped.values())

    def check(self) -> None:
        """Raises DataError when the books do not balance: a fault of this program, never of the data."""
        if self.rows_in != self.kept + self.bad or self.tokens_in != self.trained + self.masked + self.cut:
            raise DataError(f"{self.dataset}: the ledger does not balance: {self.as_dict()}")

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "dropped": dict(self.dropped), "converted": dict(self.converted)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ledger:
        counters = {name: Counter(values[name]) for name in ("dropped", "converted")}
        return cls(**{**values, **counters})

    def lines(self) -> list[str]:
        """The account in words, for the terminal."""
        rows = f"{self.dataset}: {self.rows_in} rows = {self.kept} kept + {self.bad} dropped"
        if self.examples != self.kept:
            rows += f" ({self.examples} examples, {self.split_rows} rows split)"
        tokens = f"  {self.tokens_in} tokens = {self.trained} trained + {self.masked} masked + {self.cut} cut"
        if self.cut_rows:
            tokens += f" (in {self.cut_rows} rows)"
        drops = [f"  dropped {count}: {reason}" for reason, count in self.dropped.most_common(10)]
        drops += [f"  read as text {count}: {what}" for what, count in self.converted.most_common(10)]
        return [rows, tokens, *drops, *(f"  note: {note}" for note in self.notes)]
