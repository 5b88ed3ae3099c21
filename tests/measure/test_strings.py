"""Scores of literal texts, and equality with the packages whose numbers LLaMA-Factory reports."""

import random

import pytest

from luthier.measure import strings

LETTERS = [
    *"体育新闻分类我们。！？?.…”’ab c\n,，0",
    "......",
    "……",
    "今天天气很好。",
    "hello world",
    "\n\n",
    "。 \n 你",
]


def lf(predict: str, label: str) -> dict[str, float]:
    """What LLaMA-Factory computes for one row, with the packages it uses."""
    jieba = pytest.importorskip("jieba")
    rouge_chinese = pytest.importorskip("rouge_chinese")
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    scores = {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0}
    texts = " ".join(jieba.cut(predict)), " ".join(jieba.cut(label))
    if all(text.split() for text in texts):
        found = rouge_chinese.Rouge().get_scores(*texts)[0]
        scores = {name: round(value["f"] * 100, 4) for name, value in found.items()}
    smooth = bleu.SmoothingFunction().method3
    value = bleu.sentence_bleu([list(label)], list(predict), smoothing_function=smooth)
    return {**scores, "bleu-4": round(value * 100, 4)}


def test_equal_to_the_packages_on_random_texts() -> None:
    draw = random.Random(3)
    for _ in range(600):
        label = "".join(draw.choices(LETTERS, k=draw.randrange(15)))
        other = "".join(draw.choices(LETTERS, k=draw.randrange(15)))
        predict = draw.choice([label[draw.randrange(3) :], other])
        assert {**strings.rouge(predict, label), "bleu-4": strings.bleu_4(predict, label)} == lf(
            predict, label
        )


def test_a_right_short_label_scores_as_in_llama_factory() -> None:
    assert strings.rouge("体育", "体育") == {"rouge-1": 100.0, "rouge-2": 0.0, "rouge-l": 100.0}
    assert strings.bleu_4("体育", "体育") == 59.4604  # (1 * 1 * 1/2 * 1/4) ** (1/4)
    assert strings.bleu_4("是", "是") == 35.3553  # (1 * 1/2 * 1/4 * 1/8) ** (1/4)


def test_empty_texts_score_nothing() -> None:
    assert (
        strings.rouge("", "体育") == strings.rouge("体育", " ") == {"rouge-1": 0, "rouge-2": 0, "rouge-l": 0}
    )
    assert strings.bleu_4("", "体育") == strings.bleu_4("体育", "") == 0


def test_characters_stand_in_for_words_without_jieba(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "jieba", None)
    strings.word_cutter.cache_clear()
    try:
        assert strings.word_cutter()[1] == "characters"
        assert strings.rouge("体育", "体操")["rouge-1"] == 50.0
    finally:
        strings.word_cutter.cache_clear()


@pytest.mark.parametrize(
    ("a", "b", "length"),
    [("", "abc", 0), ("abcbdab", "bdcaba", 4), ("aaa", "aa", 2), ("x" * 100 + "y", "yx", 1)],
)
def test_longest_common_subsequence(a: str, b: str, length: int) -> None:
    assert strings.lcs_length(a, b) == strings.lcs_length(b, a) == length


def test_a_closed_set_has_accuracy_and_macro_f1() -> None:
    labels = ["体育", "体育", "科技", "科技", "Sport", "sport"]
    predicts = ["体育", "科技", "科技", "汽车", "SPORT.", " sport "]
    found = strings.closed_set(predicts, labels)
    assert found is not None
    assert found.labels == ("sport", "体育", "科技")
    assert found.accuracy == 4 / 6
    assert found.outside == 1 / 6
    # precision and recall: sport 1, 1 · 体育 1, 1/2 · 科技 1/2, 1/2
    assert found.macro_f1 == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize(
    "labels",
    [["a", "b", "c", "d"], ["a", "a", "a"], ["a\nb", "a\nb", "c", "c"], ["x" * 61, "y", "x" * 61, "y"]],
    ids=["none recurs", "only one", "several lines", "long"],
)
def test_free_text_is_no_closed_set(labels: list[str]) -> None:
    assert strings.closed_set(labels, labels) is None
    assert "accuracy" not in strings.score(labels, labels)


def test_scores_are_means_over_rows() -> None:
    scores = strings.score(["体育", "科技", "体育", "财经"], ["体育", "科技", "科技", "体育"])
    assert scores["exact_match"] == scores["accuracy"] == 0.5
    assert scores["rouge-1"] == 50.0
    assert scores["bleu-4"] == pytest.approx(59.4604 / 2)
    assert strings.score([], []) == {}
