"""Figures of report.json as rows of a table: in words, with their small plots on scales that rows share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from luthier.evaluate import wording
from luthier.evaluate.wording import Figure, Part, Words
from luthier.pages import spans
from luthier.pages.spans import Kind, Scale

KINDS: dict[str, Kind] = {"improved": "better", "no evidence": "unsure", "regressed": "worse"}
_POINTS = frozenset("rouge-1 rouge-2 rouge-l bleu-4 sacrebleu chrf".split())


class Row(NamedTuple):
    """One figure in words; `moved` and `span` are SVG, `word` and `mark` say the verdict."""

    name: str
    before: str
    after: str
    delta: str
    interval: str
    n: str
    lower: bool
    kind: str
    word: str
    mark: str
    moved: str
    span: str


class Table(NamedTuple):
    """Figures in groups of (title, rows). alone: of one system, whose value is in `after` of each row · n: of
    all rows, "" where they differ and the table needs a column for it · axes: the scales of the shares' plots
    (values, differences), "" where there are no shares."""

    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    alone: bool
    n: str
    axes: tuple[str, str]


def table(w: Words, parts: Sequence[Part], title: str = "") -> Table:
    """All parts in one group, or in two where some are by label likelihood."""
    written = [part for part in parts if not wording.likely(part[1])]
    likely = [part for part in parts if wording.likely(part[1])]
    named = [(title, written), (w["likelihood_group"], likely)]
    return grouped(w, [(name, group) for name, group in named if group])


def grouped(w: Words, groups: Sequence[tuple[str, Sequence[Part]]]) -> Table:
    """The groups share their scales."""
    parts = [part for _, group in groups for part in group]
    alone = not any(wording.compared(figure) for _, _, figure in parts)
    counts = {int(figure["n"]) for _, _, figure in parts}
    shares = [part for part in parts if wording.is_share(part[1])]
    axes = tuple(_axis(w, shares, kind) for kind in ("value", "difference")) if shares else ("", "")
    made = tuple(
        (name, tuple(_row(w, part, _peers(part, parts)) for part in group)) for name, group in groups
    )
    n = wording.rows(w, counts.pop()) if len(counts) == 1 else ""
    return Table(made, alone, n, (axes[0], axes[1]))


def _row(w: Words, part: Part, peers: Sequence[Part]) -> Row:
    name, metric, figure = part
    compared = wording.compared(figure)
    before, after = (wording.number(metric, figure[side]) for side in ("before", "after"))
    if not compared:
        before, after = "", wording.number(metric, wording.alone(figure))
    delta, interval = wording.signed(metric, figure["delta"]), wording.between(w, metric, figure)
    verdict = str(figure.get("verdict") or "")
    return Row(
        name,
        before,
        after,
        delta,
        interval,
        f"{int(figure['n']):,}",
        not figure.get("higher", True),
        KINDS.get(verdict, ""),
        w["verdicts"].get(verdict, ""),
        wording.MARKS.get(verdict, ""),
        spans.moved(figure["before"], figure["after"], _values(peers), f"{before} → {after}")
        if compared
        else "",
        _span(figure, peers, f"{delta} ({interval})" if compared else f"{after} ({interval})"),
    )


def _span(figure: Figure, peers: Sequence[Part], told: str) -> str:
    bounds = figure["low"], figure["high"]
    if not wording.compared(figure):
        value = wording.alone(figure)
        return "" if value is None else spans.span(value, bounds, _values(peers), None, told)
    if figure["delta"] is None:
        return ""
    return spans.span(
        figure["delta"], bounds, _differences(peers), KINDS.get(figure["verdict"], "unsure"), told
    )


def _peers(part: Part, parts: Sequence[Part]) -> list[Part]:
    """The parts that are on one scale with this one: all shares, all that are counted to 100, else itself."""
    if wording.is_share(part[1]):
        return [other for other in parts if wording.is_share(other[1])]
    if part[1] in _POINTS:
        return [other for other in parts if other[1] in _POINTS]
    return [other for other in parts if other[1] == part[1]]


def _values(parts: Sequence[Part]) -> Scale:
    """From 0 to 1 for shares, to 100 for what is counted to 100, else from 0 to the largest value."""
    metric = parts[0][1]
    top = 1.0 if wording.is_share(metric) else 100.0 if metric in _POINTS else 0.0
    seen = [figure[key] for _, _, figure in parts for key in ("before", "after")]
    seen += [figure["high"] for _, _, figure in parts if not wording.compared(figure)] if not top else []
    return spans.scale([*seen, top], zero=True)


def _differences(parts: Sequence[Part]) -> Scale:
    return spans.scale([figure[key] for _, _, figure in parts for key in ("delta", "low", "high")], zero=True)


def _axis(w: Words, shares: Sequence[Part], kind: str) -> str:
    if kind == "value":
        return spans.axis(_values(shares), w["value"], factor=100)
    if not any(wording.compared(figure) for _, _, figure in shares):
        return ""
    return spans.axis(_differences(shares), w["difference"], factor=100, sign=True)
