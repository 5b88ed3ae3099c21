"""Which class a text looks like, told by classifiers that have not seen its label.

Two linear classifiers that look at different things, because they make different mistakes: logistic
regression on words (Chinese: characters) and pairs of them, each row judged by a model fitted on other rows;
and naive Bayes on character n-grams, whose counts a row can simply be taken out of, so that each row is
judged by all the others (leave one out, at the price of one pass). Features are hashed, so no vocabulary is
kept.

The only place that imports scikit-learn and scipy.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.errors import MissingPackage
from luthier.prepare import exact

LONGEST = 500
_WORD = re.compile(r"[^\W\d_\u3400-\u9fff]+|[0-9]+|[\u3400-\u9fff]|[?!？！]")
_BITS, _WEIGHTS = 18, 2**24
_BLOCK = 20_000
_SMOOTHING = 0.02
# Passes over the data: enough updates for few rows, and no more than is needed for many.
_UPDATES, _EPOCHS, _MANY = 120_000, (2, 50), 20_000

Scores = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


def trimmed(texts: Sequence[str]) -> list[str]:
    """`texts` as they are compared: without lines that most rows have, and 500 characters long: of a longer
    text the first and the last 250 stay."""
    shared = shared_lines(texts)
    return [exact.normalise(_ends(own_lines(text, shared))) for text in texts]


def shared_lines(texts: Sequence[str]) -> frozenset[str]:
    """Lines that more than half of the rows have: the instruction, not what is to be classified."""
    sample = [frozenset(text.splitlines()) for text in texts[:: max(1, len(texts) // _BLOCK)]]
    counts = Counter(line for lines in sample for line in lines if line)
    return frozenset(line for line, count in counts.items() if 2 * count > len(sample) > 1)


def own_lines(text: str, shared: frozenset[str]) -> str:
    """`text` without `shared` lines; whole, when it has no others."""
    if not shared or "\n" not in text:
        return text
    return "\n".join(line for line in text.splitlines() if line not in shared) or text


def _ends(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} {text[-LONGEST // 2 :]}"


def scores(texts: Sequence[str], given: Classes, seed: int = 42) -> tuple[Scores, Scores]:
    """Log-scores of the classes [n, K] by logistic regression and by naive Bayes.

    texts: as `trimmed` returns them · given: class numbers from 0 [n]. Raises MissingPackage.
    """
    bits = min(_BITS, int(np.log2(_WEIGHTS / (int(given.max()) + 1))))
    text = _sklearn()[0]
    common = {"n_features": 2**bits, "alternate_sign": False, "norm": None, "dtype": np.float32}
    words = text.HashingVectorizer(analyzer=_words, **common)
    by_words = logistic(_features(texts, words), given, _folds(texts, seed), seed)
    grams = (1, 3) if _is_chinese(texts) else (2, 4)
    characters = text.HashingVectorizer(analyzer="char_wb", ngram_range=grams, **common)
    return by_words, leave_one_out(_features(texts, characters), given)


def _folds(texts: Sequence[str], seed: int) -> Classes:
    """The fold of each row [n], told by its text alone: who corrects a label or adds a row changes the
    judgement of no other row by chance, and equal texts do not vouch for each other."""
    folds = 3 if len(texts) > _MANY else 5
    return np.array([zlib.crc32(text.encode("utf-8", "surrogatepass"), seed) % folds for text in texts])


def logistic(features: Any, given: Classes, fold: Classes, seed: int) -> Scores:
    """Decision values [n, K] of each row by logistic regressions fitted on the other folds."""
    linear = _sklearn()[1]
    count, folds = len(given), int(fold.max()) + 1
    epochs = int(np.clip(_UPDATES // count, *_EPOCHS))
    found = np.zeros((count, int(given.max()) + 1), np.float32)
    for k in range(folds):
        seen, unseen = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if len(np.unique(given[seen])) < 2 or not len(unseen):
            continue  # nothing to tell apart, or nobody to judge: no opinion
        model = linear.SGDClassifier(
            loss="log_loss", alpha=1e-5, max_iter=epochs, tol=None, average=True, random_state=seed, n_jobs=-1
        )
        values = model.fit(features[seen], given[seen]).decision_function(features[unseen])
        values = values if values.ndim == 2 else np.stack([-values, values], axis=1) / 2
        found[unseen] = values.min(axis=1, keepdims=True)
        found[np.ix_(unseen, model.classes_)] = values
        alone = unseen[~np.isin(given[unseen], model.classes_)]
        found[alone, given[alone]] = found[alone].max(axis=1)  # a class that only this fold has: no opinion
    return found


def leave_one_out(features: Any, given: Classes) -> Scores:
    """Log-likelihoods [n, K] under multinomial naive Bayes with uniform priors, each row without itself.

    Only the row's own class changes when the row is taken out, so nothing is fitted twice.
    """
    classes, width = int(given.max()) + 1, features.shape[1]
    member = _sklearn()[2].csr_matrix(
        (np.ones(len(given), np.float32), given, np.arange(len(given) + 1)), shape=(len(given), classes)
    )
    counts = (features.T @ member).toarray()
    totals = counts.sum(axis=0, dtype=np.float64)
    logs = np.log(counts + np.float32(_SMOOTHING))
    logs -= np.log(totals + _SMOOTHING * width).astype(np.float32)
    found = np.empty((len(given), classes), np.float32)
    for start in range(0, len(given), _BLOCK):
        rows, own = features[start : start + _BLOCK], given[start : start + _BLOCK]
        found[start : start + _BLOCK] = rows @ logs
        place = np.repeat(np.arange(len(own)), np.diff(rows.indptr))
        others = np.maximum(counts[rows.indices, own[place]] - rows.data, 0) + _SMOOTHING
        weight = np.bincount(place, rows.data, len(own))
        seen = np.bincount(place, rows.data * np.log(others), len(own))
        left = np.maximum(totals[own] - weight, 0) + _SMOOTHING * width
        found[start + np.arange(len(own)), own] = seen - weight * np.log(left)
    return found


def _features(texts: Sequence[str], vectorizer: Any) -> Any:
    """Sparse rows [n, features] of unit length, by term frequency and inverse document frequency.

    Without features of a single row, which teach nothing about others, and those of more than half the rows.
    """
    sparse, normalize = _sklearn()[2:]
    blocks = [vectorizer.transform(texts[i : i + _BLOCK]) for i in range(0, len(texts), _BLOCK)]
    having = np.zeros(vectorizer.n_features, np.int64)
    for block in blocks:
        having += np.bincount(block.indices, minlength=len(having))
    keep = (having > 1) & (having <= max(2, len(texts) / 2))
    number = (np.cumsum(keep) - 1).astype(np.int32)
    for i, block in enumerate(blocks):
        kept = keep[block.indices]
        starts = np.concatenate(([0], np.cumsum(kept)))[block.indptr]
        parts = (1 + np.log(block.data[kept]), number[block.indices[kept]], starts)
        blocks[i] = sparse.csr_matrix(parts, shape=(block.shape[0], max(1, int(keep.sum()))))
    matrix = sparse.vstack(blocks, format="csr")
    rarity = np.log((1 + len(texts)) / (1 + having[keep])) + 1
    matrix.data *= rarity.astype(np.float32)[matrix.indices]
    return normalize(matrix, copy=False)


def _words(text: str) -> list[str]:
    words = _WORD.findall(text)
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def _is_chinese(texts: Sequence[str]) -> bool:
    sample = "".join(text[:200] for text in texts[:1000])
    return 4 * sum("\u3400" <= sign <= "\u9fff" for sign in sample) > len(sample)


def _sklearn() -> tuple[Any, Any, Any, Any]:
    """(feature_extraction.text, linear_model, scipy.sparse, normalize)"""
    try:
        from scipy import sparse
        from sklearn import linear_model
        from sklearn.feature_extraction import text
        from sklearn.preprocessing import normalize
    except ImportError as error:
        raise MissingPackage("scikit-learn", "finding wrong labels", "data") from error
    return text, linear_model, sparse, normalize
