"""Free text: equal to sacreBLEU and rouge-chinese on random texts, to hand-made numbers on literal ones."""

import re
import string
from collections import Counter

import numpy as np
import pytest

from luthier.errors import MissingPackage
from luthier.measure.metrics import text
from luthier.measure.types import Answered

ZH = [*"今天天气很好我们去公园吧不错，。", "ab", "12", " "]
EN = ["the ", "cat ", "sat", " on", " a mat", ". ", "it's ", "3.5 ", "Dogs, ", "\n"]


def answered(pairs: list[tuple[str, str]]) -> Answered:
    answers, references = zip(*pairs, strict=True)
    sources = tuple(f"eval.json:{i + 1}" for i in range(len(pairs)))
    return Answered(sources, sources, references, answers)


def drawn(seed: int, pieces: list[str], n: int, longest: int = 18) -> list[tuple[str, str]]:
    """Answers that are a reference with some pieces changed; some are empty."""
    draw = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        reference = draw.choice(pieces, draw.integers(1, longest)).tolist()
        answer = [draw.choice(pieces) if draw.random() < 0.4 else piece for piece in reference]
        pairs.append(("".join(answer[draw.integers(0, 3) :]), "".join(reference)))
    return pairs


@pytest.mark.parametrize("pieces", [ZH, EN], ids=["zh", "en"])
@pytest.mark.parametrize(("n", "longest"), [(60, 18), (8, 5), (3, 2)])
def test_bleu_and_chrf_equal_sacrebleu(pieces: list[str], n: int, longest: int) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    tokenize = "zh" if pieces is ZH else "13a"
    for seed in range(12):
        pairs = drawn(seed, pieces, n, longest)
        answers, references = map(list, zip(*pairs, strict=True))
        task = answered(pairs)
        theirs = sacrebleu.corpus_bleu(answers, [references], tokenize=tokenize).score
        assert text.sacrebleu(task).value == pytest.approx(theirs, abs=1e-9)
        assert text.chrf(task).value == pytest.approx(
            sacrebleu.corpus_chrf(answers, [references]).score, abs=1e-9
        )


def test_bleu_of_chinese_is_not_zero() -> None:
    pytest.importorskip("sacrebleu")
    task = answered([("今天天气很好，我们去公园", "今天天气很好，我们去公园玩")])
    assert text.sacrebleu(task).value > 80


def test_many_sums_at_once_equal_one_by_one() -> None:
    pytest.importorskip("sacrebleu")
    task = answered(drawn(1, ZH, 30))
    for measured in text.metrics(task).values():
        sums = np.stack([measured.rows[:k].sum(0) for k in (1, 2, 5, 30)])
        alone = [float(measured.of(row)) for row in sums]
        assert measured.of(sums).tolist() == pytest.approx(alone, abs=1e-12)


def test_rouge_equals_rouge_chinese_over_jieba() -> None:
    jieba, package = pytest.importorskip("jieba"), pytest.importorskip("rouge_chinese")
    pytest.importorskip("sacrebleu")
    pairs = [p for p in drawn(3, ZH[:-1], 40) if all(t.strip() for t in p)]
    cut = [[" ".join(jieba.cut(t)) for t in pair] for pair in pairs]
    theirs = [package.Rouge().get_scores(*pair)[0] for pair in cut]
    found = text.metrics(answered(pairs))
    for name in ("rouge-1", "rouge-2", "rouge-l"):
        mean = sum(round(row[name]["f"] * 100, 4) for row in theirs) / len(pairs)
        assert found[name].value == pytest.approx(mean, abs=1e-9)


def squad(answer: str, reference: str) -> float:
    """F1 as SQuAD's evaluation defines it, for English."""

    def words(value: str) -> list[str]:
        bare = "".join(c for c in value.lower() if c not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", bare).split()

    mine, theirs = words(answer), words(reference)
    same = sum((Counter(mine) & Counter(theirs)).values())
    if not mine or not theirs:
        return float(mine == theirs)
    if same == 0:
        return 0.0
    precision, recall = same / len(mine), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


def test_token_f1_is_that_of_squad() -> None:
    for answer, reference in drawn(5, EN, 300):
        assert text.token_f1(answer, reference) == pytest.approx(squad(answer, reference), abs=1e-12)


def test_token_f1_of_chinese_counts_characters() -> None:
    assert text.token_f1("上海市。", "上海") == pytest.approx(2 * 2 / 5)
    assert text.token_f1("在 Paris", "在paris") == 1.0
    assert text.token_f1("", "") == 1.0 and text.token_f1("", "上海") == 0.0


def test_variety_and_length() -> None:
    pytest.importorskip("sacrebleu")
    assert text.distinct([list("abab")], 1) == 0.5
    assert text.distinct([list("abab")], 2) == pytest.approx(2 / 3)  # ab, ba, ab
    assert text.distinct([["a"], ["a"], ["b"]], 1) == pytest.approx(2 / 3)
    assert text.repetition(list("我我我我我我")) == pytest.approx(1 - 1 / 3)
    assert text.repetition(list("abc")) == 0.0
    task = answered([("四个汉字", "四个汉字"), ("", "ab"), ("abcdef", "ab")])
    found = text.metrics(task)
    assert found["length_gap"].value == 2.0 and not found["length_gap"].higher
    assert found["exact_match"].value == pytest.approx(1 / 3)
    assert text.lengths(task) == {"answers": pytest.approx(10 / 3), "references": pytest.approx(8 / 3)}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(MissingPackage, match=r"sacrebleu.*luthier\[metrics\]"):
        text.sacrebleu(answered([("a", "b")]))
