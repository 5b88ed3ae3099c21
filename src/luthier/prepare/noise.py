"""Labels that are probably wrong, by confident learning (Northcutt et al., 2021, arXiv:1911.00068).

Each row is judged by classifiers that have not seen it. Two linear classifiers that look at different things
are averaged, because they make different mistakes: logistic regression on words (Chinese: characters) and
pairs of them, and naive Bayes on character n-grams; both on hashed features, so no vocabulary is kept.

What the confident joint counts is how much is mislabelled and what is taken for what. Which single rows to
show is a stricter question, answered by a mixture: a label is drawn from the classifier's distribution or,
with a small probability, from noise that has nothing to do with the text. A row is a suspect when the second
is much more probable.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError, MissingPackage
from luthier.prepare import exact
from luthier.prepare.exact import Ref

ROWS = 200_000
FOLDS = 5
EPOCHS = 3
SURE = 0.85
# Labels are rarely cleaner; the ten test sets of arXiv:2103.14749 have 3.3 % wrong labels on average.
LEAST_RATE = 0.02
_WORD = re.compile(r"[^\W\d_\u3400-\u9fff]+|[0-9]+|[\u3400-\u9fff]|[?!？！]")
_WORD_BITS, _CHARACTER_BITS = 18, 16
_ROUNDS = 30
_SHARPNESS = np.geomspace(1 / 64, 16, 21)

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


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

    At most 200,000 rows, drawn at random, are judged; classes with fewer than 5 of them are left out.
    Raises DataError when fewer than two classes are left, MissingPackage without scikit-learn.
    """
    names = exact.refs(len(texts), sources)
    if len(texts) != len(labels):
        raise DataError(f"{len(texts)} texts but {len(labels)} labels -> give one label for each row")
    chosen = np.random.default_rng(seed).permutation(len(texts))[:ROWS]
    counts = Counter(labels[i] for i in chosen)
    classes = sorted(label for label, count in counts.items() if count >= FOLDS)
    if len(classes) < 2:
        raise DataError(f"label noise needs two labels with {FOLDS} rows each, not {len(classes)}")
    number = {label: k for k, label in enumerate(classes)}
    rows = [int(i) for i in sorted(chosen) if labels[i] in number]
    given = np.array([number[labels[i]] for i in rows])
    probabilities = out_of_fold([texts[i] for i in rows], given, seed)
    wrong = mislabelled(probabilities, given)
    likely = probabilities.argmax(axis=1)
    order = np.argsort(-wrong, kind="stable")
    suspects = [
        Suspect(names[rows[k]], classes[given[k]], classes[likely[k]], float(wrong[k]))
        for k in order
        if wrong[k] >= sure and likely[k] != given[k]
    ]
    joint = confident_joint(probabilities, given)
    return Noise(
        tuple(suspects),
        tuple(_confusions(joint, classes)),
        float(1 - np.trace(joint) / max(1, joint.sum())),
        float((likely == given).mean()),
        len(rows),
    )


def confident_joint(probabilities: Array, given: Counts) -> Counts:
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


def mislabelled(probabilities: Array, given: Counts) -> Array:
    """For each row the probability that its label came from the noise of the mixture (see the top), [n]."""
    return _noise(probabilities[np.arange(len(given)), given], given, probabilities.shape[1])[0]


def out_of_fold(texts: Sequence[str], given: Counts, seed: int = 42) -> Array:
    """Probabilities of the classes [n, K] for each text, from classifiers fitted without it (5 folds)."""
    words, characters = _features(texts)
    views = [_predict(words, given, _logistic, seed), _predict(characters, given, _naive_bayes, seed)]
    mean = sum(_calibrate(scores, given) for scores in views) / len(views)
    return _calibrate(np.log(np.maximum(mean, 1e-12)), given)


