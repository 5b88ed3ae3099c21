"""What the verdicts of a judge add up to: who won how often, with an interval, and how far to trust it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from luthier.evaluate.notes import Note, note
from luthier.evaluate.verdicts import Verdict
from luthier.measure import agreement, statistics
from luthier.measure.kinds import leading
from luthier.measure.metrics import mean

if TYPE_CHECKING:
    from luthier.evaluate.results import Heard

Floats = npt.NDArray[np.float64]
Outcome = Literal["win", "tie", "loss", "inconsistent", "unreadable", "failed"]
_WORTH: dict[str, float] = {"win": 1.0, "tie": 0.5, "inconsistent": 0.5, "loss": 0.0}
"""What a row adds to the win rate of "after". An inconsistent verdict is no evidence for either side."""
_TOSSING = 0.3  # share of contradictions from which on a note warns of the judge
_SIDES = ("before", "after")


@dataclass
class Judged:
    """The verdicts of a set. rows: sampled places · pairs: two answers were compared, else one was graded."""

    model: str
    rows: Sequence[int]
    pairs: bool
    verdicts: dict[int, dict[str, Verdict | None]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, row: int, first: str, verdict: Verdict | None) -> None:
        """The verdict where `first` was A; None for one that could not be read."""
        self.verdicts.setdefault(row, {})[first] = verdict

    def failed(self, row: int, why: str) -> None:
        """The question was not answered."""
        self.reasons.setdefault(row, why)


def details(found: Judged, heard: Heard) -> dict[str, Any]:
    """`details.{name}.judge` of report.json."""
    outcomes = _compared(found) if found.pairs else _graded(found)
    counts = Counter(outcomes.values())
    shown: dict[str, Any] = {"model": found.model, "form": "compare" if found.pairs else "grade"}
    shown |= {"rows": len(found.rows), "asked": len({*found.verdicts, *found.reasons})}
    shown |= {"unreadable": counts["unreadable"], "failed": counts["failed"]}
    notes = _notes(found, counts)
    if found.pairs:
        wins = {"wins": counts["win"], "ties": counts["tie"], "losses": counts["loss"]}
        shown |= {**wins, "inconsistent": counts["inconsistent"], **_orders(found)}
        shown["identical"] = len(found.rows) - shown["asked"]
        shown["win_rate"] = _win_rate(outcomes, heard.config.seed)
        shown["reference"] = _reference(outcomes, heard)
    else:
        shown |= _grades(outcomes, heard.config.seed)
    return {**shown, "notes": notes}


def _compared(found: Judged) -> dict[int, str]:
    """row -> Outcome for "after"."""
    outcomes = {}
    for row in found.rows:
        given = found.verdicts.get(row, {})
        if row in found.reasons:
            outcomes[row] = "failed"
        elif not given:  # both answers were the same
            outcomes[row] = "tie"
        else:
            winners = [_winner(first, verdict) for first, verdict in given.items()]
            outcomes[row] = _outcome(winners)
    return outcomes


def _outcome(winners: Sequence[str]) -> Outcome:
    if "" in winners:
        return "unreadable"
    if len(set(winners)) > 1:
        return "inconsistent"
    return {"after": "win", "before": "loss", "tie": "tie"}[winners[0]]  # type: ignore[return-value]


def _winner(first: str, verdict: Verdict | None) -> str:
    """ "before", "after", "tie", or "" where the verdict could not be read."""
    if verdict is None or verdict.value == "tie":
        return verdict.value if verdict else ""
    return first if verdict.value == "A" else _SIDES[1 - _SIDES.index(first)]


def _orders(found: Judged) -> dict[str, Any]:
    """How the two orders agree, and how often the answer that came first was preferred."""
    both = [one for one in found.verdicts.values() if len(one) == 2 and None not in one.values()]
    winners = [[_winner(side, one[side]) for one in both] for side in _SIDES]
    values = [v.value for one in found.verdicts.values() for v in one.values() if v and v.value != "tie"]
    return {
        "agreement": agreement.share(*winners),
        "kappa": agreement.kappa(*winners),
        "first_position": sum(value == "A" for value in values) / len(values) if values else None,
    }


def _win_rate(outcomes: dict[int, str], seed: int) -> dict[str, Any]:
    """Share of rows that "after" wins, ties half, with its 95 % interval and a verdict against one half."""
    worth = np.array([_WORTH[one] for one in outcomes.values() if one in _WORTH])
    if not len(worth):
        return {"value": None, "low": None, "high": None, "n": 0, "verdict": "no evidence"}
    verdict = statistics.compare(mean(1 - worth), mean(worth), seed).verdict
    value = float(worth.mean())
    return {"value": value, **_interval(worth, seed, 0, 1), "n": len(worth), "verdict": verdict}


def _reference(outcomes: dict[int, str], heard: Heard) -> dict[str, Any]:
    """How often judge and reference metric name the same winner, where both name one."""
    before, after = (heard.measured[side][""] for side in _SIDES)
    name = leading(heard.one.task.kind, after)
    gain = (after[name].each - before[name].each) * (1 if after[name].higher else -1)
    decided = {row: one == "win" for row, one in outcomes.items() if one in ("win", "loss")}
    pairs = [(won, bool(gain[row] > 0)) for row, won in decided.items() if gain[row]]
    same = sum(mine == theirs for mine, theirs in pairs)
    return {"metric": name, "agreement": same / len(pairs) if pairs else None, "n": len(pairs)}


def _graded(found: Judged) -> dict[int, str]:
    """row -> its grade "1" to "5", "unreadable" or "failed"."""
    outcomes = {}
    for row in found.rows:
        given = next(iter(found.verdicts.get(row, {}).values()), None)
        outcomes[row] = "failed" if row in found.reasons else given.value if given else "unreadable"
    return outcomes


def _grades(outcomes: dict[int, str], seed: int) -> dict[str, Any]:
    values = np.array([float(one) for one in outcomes.values() if one.isdecimal()])
    counts = {str(grade): int((values == grade).sum()) for grade in range(1, 6)}
    figure: dict[str, Any] = {"value": None, "low": None, "high": None, "n": len(values), "verdict": None}
    if len(values):
        figure |= {"value": float(values.mean()), **_interval(values, seed, 1, 5)}
    return {"grade": figure, "grades": counts}


def _notes(found: Judged, counts: Counter[str]) -> list[Note]:
    notes, rows = [], len(found.rows)
    if counts["failed"]:
        first = next(iter(found.reasons.values()))
        notes.append(note("judge_failed", count=counts["failed"], rows=rows, first=first))
    if counts["unreadable"]:
        notes.append(note("judge_unreadable", count=counts["unreadable"], rows=rows))
    decided = sum(counts[name] for name in ("win", "loss", "inconsistent"))
    if counts["inconsistent"] > _TOSSING * max(1, decided):
        notes.append(note("judge_inconsistent", count=counts["inconsistent"], rows=decided))
    return notes


def _interval(values: Floats, seed: int, bottom: float, top: float) -> dict[str, float | None]:
    """95 % interval of the mean, within the scale."""
    low, high = statistics.interval(mean(values), seed)
    finite = math.isfinite(low) and math.isfinite(high)
    return {"low": max(low, bottom) if finite else None, "high": min(high, top) if finite else None}
