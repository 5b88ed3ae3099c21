"""Free text: how near answers are to their references, how varied they are, and how long.

ROUGE-1/2/L and BLEU-4 are LLaMA-Factory's (`measure.strings`, 0 to 100, a mean over rows). Beside them stand
BLEU and chrF of the whole corpus as sacreBLEU computes them (Post, 2018; Popović, 2015; 0 to 100), with its
tokenizer for Chinese where the references are Chinese: its default takes a Chinese sentence for one word.
The others are 0 to 1, lengths are in characters.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.errors import MissingPackage
from luthier.measure.metrics import checked, each, mean, over
from luthier.measure.strings import bleu_4, rouge
from luthier.measure.types import Answered, Measured

Floats = npt.NDArray[np.float64]
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_TOKEN = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_CHARACTER = re.compile(f"[{_CJK}]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WIDE_PUNCTUATION = str.maketrans(dict.fromkeys("，。！？、；：“”‘’（）《》〈〉【】「」『』—…·～", " "))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ORDERS, _BETA = 6, 2  # chrF's defaults: characters up to six, recall counts twice


def metrics(answered: Answered) -> dict[str, Measured]:
    """All measures of free text; raises MissingPackage without sacrebleu."""
    checked(answered)
    pairs = list(zip(answered.answers, answered.references, strict=True))
    rouges = [rouge(answer, reference) for answer, reference in pairs]
    words = [tokens(answer) for answer in answered.answers]
    return {
        "exact_match": mean(each(answered, lambda a, r: float(a.strip() == r.strip()))),
        "token_f1": mean(each(answered, token_f1)),
        **{name: mean([row[name] for row in rouges]) for name in ("rouge-1", "rouge-2", "rouge-l")},
        "bleu-4": mean(each(answered, bleu_4)),
        "sacrebleu": sacrebleu(answered),
        "chrf": chrf(answered),
        "distinct_1": mean([distinct([row], 1) for row in words]),
        "distinct_2": mean([distinct([row], 2) for row in words]),
        "repetition": mean([repetition(row) for row in words], higher=False),
        "length_gap": mean(each(answered, lambda a, r: abs(len(a) - len(r))), higher=False),
    }


def lengths(answered: Answered) -> dict[str, float]:
    """Mean length in characters of answers and of references: neither longer nor shorter is better."""
    checked(answered)
    return {
        "answers": sum(map(len, answered.answers)) / len(answered.answers),
        "references": sum(map(len, answered.references)) / len(answered.references),
    }


def token_f1(answer: str, reference: str) -> float:
    """F1 of the bags of words of SQuAD (Rajpurkar et al., 2016): without case, punctuation and English
    articles. Each Chinese or Japanese character is a word. Two empty texts agree.
    """
    mine, theirs = (Counter(tokens(_plain(text))) for text in (answer, reference))
    if not mine or not theirs:
        return float(mine == theirs)
    return 2 * (mine & theirs).total() / (mine.total() + theirs.total())


def tokens(text: str) -> list[str]:
    """Words between blanks; each Chinese or Japanese character by itself."""
    return _TOKEN.findall(text)


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Share of different n-grams among all n-grams of the texts (distinct-n; Li et al., 2016); 0 without any.

    Of one text it says whether it repeats itself, of all answers whether they are all alike.
    """
    counts = Counter(ngram for text in texts for ngram in _ngrams(text, n))
    return len(counts) / max(1, counts.total())


def repetition(text: Sequence[str], n: int = 4) -> float:
    """Share of a text's n-grams that stood in it before (seq-rep-n; Welleck et al., 2020)."""
    return 1 - distinct([text], n) if len(text) >= n else 0.0


def sacrebleu(answered: Answered) -> Measured:
    """BLEU of the corpus with sacreBLEU's tokens and exponential smoothing, 0 to 100."""
    bleu = _sacrebleu().BLEU(tokenize="zh" if _chinese(answered.references) else "13a", effective_order=True)
    rows = []
    for answer, reference in zip(answered.answers, answered.references, strict=True):
        found = bleu.sentence_score(answer, [reference])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return Measured(np.array(rows, dtype=np.float64), _bleu)


def chrf(answered: Answered) -> Measured:
    """F2 of character n-grams up to six over the corpus, blanks left out, 0 to 100 (sacreBLEU's chrF2)."""
    rows = []
    for answer, reference in zip(answered.answers, answered.references, strict=True):
        mine, theirs = "".join(answer.split()), "".join(reference.split())
        row: list[float] = []
        for n in range(1, _ORDERS + 1):
            grams = Counter(_ngrams(mine, n)), Counter(_ngrams(theirs, n))
            mine_total = grams[0].total() if grams[1] else 0  # as sacreBLEU: no reference, no wrong n-gram
            row += [mine_total, grams[1].total(), (grams[0] & grams[1]).total()]
        rows.append(row)
    return Measured(np.array(rows, dtype=np.float64), _chrf)


def _bleu(sums: Floats) -> Floats:
    """BLEU from [..., 10]: matched and all n-grams of the answers for n = 1 to 4, both lengths in tokens.

    An order without a match counts half a match the first time, a quarter the second time, and so on
    (method 3 of Chen and Cherry, 2014); without any match, or without 4-grams at all, BLEU is 0.
    """
    matched, total, mine, theirs = sums[..., :4], sums[..., 4:8], sums[..., 8], sums[..., 9]
    empty = np.cumsum(matched == 0, axis=-1)
    precision = over(np.where(matched > 0, matched, 0.5**empty), total)
    possible = np.logical_and((total > 0).all(-1), (matched > 0).any(-1))
    logarithm = np.log(np.where(np.expand_dims(possible, -1), precision, 1.0)).mean(-1)
    brevity = np.minimum(0.0, 1 - over(theirs, mine))
    return np.where(possible, 100 * np.exp(brevity + logarithm), 0.0)


def _chrf(sums: Floats) -> Floats:
    mine, theirs, matched = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    used = (mine > 0) & (theirs > 0)
    orders = used.sum(-1)
    precision = over((over(matched, mine) * used).sum(-1), orders)
    recall = over((over(matched, theirs) * used).sum(-1), orders)
    return 100 * over((1 + _BETA**2) * precision * recall, _BETA**2 * precision + recall)


def _plain(text: str) -> str:
    bare = text.lower().translate(_PUNCTUATION).translate(_WIDE_PUNCTUATION)
    return _ARTICLES.sub(" ", bare)


def _ngrams(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]


def _chinese(texts: Sequence[str]) -> bool:
    """Whether at least one character in five is Chinese or Japanese."""
    found = sum(len(_CHARACTER.findall(text)) for text in texts)
    return 5 * found >= max(1, sum(map(len, texts)))


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics as found
    except ImportError as error:
        raise MissingPackage("sacrebleu", "BLEU of a corpus", "metrics") from error
    return found