def _noise(own: Array, given: Counts, classes: int) -> tuple[Array, float]:
    """The share of noise in each label and the mean log-likelihood, by expectation maximisation.

    own: probability of the label given. The mixture is (1 - rate) * own + rate * target[given]; the rate (at
    least 2 %) and the target (smoothed by three rows a class) are fitted. The target is not the same for all
    classes, because people who mislabel often fall for the same label.
    """
    rate, target = LEAST_RATE, np.full(classes, 1 / classes)
    for _ in range(_ROUNDS):
        noise = rate * target[given]
        share: Array = noise / ((1 - rate) * own + noise)
        rate = max(LEAST_RATE, float(share.mean()))
        drawn = np.bincount(given, weights=share, minlength=classes) + 3
        target = drawn / drawn.sum()
    return share, float(np.log((1 - rate) * own + rate * target[given]).mean())


def _calibrate(scores: Array, given: Counts) -> Array:
    """Softmax of scores, at the temperature under which the mixture makes the given labels most probable.

    The mixture, because wrong labels would otherwise make a good classifier look overconfident.
    """
    scores = scores - scores.max(axis=1, keepdims=True)
    best, found = -np.inf, scores
    for sharpness in _SHARPNESS:
        probabilities = np.exp(scores * sharpness)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        _, likelihood = _noise(probabilities[np.arange(len(given)), given], given, scores.shape[1])
        if likelihood > best:
            best, found = likelihood, probabilities
    return found


def _features(texts: Sequence[str]) -> tuple[Any, Any]:
    """Two sparse matrices [n, features], rows of unit length: words and pairs of words; character n-grams."""
    text, _, _, _ = _sklearn()
    lower = [exact.normalise(t) for t in texts]
    chinese = sum("\u3400" <= c <= "\u9fff" for t in lower[:1000] for c in t[:200])
    grams = (1, 3) if chinese * 4 > sum(len(t[:200]) for t in lower[:1000]) else (2, 4)
    common = {"alternate_sign": False, "norm": None, "dtype": np.float32}
    views = (
        text.HashingVectorizer(analyzer=_words, n_features=2**_WORD_BITS, **common),
        text.HashingVectorizer(
            analyzer="char_wb", ngram_range=grams, n_features=2**_CHARACTER_BITS, **common
        ),
    )
    matrices = []
    for view in views:
        counts = view.transform(lower)
        counts.data = 1 + np.log(counts.data)
        matrices.append(text.TfidfTransformer().fit_transform(counts))
    return matrices[0], matrices[1]


def _words(text: str) -> list[str]:
    words = _WORD.findall(text)
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def _predict(features: Any, given: Counts, make: Any, seed: int) -> Array:
    """Scores [n, K] of each row by the classifier fitted on the other folds."""
    _, _, _, selection = _sklearn()
    scores = np.zeros((len(given), int(given.max()) + 1))
    folds = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for seen, unseen in folds.split(features, given):
        scores[unseen] = make(features[seen], given[seen], features[unseen], seed)
    return scores


def _logistic(seen: Any, given: Counts, unseen: Any, seed: int) -> Array:
    _, linear, _, _ = _sklearn()
    model = linear.SGDClassifier(
        loss="log_loss", alpha=1e-5, max_iter=EPOCHS, tol=None, average=True, random_state=seed
    )
    scores: Array = model.fit(seen, given).decision_function(unseen)
    return scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1) / 2


def _naive_bayes(seen: Any, given: Counts, unseen: Any, seed: int) -> Array:
    _, _, bayes, _ = _sklearn()
    scores: Array = (
        bayes.MultinomialNB(alpha=0.02, fit_prior=False).fit(seen, given).predict_joint_log_proba(unseen)
    )
    return scores


def _confusions(joint: Counts, classes: Sequence[str]) -> list[Confusion]:
    found = [Confusion(classes[i], classes[j], int(joint[i, j])) for i, j in np.argwhere(joint > 0) if i != j]
    return sorted(found, key=lambda one: (-one.count, one.given, one.likely))


def _sklearn() -> tuple[Any, Any, Any, Any]:
    """The only place that imports scikit-learn."""
    try:
        from sklearn import linear_model, model_selection, naive_bayes
        from sklearn.feature_extraction import text
    except ImportError as error:
        raise MissingPackage("scikit-learn", "finding wrong labels", "data") from error
    return text, linear_model, naive_bayes, model_selection
