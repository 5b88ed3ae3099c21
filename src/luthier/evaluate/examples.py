"""Rows to look at: the best and the worst, those that tuning mended or broke, and what was trained near them.

Rows are rated by the metric that leads (`kinds.LEADING`), each by itself; where labels were scored, the
best and the worst by the probability of the right label, since right and wrong alone put rows in no order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from luthier.evaluate.nearest import Index
from luthier.evaluate.notes import Note, note
from luthier.evaluate.report import finite
from luthier.measure.kinds import leading
from luthier.measure.strings import normalise
from luthier.measure.types import Answered, Measured

Floats = npt.NDArray[np.float64]
Shown = dict[str, Any]
"""{"source", "input", "reference", "before", "after", "score": {side: how good}} of one row."""

SHOWN, NEAREST = 5, 3
_SAME = 0.95
"""Similarity from which on two questions are one, so that two answers to it contradict each other."""
_ALIKE = {"labels": 0.5, "choice": 0.5}
"""Kinds where questions that share half their weight should already have one answer."""


class Trained(NamedTuple):
    """A training row: "train.json:17", what is asked, what is answered."""

    source: str
    question: str
    answer: str


def extremes(
    kind: str, said: Mapping[str, Mapping[str, Answered]], measured: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Shown]]:
    """`best` and `worst` of the tuned system, or of the only one; no row is both.

    said, measured: side -> way of answering ("", "likelihood") -> answers, or metric -> Measured.
    """
    written = {side: ways[""] for side, ways in said.items()}
    if all("likelihood" in ways for ways in said.values()):
        scores = {side: probability(ways["likelihood"]) for side, ways in said.items()}
        higher = True
    else:
        scores, higher = _rated(kind, {side: ways[""] for side, ways in measured.items()})
    last = scores.get("after", next(iter(scores.values())))
    order = np.argsort(last if higher else -last, kind="stable").tolist()
    half = (len(order) + 1) // 2
    return {
        "best": [_shown(i, written, scores) for i in order[half:][::-1][:SHOWN]],
        "worst": [_shown(i, written, scores) for i in order[:half][:SHOWN]],
    }


def changed(
    kind: str, said: Mapping[str, Answered], measured: Mapping[str, Mapping[str, Measured]]
) -> dict[str, list[Shown]]:
    """`fixed` and `broken`: the rows whose rating rose and fell most; nothing with one system."""
    if len(said) < 2:
        return {}
    scores, higher = _rated(kind, measured)
    gain = (scores["after"] - scores["before"]) * (1 if higher else -1)
    order = np.argsort(-gain, kind="stable").tolist()
    return {
        "fixed": [_shown(i, said, scores) for i in order[:SHOWN] if gain[i] > 0],
        "broken": [_shown(i, said, scores) for i in order[::-1][:SHOWN] if gain[i] < 0],
    }


def beside(kind: str, rows: Sequence[Shown], trained: Sequence[Trained]) -> tuple[list[Shown], list[Note]]:
    """The rows with `nearest`: the training rows whose questions are most like theirs, nearest first.

    `contradicts` marks a row whose nearest training row is much like it and has another answer: there the
    model may have learnt what it was taught. Of open answers, of which two are seldom equal, and of numbers,
    which small differences change, only if the questions are one.
    """
    if not trained or not rows:
        return list(rows), []
    found = Index([one.question for one in trained]).nearest([row["input"] for row in rows], NEAREST)
    result: list[Shown] = []
    for row, places in zip(rows, found, strict=True):
        near = [
            {
                "source": trained[place].source,
                "input": trained[place].question,
                "answer": trained[place].answer,
                "similarity": round(similarity, 4),
            }
            for place, similarity in places
            if similarity > 0.0005  # shown as more than 0
        ]
        result.append({**row, "nearest": near, "contradicts": _contradicts(kind, row, near)})
    count = sum(row["contradicts"] for row in result)
    notes = [note("training_contradicts", count=count, rows=len(result))] if count else []
    return result, notes


def probability(scored: Answered) -> Floats:
    """Of each row [n] the probability of the right label among the labels."""
    assert scored.scores is not None, "scored by likelihood"
    places = {normalise(label): i for i, label in enumerate(scored.labels)}
    right = np.array([places[normalise(text)] for text in scored.references])
    shifted = scored.scores - scored.scores.max(1, keepdims=True)
    likely = np.exp(shifted)
    found: Floats = likely[np.arange(len(right)), right] / likely.sum(1)
    return found


def _contradicts(kind: str, row: Shown, near: Sequence[Shown]) -> bool:
    if not near or normalise(near[0]["answer"]) == normalise(row["reference"]):
        return False
    return bool(near[0]["similarity"] >= _ALIKE.get(kind, _SAME))


def _rated(kind: str, measured: Mapping[str, Mapping[str, Measured]]) -> tuple[dict[str, Floats], bool]:
    """side -> rating of each row [n], and whether larger is better."""
    name = leading(kind, next(iter(measured.values())))
    found = {side: metrics[name] for side, metrics in measured.items()}
    return {side: one.each for side, one in found.items()}, next(iter(found.values())).higher


def _shown(i: int, said: Mapping[str, Answered], scores: Mapping[str, Floats]) -> Shown:
    first = next(iter(said.values()))
    return {
        "source": first.sources[i],
        "input": first.inputs[i],
        "reference": first.references[i],
        **{side: one.answers[i] for side, one in said.items()},
        "score": {side: finite(values[i]) for side, values in scores.items()},
    }
