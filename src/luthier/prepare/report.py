"""What the doctor found: `Finding` and `Report`, the nouns that its terminal, JSON and HTML forms share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from luthier.types import BadRow

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing that is wrong, or worth knowing, and the rows that have it.

    check: a name of the CHECKS table · what: one sentence for a person · rows: sources ("train.json:17"), in
    the order of the file; () for a finding about the data set as a whole · count: how many rows or, where
    there are none, how many things · fix: the command that mends it, or what to do; "" when there is nothing
    to do · samples: a few short lines that show it, private parts masked · figures: what a plot is made of,
    fit for JSON.
    """

    check: str
    severity: Severity
    what: str
    rows: Sequence[str] = ()
    count: int = -1
    fix: str = ""
    samples: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            object.__setattr__(self, "count", len(self.rows))

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rows": list(self.rows), "samples": list(self.samples)}


@dataclass
class Report:
    """The account of one data set and all that was found in it.

    rows = kept + rejected · skipped: checks that did not run, with the reason · seconds: wall time · fix: the
    commands of the findings in one, "" where there are not several.
    """

    dataset: str
    rows: int
    rejected: list[BadRow]
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    fix: str = ""

    @property
    def kept(self) -> int:
        return self.rows - len(self.rejected)

    @property
    def worst(self) -> Severity | None:
        """The gravest severity in it; None when nothing was found."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in SEVERITIES if severity in found), None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON. Rejected rows come without their data, which may be private and large."""
        rejected = [{"source": b.source, "field": b.field, "reason": b.reason} for b in self.rejected]
        return {
            "dataset": self.dataset,
            "rows": self.rows,
            "kept": self.kept,
            "rejected": rejected,
            "findings": [finding.as_dict() for finding in self.findings],
            "fix": self.fix,
            "notes": self.notes,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
        }


def shown(bad: BadRow) -> str:
    """A row that cannot be used, in one line: file:row: field: reason."""
    return f"{bad.source}: {bad.field + ': ' if bad.field else ''}{bad.reason}"


def some(count: int, what: str = "row") -> str:
    """ "1 row", "1,200 rows"."""
    return f"{count:,} {what}{'s' * (count != 1)}"
