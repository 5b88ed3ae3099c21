"""Labels that are probably wrong, by confident learning (Northcutt et al., 2021, arXiv:1911.00068).

What the confident joint counts is how much is mislabelled and what is taken for what. Which single rows to
show is another question. They are ranked by the probability that classifiers which have not seen the row give
to its label ("self-confidence", the best of the scores compared by Kuan and Mueller, 2022,
https://openreview.net/forum?id=Zbqx1yVsOV, for errors at random), and the list ends where a mixture says so:
a label is drawn from the classifiers' distribution or, with a small probability, at random from all labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.prepare import classify, exact
from luthier.prepare.classify import Classes, Scores
from luthier.prepare.exact import Ref

ROWS, CHARACTERS, CELLS = 200_000, 20_000_000, 20_000_000
"""At most so many rows, characters, and rows times classes are judged; they bound time and memory."""
FEWEST = 5
SURE = 0.2
"""A list to read is worth it as long as one row in five is wrong."""
# The ten test sets of arXiv:2103.14749 have 3.3 % wrong labels on average.
LEAST_RATE, MOST_RATE = 0.033, 0.5
_ROUNDS = 30
_SHARPNESS = np.geomspace(1 / 64, 16, 11)
_CALIBRATED_ON = 20_000

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row with a label that is wrong with this probability, and the likeliest label in its place."""

    row: Ref
    given: str
    likely: str
    probability: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many rows labelled `given` are counted as `likely` by the confident joint."""

    given: str
    likely: str
    count: int


@dataclass(frozen=True, slots=True)
class Noise:
    """suspects: most probable first · confusions: most frequent first · rate: share of rows off the diagonal
    of the confident joint, an upper estimate where classes overlap · accuracy: of the classifiers on rows
    they have not seen, against the labels given; the lower, the less the rest is worth · rows: rows judged;
    others were above the limit or of classes too small to judge.
    """

    suspects: tuple[Suspect, ...]
    confusions: tuple[Confusion, ...]
    rate: float
    accuracy: float
    rows: int


def label_noise(
    texts: Sequence[str],
    labels: Sequence[str],
    sources: Sequence[str] | None = None,
    sure: float = SURE,
    seed: int = 42,
) -> Noise:
    """Rows whose label is wrong with a probability of at least `sure`.

    Of more rows than the limits allow (200,000 short ones with up to 100 classes) a random sample is judged;
    classes with fewer than 5 rows are left out. Raises DataError when fewer than two classes are left,
    MissingPackage without scikit-learn.
    """
    names = exact.refs(len(texts), sources)
    if len(texts) != len(labels):
        raise DataError(f"{len(texts)} texts but {len(labels)} labels -> give one label for each row")
    rows = _sample(texts, labels, seed)
    classes = sorted({labels[i] for i in rows})
    if len(classes) < 2:
        raise DataError(f"label noise needs two labels with {FEWEST} rows each, not {len(classes)}")
    number = {label: k for k, label in enumerate(classes)}
    given = np.array([number[labels[i]] for i in rows])
    probabilities = out_of_fold([texts[i] for i in rows], given, seed)
    wrong = mislabelled(probabilities, given)
    likely = probabilities.argmax(axis=1)
    order = np.argsort(-wrong, kind="stable")
    suspects = [
        Suspect(names[rows[k]], classes[given[k]], classes[likely[k]], float(wrong[k]))
        for k in order[wrong[order] >= sure]
        if likely[k] != given[k]
    ]
    joint = confident_joint(probabilities, given)
    return Noise(
        tuple(suspects),
        tuple(_confusions(joint, classes)),
        float(1 - np.trace(joint) / max(1, joint.sum())),
        float((likely == given).mean()),
        len(rows),
    )


def _sample(texts: Sequence[str], labels: Sequence[str], seed: int) -> list[int]:
    """The rows to judge, in their order: within the limits, and of classes that are large enough."""
    counts = Counter(labels)
    large = [i for i, label in enumerate(labels) if counts[label] >= FEWEST]
    most = min(ROWS, CELLS // max(1, sum(count >= FEWEST for count in counts.values())))
    chosen = np.random.default_rng(seed).permutation(large)[:most]
    size = np.cumsum([min(len(texts[i]), classify.LONGEST) for i in chosen])
    chosen = np.sort(chosen[: int(np.searchsorted(size, CHARACTERS, side="right"))])
    counts = Counter(labels[i] for i in chosen)
    return [int(i) for i in chosen if counts[labels[i]] >= FEWEST]


def confident_joint(probabilities: Scores, given: Classes) -> Classes:
    """C[i, j]: rows labelled i that confidently belong to j (equation 1 of arXiv:1911.00068).

    probabilities: [n, K], out of fold · given: class numbers [n]. Confidently: the probability of j is at
    least the mean probability of j over the rows labelled j; of several such j the most probable counts.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(given)), given]
    sizes = np.bincount(given, minlength=classes)
    thresholds = np.bincount(given, weights=own, minlength=classes) / np.maximum(sizes, 1)
    thresholds[sizes == 0] = np.inf
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    rows = confident.max(axis=1) >= 0
    joint = np.zeros((classes, classes), np.int64)
    np.add.at(joint, (given[rows], confident[rows].argmax(axis=1)), 1)
    return joint


