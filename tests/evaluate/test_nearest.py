"""Retrieval over known texts: the obviously nearest is found, in any language, in known order."""

import math
import random

import numpy as np
import pytest

from luthier.evaluate import nearest
from luthier.evaluate.nearest import Index

TEXTS = (
    "Where is my card?",
    "I want my money back for the last order",
    "请问我的订单什么时候到？",
    "Wie kann ich mein Konto schließen?",
    "請問如何申請退款",
)


def test_the_nearest_is_found_in_each_language() -> None:
    asked = ["my CARD, where is it", "money back!", "我的订单到哪里了", "Konto schliessen", "申請退款"]
    found = Index(TEXTS).nearest(asked, 2)
    assert [one[0][0] for one in found] == [0, 1, 2, 3, 4]
    assert all(1 >= one[0][1] > one[1][1] >= 0 for one in found)


def test_a_text_is_its_own_nearest_whatever_its_case_width_and_blanks() -> None:
    found = Index(TEXTS).nearest([*TEXTS, "  where IS my\ncard？"], 1)
    assert [place for ((place, _),) in found] == [0, 1, 2, 3, 4, 0]
    assert all(math.isclose(similarity, 1, abs_tol=1e-6) for ((_, similarity),) in found)


def test_nothing_in_common_is_zero_and_the_order_is_that_of_the_texts() -> None:
    assert Index(["abc", "abd", "xyz"]).nearest(["qqq", ""], 5) == [[(0, 0.0), (1, 0.0), (2, 0.0)]] * 2
    assert [place for place, _ in Index(["ab", "no", "ab", "ab"]).nearest(["ab"], 2)[0]] == [0, 2]


def test_the_cosine_of_two_short_texts_by_hand() -> None:
    """Of the five n-grams of " ab " and of " ac " only " a" is in both."""
    ((_, (place, similarity)),) = Index(["ab", "ac"]).nearest(["ab"], 2)
    both, own = math.log(1 + 2 / 2) ** 2, math.log(1 + 2 / 1) ** 2
    assert place == 1 and math.isclose(similarity, both / (both + 4 * own), rel_tol=1e-5)


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_no_texts_at_all(texts: list[str]) -> None:
    assert Index(texts).nearest(["a", "b"], 1) == [[(0, 0.0)][: len(texts)]] * 2
    assert Index(texts).nearest([], 1) == []
    assert Index(TEXTS).nearest(["a"], 0) == [[]]


def test_frequent_n_grams_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    words = "card order refund account 订单 退款 please where is the my".split()
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(300)]
    with monkeypatch.context() as patch:
        patch.setattr(nearest, "_DENSE", 0)
        lists = Index(texts).nearest(texts, 5)
    monkeypatch.setattr(nearest, "_BATCH", 64)
    matrix = Index(texts).nearest(texts, 5)
    similar = np.array([[s for _, s in one] for one in (*lists, *matrix)])
    assert np.allclose(similar[:300], similar[300:], atol=1e-6)
    assert all(texts[one[0][0]] == text for one, text in zip(matrix, texts, strict=True))


def test_a_very_long_text_keeps_few_n_grams() -> None:
    draw = random.Random(1)
    long = ["".join(draw.choices("abcdefghij klmnop", k=100_000)) for _ in range(3)]
    index = Index([*long, "short text"])
    assert len(index._rows) + np.count_nonzero(index._dense) <= 4 * nearest._GRAMS
    assert [one[0][0] for one in index.nearest(long, 1)] == [0, 1, 2]
