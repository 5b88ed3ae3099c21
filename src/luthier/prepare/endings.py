"""Answers that stop in the middle, told by the endings of the data set itself.

What a proper ending looks like differs: prose ends with a full stop, a list of titles does not, code ends
with a bracket. So nothing is assumed: a logistic regression learns to tell the endings of the data set's
answers from the same answers cut at random places, on what stands before the end (last characters, the kind
of the last lines, what is open, whether the last word occurs inside other answers). An answer whose ending
looks like a cut is reported. Each is judged by a model that has not seen it (5 folds).

An answer that was cut at the end of a sentence cannot be told from a short one, by nobody.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.errors import MissingPackage
from luthier.prepare.learning import one_thread
from luthier.prepare.text import truncated

SHORTEST = 40
"""Characters below which an answer is a label, a title or a word, and has no ending of a text."""
FEW = 200
"""Answers that learning needs; below, only plain signs count."""
MOST = 6000
FOLDS, CUTS, SIZE, THRESHOLD = 5, 2, 2**16, -1.0
"""THRESHOLD: log odds of a proper ending below which an answer is reported."""

_STOPS, _PAUSES = "。！？!?.…．", ",，、;；:：-—"
_OPEN, _CLOSE = "（([{【“‘「《<", "\"'”’」』）)]】}》>`*~|"
_ITEM = re.compile(r"\s*(?:[-*•●▪‣·]|\(?\d{1,3}[.)、:：]|[A-Za-z][.)])\s*")
_NUMBER = re.compile(r"\s*(?:[-*•●]|\d{1,3}[.)、])")
_SENTENCE = re.compile(r"[。！？!?…．]|\.(?=\s|$)")
_WORDS = re.compile(r"[A-Za-z]+")
_LAST_WORD = re.compile(r"[A-Za-z]+$")
_PAIRS = (("（", "）"), ("“", "”"), ("(", ")"), ("「", "」"), ("《", "》"), ("[", "]"), ("{", "}"))


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An answer by position; why: the plain sign, or "" where the data set's other endings told it."""

    index: int
    why: str
    shown: str


def unfinished(answers: Sequence[str], seed: int = 42) -> list[Unfinished]:
    """Answers that stop in the middle, in their order.

    Raises MissingPackage without scikit-learn where there are enough answers to learn from.
    """
    found = {i: Unfinished(i, why, f"…{answers[i].rstrip()[-30:]}") for i, why in _plain(answers)}
    texts = {i: answer.strip() for i, answer in enumerate(answers) if len(answer.strip()) >= SHORTEST}
    if len(texts) >= FEW:
        for i, score in _learnt(texts, random.Random(seed)).items():
            if score < THRESHOLD and i not in found:
                found[i] = Unfinished(i, "", f"…{texts[i][-30:]}")
    return [found[i] for i in sorted(found)]


