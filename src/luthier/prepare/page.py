"""The doctor's report as one HTML file, which needs no network and runs no script.

The texts in it are strangers': see `pages.base`.

Plots follow the shape of a finding's `figures`, not the name of its check, so a new check needs nothing here:

    {"edges": [...], "counts": [...]}     histogram, with lines at "cutoff" and at the median beside it
    {"a": 3, "b": 1}                      bars; a table for {"p50": 28, "max": 90}
    [["a", 3], ...], [["a", "b", 3], ...] bars, of "a" or of "a → b"; shares where all are at most 1
    [[10, 7], [20, 12], ...]              curve
    3, "text"                             a line of a table

Other lists are for programs, and left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from luthier.pages import base, plots
from luthier.pages.base import Language
from luthier.prepare.report import SEVERITIES, Finding, Report

FIRST, MOST, REJECTED, SAMPLES, LONGEST = 40, 2000, 200, 8, 600
_PERCENTILE = re.compile(r"p\d+|min|max|mean")


def page(report: Report, words: Language = "en") -> str:
    """The report as HTML, with the page's own words in English or Chinese."""
    own = base.words("prepare/page.yaml")[words]
    findings = list(_told(report.findings, own))
    return base.render(
        "prepare/page.html.jinja",
        "prepare/page.css",
        words,
        report=report,
        name=PurePath(report.dataset).name or report.dataset,
        w=own,
        n=plots.number,
        verdict=_verdict(report, own),
        account=plots.parts(report.kept, len(report.rejected), f"{own['kept']} / {own['rejected']}"),
        findings=findings,
        skipped=[(own["checks"].get(name, name), reason) for name, reason in report.skipped.items()],
        most_rejected=REJECTED,
    )


def _verdict(report: Report, own: Mapping[str, Any]) -> str:
    counts = {one: sum(found.severity == one for found in report.findings) for one in SEVERITIES}
    if not report.kept:
        return str(own["unusable"])
    if report.worst is None:
        return str(own["nothing"])
    said = {f"{name}s": _some(count, own[name]) for name, count in counts.items()}
    sentence: str = own[{"error": "bad", "warning": "fair", "note": "good"}[report.worst]]
    return sentence.format(**said)


def _some(count: int, forms: Sequence[str]) -> str:
    return f"{count} {forms[count != 1]}"


def _told(findings: Sequence[Finding], own: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each finding in the page's terms, the gravest first; `first` opens a group."""
    last = ""
    for severity in SEVERITIES:
        for one in findings:
            if one.severity != severity:
                continue
            drawn = _drawn(one.figures, own)
            shown, more = one.rows[:FIRST], one.rows[FIRST : FIRST + MOST]
            unit = own["things"] if not one.rows else own["one" if one.count == 1 else "many"]
            yield {
                "severity": severity,
                "severity_word": own[severity][0].removeprefix("项"),
                "group": own[f"{severity}_group"],
                "first": last != severity,
                "check": own["checks"].get(one.check, one.check),
                "what": one.what,
                "count": one.count,
                "unit": unit,
                "samples": [_cut(sample) for sample in one.samples[:SAMPLES]],
                "rows": _by_file(shown),
                "more": _by_file(more),
                "more_count": len(one.rows) - len(shown),
                "beyond": len(one.rows) - len(shown) - len(more),
                "fix": one.fix,
                "is_command": one.fix.startswith("luthier "),
                "plots": [piece for piece in drawn if isinstance(piece[1], str)],
                "scalars": [piece for piece in drawn if not isinstance(piece[1], str)],
            }
            last = severity


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _by_file(sources: Sequence[str]) -> list[tuple[str, str]]:
    """(file, "17, 25, 31") in the order of the sources: a file's name once."""
    found: list[tuple[str, list[str]]] = []
    for source in sources:
        name, _, place = source.rpartition(":")
        if not found or found[-1][0] != name:
            found.append((name, []))
        found[-1][1].append(place)
    return [(name, ", ".join(places)) for name, places in found]


# -- figures

Piece = tuple[str, "str | list[tuple[str, str]]"]


def _drawn(figures: Mapping[str, Any], own: Mapping[str, Any], prefix: str = "") -> list[Piece]:
    """(title, SVG) for what can be drawn, (title, lines of a table) for the rest."""
    found: list[Piece] = []
    scalars: list[tuple[str, str]] = []
    marked = "histogram" in figures
    for key, value in figures.items():
        name = str(own["figures"].get(key, key))
        title = f"{prefix}: {name}" if prefix else name
        if _is_number(value) or isinstance(value, str):
            if not (marked and key == "cutoff"):  # a line of the histogram
                scalars.append((name, _figure(value)))
        elif (plot := _plot(value, title, figures, own)) is not None:
            found.append((title, plot))
        elif isinstance(value, Mapping) and all(map(_is_number, value.values())):
            found.append((title, [(str(own["figures"].get(k, k)), _figure(v)) for k, v in value.items()]))
        elif isinstance(value, Mapping):
            found += _drawn(value, own, title)
    return [*found, (prefix, scalars)] if scalars else found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _figure(value: Any) -> str:
    return plots.number(value) if _is_number(value) else _cut(str(value))


def _plot(value: Any, title: str, beside: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """None for what has no shape that can be drawn."""
    if isinstance(value, Mapping):
        if "edges" in value and "counts" in value:
            return _histogram(value, title, beside, own)
        counted = len(value) > 1 and not all(map(_PERCENTILE.fullmatch, map(str, value)))
        if counted and all(isinstance(count, int) and count >= 0 for count in value.values()):
            return plots.bars([(str(label), count) for label, count in value.items()], title)
        return None
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(map(_is_bar, value)):
        bars = [(" → ".join(filter(None, row[:-1])), row[-1]) for row in value]
        return plots.bars(bars, title, share=all(isinstance(row[-1], float) for row in value))
    if all(isinstance(row, list | tuple) and len(row) == 2 and all(map(_is_number, row)) for row in value):
        return plots.curve([(row[0], row[1]) for row in value], title)
    return None


def _is_bar(row: Any) -> bool:
    """["a", 3], ["a", "b", 3] or ["a", 0.25]: a count, or a share."""
    if not isinstance(row, list | tuple) or len(row) not in (2, 3) or not _is_number(row[-1]):
        return False
    if not all(isinstance(part, str) for part in row[:-1]):
        return False
    return row[-1] >= 0 if isinstance(row[-1], int) else len(row) == 2 and 0 <= row[-1] <= 1


def _histogram(
    value: Mapping[str, Any], title: str, beside: Mapping[str, Any], own: Mapping[str, Any]
) -> str | None:
    """None where the edges are no edges of these counts."""
    edges, counts = list(value["edges"]), list(value["counts"])
    rising = all(map(_is_number, edges)) and all(a < b for a, b in pairwise(edges))
    if len(edges) != len(counts) + 1 or not counts or not rising or not all(map(_is_number, counts)):
        return None
    percentiles = beside.get("percentiles", beside.get("row"))
    median = percentiles.get("p50") if isinstance(percentiles, Mapping) else None
    marks: dict[str, float] = {}
    for name, at in (("p50", median), (own["cutoff"], beside.get("cutoff"))):
        if isinstance(at, int | float) and edges[0] < at < math.inf:
            marks[f"{name} {plots.number(at)}"] = at
    return plots.histogram(edges, counts, title, marks)
