"""The doctor's report on a terminal: short, the gravest first, each with the rows and what mends it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from luthier.prepare.report import Finding, Report, some
from luthier.streams import legible

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
ROWS, SAMPLES = 8, 3


def tell(report: Report) -> None:
    """Print the report to stdout."""
    console = Console(file=sys.stdout, highlight=False, emoji=False, soft_wrap=True)
    for line in lines(report):
        console.print(line, markup=False)


def lines(report: Report) -> list[Text | str]:
    """The report, line by line."""
    account = f"{some(report.rows)} = {report.kept:,} kept + {len(report.rejected):,} that cannot be used"
    shown: list[Text | str] = [f"{report.dataset}: {account} ({report.seconds:.1f} s)"]
    shown += [f"  note: {note}" for note in report.notes]
    for finding in report.findings:
        shown += _finding(finding)
    counts = {severity: sum(one.severity == severity for one in report.findings) for severity in COLOURS}
    told = ", ".join(some(count, severity) for severity, count in counts.items() if count)
    shown.append(f"{told or 'nothing was found'}")
    if report.fix:
        shown.append(f"all commands in one: {report.fix}")
    for why in dict.fromkeys(report.skipped.values()):
        names = ", ".join(name for name, reason in report.skipped.items() if reason == why)
        shown.append(f"not checked: {names} ({why})")
    return shown


def _finding(finding: Finding) -> list[Text | str]:
    head = Text()
    head.append(f"{finding.severity:<8}", COLOURS[finding.severity])
    head.append(f"{finding.check}: {finding.what}")
    shown: list[Text | str] = [head]
    if finding.rows:
        shown.append(f"{'':8}in {_rows(finding.rows)}")
    shown += [f"{'':8}| {line}" for line in _flat(finding.samples[:SAMPLES])]
    if finding.fix:
        shown.append(f"{'':8}-> {finding.fix}")
    return shown


def _flat(samples: Sequence[str]) -> list[str]:
    return [textwrap.shorten(legible(sample), 160, placeholder=" …") for sample in samples]


def _rows(rows: Sequence[str]) -> str:
    """The first few sources; a file's name once."""
    shown, last = [], ""
    for source in rows[:ROWS]:
        name, _, number = source.rpartition(":")
        shown.append(number if name == last else source)
        last = name
    return ", ".join(shown) + (f" and {len(rows) - ROWS:,} more" if len(rows) > ROWS else "")