def _plain(answers: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(position, sign) of answers that are certainly cut off."""
    for i, answer in enumerate(answers):
        spans = [span for span in truncated(answer) if span.kind == "truncated"]
        if spans:
            yield i, spans[0].shown.partition(": …")[0]
        elif _empty_item(answer.rstrip()):
            yield i, "an empty item at the end"


def _learnt(texts: dict[int, str], rng: random.Random) -> dict[int, float]:
    """Log odds of a proper ending, for the answers that do not end with a full stop or a closing sign.

    Those that do are learnt from, but not judged: a cut in such a place leaves no trace.
    """
    from scipy.sparse import vstack

    hasher, regression = _sklearn()
    sample = sorted(rng.sample(sorted(texts), min(MOST, len(texts))))
    known = _inner_words([texts[i] for i in sample])
    fold = {i: rng.randrange(FOLDS) for i in texts}
    cuts = [(fold[i], texts[i][: _place(texts[i], rng)]) for i in sample for _ in range(CUTS)]
    judged = [i for i, text in texts.items() if not _closed(text)]
    ends = hasher(SIZE).transform(_features(texts[i], known) for i in sample)
    cut = hasher(SIZE).transform(_features(text, known) for _, text in cuts)
    asked = hasher(SIZE).transform(_features(texts[i], known) for i in judged) if judged else None
    scores: dict[int, float] = {}
    folds = (np.array([fold[i] for i in sample]), np.array([k for k, _ in cuts]))
    for k in range(FOLDS):
        mine = np.array([n for n, i in enumerate(judged) if fold[i] == k], dtype=np.int64)
        if not len(mine) or asked is None:
            continue
        seen: npt.NDArray[np.bool_] = np.concatenate([folds[0] != k, folds[1] != k])
        ended = np.concatenate([np.ones(len(sample)), np.zeros(len(cuts))])
        with one_thread():
            model = regression(C=1.0, max_iter=300).fit(vstack([ends, cut]).tocsr()[seen], ended[seen])
        values = model.decision_function(asked[mine]) + math.log(CUTS)
        scores |= {judged[n]: float(value) for n, value in zip(mine, values, strict=True)}
    return scores


def _closed(text: str) -> bool:
    """Whether it ends with a full stop or a closing sign, and not with one of two back-ticks."""
    last = text[text.rfind("\n") + 1 :]
    return _kind(text[-1]) in ("stop", "close") and last.count("`") % 2 == 0


def _empty_item(body: str) -> bool:
    """Whether the last of several lines is the number or the bullet of a list item that never came."""
    return "\n" in body and _NUMBER.fullmatch(body[body.rfind("\n") + 1 :]) is not None


def _place(text: str, rng: random.Random) -> int:
    return rng.randrange(max(12, len(text) // 10), len(text))


def _inner_words(texts: Sequence[str]) -> Counter[str]:
    """How often a Latin word stands inside an answer: a last word that never does may be half of one."""
    return Counter(word.lower() for text in texts for word in _WORDS.findall(text)[:-1])


def _kind(sign: str) -> str:
    """The class of a character."""
    for name, signs in (("stop", _STOPS), ("pause", _PAUSES), ("open", _OPEN), ("close", _CLOSE)):
        if sign and sign in signs:
            return name
    if not sign or sign.isspace():
        return "none"
    if sign.isdigit():
        return "digit"
    return "other" if not sign.isalpha() else "latin" if sign.isascii() else "letter"


def _features(text: str, known: Counter[str]) -> list[str]:
    """What stands before the end of `text`, as names that hold."""
    body = text.rstrip()
    tail, end = body[-300:], _kind(body[-1:])
    lines = [line for line in body[-1500:].split("\n") if line.strip()] or [""]
    last, before = lines[-1], lines[-2] if len(lines) > 1 else ""
    item, was_item = bool(_ITEM.match(last)), bool(_ITEM.match(before))
    stops = [found.end() for found in _SENTENCE.finditer(tail)]
    since = (len(tail) - stops[-1]).bit_length() if stops else "none"
    share = min(2, 3 * len(last) // (len(before) + 1))
    found = [
        end,
        f"{_kind(body[-2:-1])} {end}",
        f"1 {body[-1:]}",
        f"2 {body[-2:]}",
        f"3 {body[-3:]}",
        f"items {item} {was_item} {end}",
        f"lines {_kind(before.rstrip()[-1:])} {end} {item} {was_item}",
        f"since {since} {end}",
        f"length {len(body).bit_length()} {end}",
        f"sentences {min(len(stops), 3)} {end} {item}",
        f"short {share} {item} {was_item} {end}",
        f"fence {body.count('```') % 2}",
        f"tick {last.count('`') % 2}",
        f"quote {last.count(chr(34)) % 2} {end}",
    ]
    found += [f"open {left}" for left, right in _PAIRS if last.rfind(left) > last.rfind(right)]
    if word := _LAST_WORD.search(body):
        count = known[word[0].lower()]
        found += [f"word {min(count, 3)}", f"word {word[0].lower()}"]
    return found


def _sklearn() -> tuple[Any, Any]:
    try:
        from sklearn.feature_extraction import FeatureHasher
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingPackage("scikit-learn", "finding answers that stop in the middle", "data") from error
    return lambda size: FeatureHasher(size, input_type="string"), LogisticRegression
