"""How near predicted texts are to their references: pure functions of strings.

ROUGE-1/2/L and BLEU-4 are the numbers that LLaMA-Factory users know, to the last digit: ROUGE is the F value
of the `rouge-chinese` package over jieba words (over characters where jieba is missing), BLEU-4 is sentence
BLEU over characters with NIST geometric smoothing (method 3 of Chen and Cherry, 2014), both times 100,
rounded to four decimals per row, then averaged. Beside them stand the numbers that say whether an answer
is right: exact match and, where the references form a closed set of answers, accuracy and macro-F1 (0 to 1).
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luthier.measure import closed

# Where rouge-chinese starts a new sentence, applied in this order. It cuts inside words too ("a?b"), and
# white space between two cuts counts as one empty word; both are kept, so that the numbers agree.
_SENTENCE_ENDS = (
    re.compile(r"([。！？?])([^”’])"),
    re.compile(r"(\.{6})([^”’])"),
    re.compile(r"(…{2})([^”’])"),
    re.compile(r"([。！？?][”’])([^，。！？?])"),
)


@functools.cache
def word_cutter() -> tuple[Callable[[str], list[str]], str]:
    """The function that cuts text into words, and its name: "jieba", or "characters" where it is missing."""
    try:
        import jieba
    except ImportError:
        return list, "characters"
    jieba.setLogLevel("ERROR")
    return jieba.lcut, "jieba"


def rouge(predict: str, label: str) -> dict[str, float]:
    """F values of ROUGE-1, ROUGE-2 and ROUGE-L, times 100, rounded to four decimals."""
    cut, _ = word_cutter()
    hypothesis, reference = _words(cut(predict)), _words(cut(label))
    if not any(hypothesis) or not any(reference):
        return {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0}
    scores = {}
    for n in (1, 2):
        mine, theirs = set(_ngrams(hypothesis, n)), set(_ngrams(reference, n))
        scores[f"rouge-{n}"] = _f_value(len(mine & theirs), len(mine), len(theirs))
    common = lcs_length(hypothesis, reference)
    scores["rouge-l"] = _f_value(common, len(hypothesis), len(reference))
    return {name: round(value * 100, 4) for name, value in scores.items()}


def bleu_4(predict: str, label: str) -> float:
    """Sentence BLEU over characters with up to 4-grams, smoothed, times 100, rounded to four decimals."""
    if not set(predict) & set(label):
        return 0.0
    logarithms, empty = 0.0, 0
    for n in (1, 2, 3, 4):
        counts, reference = Counter(_ngrams(predict, n)), Counter(_ngrams(label, n))
        matched = sum(min(count, reference[ngram]) for ngram, count in counts.items())
        empty += matched == 0
        precision = (matched or 0.5**empty) / max(1, counts.total())
        logarithms += math.log(precision) / 4
    brevity = min(0.0, 1 - len(label) / len(predict))
    return round(math.exp(brevity + logarithms) * 100, 4)


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, 64 table cells per machine operation (Hyyrö, 2004).

    Bit i of `row` is 0 where the table row rises between columns i and i + 1.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = row = (1 << len(a)) - 1
    for word in b:
        match = row & places.get(word, 0)
        row = (row + match | row - match) & full
    return len(a) - row.bit_count()


@dataclass(frozen=True, slots=True)
class ClosedSet:
    """Scores of a classification: `labels` as normalised, `outside` the share of answers not among them."""

    labels: tuple[str, ...]
    accuracy: float
    macro_f1: float
    outside: float


def closed_set(predicts: Sequence[str], labels: Sequence[str]) -> ClosedSet | None:
    """Accuracy and macro-F1 where the references are a closed set (`measure.closed`); None for free text.

    An answer counts when it equals the label after `normalise`. Macro-F1 is the mean over the labels that
    occur as references; an answer outside the set is a miss of the true label and a hit of none.
    """
    wanted = [normalise(label) for label in labels]
    if closed.labels(wanted) is None:
        return None
    names = sorted(set(wanted))
    got = [normalise(predict) for predict in predicts]
    right = Counter(w for w, g in zip(wanted, got, strict=True) if w == g)
    support, answered = Counter(wanted), Counter(got)
    f1 = [2 * right[name] / (support[name] + answered[name]) for name in names]
    outside = sum(count for answer, count in answered.items() if answer not in support)
    return ClosedSet(
        tuple(names),
        right.total() / len(wanted),
        sum(f1) / len(names),
        outside / len(wanted),
    )


def normalise(answer: str) -> str:
    """An answer as its label: width and case folded, without surrounding blanks and a final full stop."""
    return unicodedata.normalize("NFKC", answer).casefold().strip().rstrip(".。!").rstrip()


def without_thought(text: str, thought: tuple[str, str] | None) -> str:
    """What follows the reasoning between the two words of `thought`; "" where the reasoning never ends."""
    if thought is None:
        return text
    _, close, after = text.rpartition(thought[1].strip())
    return after if close or thought[0].strip() not in text else ""


def score(
    predicts: Sequence[str], labels: Sequence[str], thought: tuple[str, str] | None = None
) -> dict[str, float]:
    """Means over all rows; accuracy, macro_f1 and outside_labels only where the answers form a closed set.

    thought: the words around a reasoning model's thoughts. ROUGE and BLEU see them, as in LLaMA-Factory;
    whether an answer is right is decided without them.
    """
    if not predicts:
        return {}
    rows = [
        {**rouge(p, label), "bleu-4": bleu_4(p, label)} for p, label in zip(predicts, labels, strict=True)
    ]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    answers = [without_thought(text, thought).strip() for text in predicts]
    wanted = [without_thought(text, thought).strip() for text in labels]
    means["exact_match"] = sum(a == w for a, w in zip(answers, wanted, strict=True)) / len(rows)
    classes = closed_set(answers, wanted)
    if classes is not None:
        means |= {
            "accuracy": classes.accuracy,
            "macro_f1": classes.macro_f1,
            "outside_labels": classes.outside,
        }
    return means


def _words(pieces: Sequence[str]) -> list[str]:
    text = " ".join(pieces)
    for end in _SENTENCE_ENDS:
        text = end.sub(r"\1\n\2", text)
    sentences = [sentence for sentence in text.rstrip().split("\n") if sentence]
    return [word for sentence in sentences for word in (sentence.split() or [""])]


def _ngrams(sequence: Sequence[str], n: int) -> list[Sequence[str]]:
    return [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]


def _f_value(common: int, hypothesis: int, reference: int) -> float:
    precision, recall = (common / total if total else 0.0 for total in (hypothesis, reference))
    return 2 * (precision * recall / (precision + recall + 1e-8))
