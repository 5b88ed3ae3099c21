"""What makes a score or an answer meaningless: test rows seen in training, one question with two answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.prepare import exact, near
from luthier.prepare.exact import Ref


@dataclass(frozen=True, slots=True)
class Leak:
    """An evaluation row, the training row most like it, and how alike they are (1.0: equal)."""

    evaluation: Ref
    train: Ref
    similarity: float


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Rows that ask the same, with more than one answer.

    rows, answers: side by side · similarity: of the least alike row to the first; 1.0 where all are equal.
    """

    rows: tuple[Ref, ...]
    answers: tuple[str, ...]
    similarity: float


def leaks(
    train: Sequence[str],
    evaluation: Sequence[str],
    train_sources: Sequence[str] | None = None,
    evaluation_sources: Sequence[str] | None = None,
    threshold: float = near.THRESHOLD,
) -> list[Leak]:
    """Evaluation rows that are also, or nearly, in the training rows; one Leak for each, in their order.

    Give the inputs without the answers to find leaked questions, or both to find leaked rows.
    """
    exact.check_names(len(train), train_sources)
    exact.check_names(len(evaluation), evaluation_sources)
    known: dict[bytes, int] = {}
    for i, text in enumerate(train):
        known.setdefault(exact.key(text), i)
    best: dict[int, tuple[float, int]] = {}
    rest: dict[bytes, list[int]] = {}
    for i, text in enumerate(evaluation):
        key = exact.key(text)
        if key in known:
            best[i] = (1.0, known[key])
        else:
            rest.setdefault(key, []).append(i)
    seen, new = list(known.values()), list(rest.values())
    texts = [train[i] for i in seen] + [evaluation[group[0]] for group in new]
    for pair in near.pairs(texts, threshold, sides=[0] * len(seen) + [1] * len(new)):
        for i in new[pair.second - len(seen)]:
            best[i] = max(best.get(i, (0.0, 0)), (pair.similarity, seen[pair.first]))
    return [
        Leak(exact.ref(i, evaluation_sources), exact.ref(match, train_sources), value)
        for i, (value, match) in sorted(best.items())
    ]


def contradictions(
    inputs: Sequence[str],
    answers: Sequence[str],
    sources: Sequence[str] | None = None,
    threshold: float | None = near.THRESHOLD,
    found: near.Alike | None = None,
) -> list[Contradiction]:
    """Inputs that are equal, or nearly, but answered differently; answers are compared normalised.

    threshold: None finds equal inputs only, which is the right question for free text, where two answers to
    nearly the same question are no contradiction · found: which inputs are alike, where that is known.
    """
    found = near.alike([inputs], None, threshold) if found is None else found
    made = []
    for cluster in near.stars(found, sources):
        like = sorted([(cluster.keeper, 1.0)] + [(copy.row, copy.similarity) for copy in cluster.copies])
        said = tuple(answers[row.index] for row, _ in like)
        if len(set(map(exact.normalise, said))) > 1:
            made.append(Contradiction(tuple(row for row, _ in like), said, min(value for _, value in like)))
    return sorted(made, key=lambda one: one.rows[0])
