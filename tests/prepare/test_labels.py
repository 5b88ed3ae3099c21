import pytest

from luthier.prepare import labels


def test_balance() -> None:
    found = labels.balance(["a"] * 30 + ["b"] * 10 + ["c"] * 5)
    assert [(c.label, c.count, c.rare) for c in found.classes] == [
        ("a", 30, False),
        ("b", 10, False),
        ("c", 5, True),
    ]
    assert found.ratio == 6.0
    assert found.evenness == pytest.approx(0.7725, abs=1e-4)
    assert labels.balance(["a", "b"]).evenness == pytest.approx(1.0)
    assert labels.balance(["a"]) == labels.Balance((labels.Class("a", 1, 1.0, True),), 1.0, 1.0)


def test_almost_labels() -> None:
    answers = ["体育"] * 40 + ["财经"] * 30 + ["科技"] * 30
    strange = ["体育 ", "体 育。", "Sports", "类别：财经", "ＩＴ", "其他"]
    found = labels.almost([*answers, *strange], [f"f:{i}" for i in range(1, 107)])
    assert [(a.answer, a.label, a.why, [r.source for r in a.rows]) for a in found] == [
        ("体育 ", "体育", "form", ["f:101"]),
        ("体 育。", "体育", "form", ["f:102"]),
        ("Sports", "", "script", ["f:103"]),
        ("类别：财经", "财经", "wrapped", ["f:104"]),
        ("ＩＴ", "", "script", ["f:105"]),
    ]


@pytest.mark.parametrize(
    ("answer", "label", "why"),
    [
        ("card_arival", "card_arrival", "spelling"),
        ("card_arrivla", "card_arrival", "spelling"),
        ("Card Arrival", "card_arrival", "form"),
        ("card-arrival", "card_arrival", "form"),
        ("the answer is card_arrival", "card_arrival", "wrapped"),
    ],
)
def test_almost_english_labels(answer: str, label: str, why: str) -> None:
    answers = ["card_arrival"] * 30 + ["lost_card"] * 30 + [answer]
    assert [(a.answer, a.label, a.why) for a in labels.almost(answers)] == [(answer, label, why)]


def test_labels_that_only_look_alike_are_left_alone() -> None:
    answers = ["C++", "C#", "C", "1", "-1", "12", "体育", "教育"] * 10
    assert labels.almost(answers) == []
    assert labels.almost(["yes"] * 20 + ["no"] * 20 + ["maybe"]) == []
    assert labels.almost([f"free text {i}" for i in range(50)]) == []


def test_a_variant_of_a_variant_is_the_label_itself() -> None:
    answers = ["card_arrival"] * 30 + ["lost_card"] * 30 + ["card_arival"] * 2 + ["Card arival"]
    assert labels.variants(answers) == {
        "Card arival": ("card_arrival", "form"),
        "card_arival": ("card_arrival", "spelling"),
    }