def mislabelled(probabilities: Scores, given: Classes) -> Probabilities:
    """For each row the probability that its label was drawn at random (see the top), [n]."""
    return _noise(probabilities[np.arange(len(given)), given], probabilities.shape[1])[0]


def out_of_fold(texts: Sequence[str], given: Classes, seed: int = 42) -> Scores:
    """Probabilities of the classes [n, K] for each text, from classifiers that have not seen its label."""
    views = classify.scores(classify.trimmed(texts), given, seed)
    mean = sum(_calibrate(view, given) for view in views) / len(views)
    return _calibrate(np.log(np.maximum(mean, 1e-12)), given)


def _noise(own: Scores, classes: int) -> tuple[Probabilities, float]:
    """The share of noise in each label and the mean log-likelihood, by expectation maximisation.

    own: probability of the label given. The mixture is (1 - rate) * own + rate / classes; the rate is fitted,
    but is at least 3.3 % (few errors are too few to fit it, and a list for review may be a little long) and
    at most a half: where texts tell nothing about labels, the classifiers are wrong, not the labels.
    """
    rate, sure = LEAST_RATE, own.astype(np.float64)
    for _ in range(_ROUNDS):
        noise = rate / classes
        share: Probabilities = noise / ((1 - rate) * sure + noise)
        rate = min(MOST_RATE, max(LEAST_RATE, float(share.mean())))
    return share, float(np.log((1 - rate) * sure + rate / classes).mean())


def _calibrate(scores: Scores, given: Classes) -> Scores:
    """Softmax of scores, at the temperature under which the mixture makes the given labels most probable.

    The mixture, because wrong labels would otherwise make a good classifier look overconfident. The
    temperature is one number: 20,000 rows tell it well enough.
    """
    some = np.random.default_rng(0).permutation(len(given))[:_CALIBRATED_ON]
    sample, labels = scores[some], given[some]

    def likelihood(sharpness: float) -> float:
        own = _softmax(sample, sharpness)[np.arange(len(labels)), labels]
        return _noise(own, scores.shape[1])[1]

    sharpness, step = max(_SHARPNESS, key=likelihood), _SHARPNESS[1] / _SHARPNESS[0]
    for _ in range(4):
        step = np.sqrt(step)
        sharpness = max((sharpness / step, sharpness, sharpness * step), key=likelihood)
    return _softmax(scores, sharpness)


def _softmax(scores: Scores, sharpness: float) -> Scores:
    found: Scores = scores * np.float32(sharpness)
    found -= found.max(axis=1, keepdims=True)
    np.exp(found, out=found)
    found /= found.sum(axis=1, keepdims=True)
    return found


def _confusions(joint: Classes, classes: Sequence[str]) -> list[Confusion]:
    found = [Confusion(classes[i], classes[j], int(joint[i, j])) for i, j in np.argwhere(joint > 0) if i != j]
    return sorted(found, key=lambda one: (-one.count, one.given, one.likely))
