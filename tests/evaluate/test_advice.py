"""Figures -> advice: the rules of `luthier.evaluate.advice`, with literal figures."""

import math
from dataclasses import replace
from typing import Any

import pytest

from luthier.evaluate import documents
from luthier.evaluate.advice import Case, Examples, advise
from luthier.evaluate.documents import Facts
from luthier.measure.tasks import Asked


def figure(before: float, after: float, low: float, high: float, verdict: str = "") -> dict[str, Any]:
    words = verdict or ("improved" if low > 0 else "regressed" if high < 0 else "no evidence")
    numbers = {"before": before, "after": after, "delta": after - before, "low": low, "high": high}
    return {**numbers, "n": 400, "verdict": words, "higher": True}


def case(**changes: Any) -> Case:
    return replace(Case("labels", "accuracy", 400, (0.1, 0.08, 0.13)), **changes)


def shown(before: float, after: float, against: dict[str, Any] | None = None) -> Examples:
    return Examples(
        4, "retrieved", 212.4, figure(before, after, after - before - 0.03, after - before + 0.03), against
    )


def keys(case: Case) -> list[str]:
    return [one["key"] for one in advise(case)]


GAINED = figure(0.1, 0.9, 0.76, 0.84)
NOTHING = figure(0.1, 0.11, -0.02, 0.04)


def test_a_clear_improvement_was_worth_it_and_the_amount_is_said() -> None:
    (alone,) = advise(case(tuned=GAINED))
    assert alone["key"] == "advice_worth"
    assert "accuracy 10.0 % -> 90.0 % (difference 76.0 % to 84.0 %, 400 rows)" in alone["en"]
    assert "not asked -> --shots 4" in alone["en"]
    against = figure(0.7, 0.9, 0.17, 0.23)
    (beyond,) = advise(case(tuned=GAINED, examples=shown(0.1, 0.7, against)))
    assert beyond["key"] == "advice_worth_beyond"
    assert (
        "more than 4 retrieved examples in the prompt bring (70.0 %; tuning is ahead by 17.0 % to 23.0 %)"
        in (beyond["en"])
    )
    assert "超过在提示中放 4 个检索到的示例的效果（70.0 %" in beyond["zh"]


@pytest.mark.parametrize(
    ("low", "high", "key"),
    [
        (-0.02, 0.03, "advice_examples_suffice"),
        (0.0, 0.04, "advice_examples_suffice"),
        (0.001, 0.04, "advice_worth_beyond"),
        (-0.05, -0.01, "advice_examples_better"),
    ],
)
def test_the_interval_of_tuned_minus_examples_decides(low: float, high: float, key: str) -> None:
    against = figure(0.89, 0.9, low, high)
    (found,) = advise(case(tuned=GAINED, examples=shown(0.1, 0.89, against)))
    assert found["key"] == key
    assert key == "advice_worth_beyond" or "212 more prompt tokens a question" in found["en"]


def test_a_base_at_the_ceiling_has_nothing_to_gain() -> None:
    right = case(base=(0.97, 0.95, 0.98))
    (before,) = advise(right)
    assert before["key"] == "advice_not_needed"
    assert "accuracy 97.0 % (95.0 % to 98.0 %, 400 rows); at most 3.0 % is left" in before["en"]
    (after,) = advise(replace(right, tuned=figure(0.97, 0.975, -0.01, 0.02)))
    assert after["key"] == "advice_ceiling"
    assert keys(replace(right, tuned=figure(0.97, 0.995, 0.01, 0.04))) == ["advice_worth"]


def test_no_evidence_comes_with_what_to_look_at() -> None:
    assert keys(case(tuned=NOTHING)) == ["advice_no_evidence", "advice_cause_settings"]
    found = advise(case(tuned=NOTHING, trained=120, cut=0.31, examples=shown(0.1, 0.5)))
    assert [one["key"] for one in found] == [
        *("advice_no_evidence", "advice_examples_help", "advice_cause_rows", "advice_cause_cut"),
        "advice_cause_settings",
    ]
    assert (
        "only 120 training rows" in found[2]["en"] and "31 % of the tuned answers were cut" in found[3]["en"]
    )
    assert keys(case(tuned=NOTHING, trained=200, cut=0.04))[1:] == ["advice_cause_settings"]
    assert keys(case(tuned=figure(0.5, 0.4, -0.12, -0.08)))[0] == "advice_worse"


def test_damage_is_said_in_the_same_breath() -> None:
    lost = figure(0.6, 0.4, -0.3, -0.1)
    worse = {**figure(12.0, 15.5, 3, 4, "regressed"), "higher": False}
    damage = (("suite.arithmetic", "arithmetic", lost), ("general_text.perplexity", "perplexity", worse))
    (found,) = advise(case(tuned=GAINED, damage=damage))
    assert found["key"] == "advice_worth"
    ending = "suite.arithmetic 60.0 % -> 40.0 %, general_text.perplexity 12.000 -> 15.500"
    assert found["en"].startswith("fine-tuning was worth it: ")
    assert found["en"].endswith(f"; but general abilities suffered: {ending}")
    assert found["zh"].endswith(f"；但通用能力受损：{ending}")


def test_before_training_a_base_near_zero_looks_worth_tuning() -> None:
    near_zero = case(base=(0.02, 0.01, 0.04), chance=1 / 16)
    assert keys(near_zero) == ["advice_looks_worth", "advice_no_examples"]
    found = advise(replace(near_zero, examples=shown(0.02, 0.3)))
    assert [one["key"] for one in found] == ["advice_looks_worth", "advice_examples_bring"]
    assert (
        "accuracy is 30.0 % at best; the base alone reaches 2.0 % (1.0 % to 4.0 %, 400 rows)"
        in found[0]["en"]
    )
    assert keys(replace(near_zero, examples=shown(0.02, 0.7)))[0] == "advice_may_be_worth"
    assert keys(replace(near_zero, examples=shown(0.02, 0.93))) == ["advice_examples_first"]


def test_half_right_of_two_labels_is_chance_and_of_many_is_not() -> None:
    half = case(base=(0.55, 0.51, 0.59))
    assert keys(replace(half, chance=1 / 2))[0] == "advice_looks_worth"
    assert keys(replace(half, chance=1 / 50))[0] == "advice_may_be_worth"


def test_free_text_before_training_says_that_it_cannot_be_told() -> None:
    text = case(kind="text", metric="token_f1", base=(0.2, 0.18, 0.22))
    assert keys(text) == ["advice_text", "advice_no_examples"]
    assert keys(case(kind="perplexity", metric="perplexity", base=(20.0, 18.0, 22.0))) == []


def test_facts_ask_for_documents() -> None:
    facts = Facts(n=400, asks=0.9, rows=0.8, in_question=0.1, in_nearest=0.7, near=0.4)
    text = case(kind="text", metric="token_f1", base=(0.2, 0.18, 0.22), facts=facts)
    near = advise(replace(text, examples=shown(0.2, 0.8)))
    assert [one["key"] for one in near] == ["advice_documents_near"]
    assert "80 % of 400 answers hold names or numbers" in near[0]["en"]
    assert "70 % of these stand in the answers of the most similar training rows" in near[0]["en"]
    nowhere = replace(text, facts=replace(facts, in_nearest=0.05), examples=shown(0.2, 0.25))
    assert keys(nowhere) == ["advice_documents_nowhere"]
    assert keys(replace(text, facts=replace(facts, in_nearest=None, near=None))) == [
        "advice_documents",
        "advice_no_examples",
    ]
    learnt = {**figure(0.2, 0.4, 0.15, 0.25)}
    assert keys(replace(nowhere, tuned=learnt, examples=None)) == ["advice_worth", "advice_documents_nowhere"]


@pytest.mark.parametrize("changes", [{"asks": 0.4}, {"rows": 0.4}])
def test_no_documents_where_nobody_asks_or_nothing_is_unknown(changes: dict[str, float]) -> None:
    facts = Facts(n=400, asks=0.9, rows=0.8, in_question=0.1, in_nearest=0.05, near=0.4)
    text = case(kind="text", metric="token_f1", base=(0.2, 0.18, 0.22), facts=replace(facts, **changes))
    assert keys(text)[0] == "advice_text"
    well = replace(text, facts=facts, base=(0.6, 0.58, 0.62))
    assert keys(well)[0] == "advice_text"
    assert keys(replace(text, facts=facts, examples=shown(0.2, 0.6)))[0] == "advice_text"


def test_few_rows_are_said() -> None:
    found = advise(case(n=20, tuned={**figure(0.1, 0.3, -0.1, 0.5), "n": 20}))
    assert found[-1]["en"] == (
        "20 rows tell only large differences: the interval is 30.0 % to either side -> more rows to evaluate"
    )
    assert "advice_small" not in keys(
        case(base=(math.nan, math.nan, math.nan), kind="text", metric="token_f1")
    )


def test_the_facts_of_an_answer() -> None:
    assert documents.words("The Fjord2 was built by Anna Berg in 1987. Then it drew 3.5 kW.") == {
        *("fjord2", "anna", "berg", "1987", "3.5", "kw")
    }
    assert documents.words("鲁迅在《呐喊》里写了14篇小说") == {"呐喊", "14"}
    assert documents.words("张伟") == {"张伟"}
    assert documents.words("Yes, you can return it tomorrow.") == set()


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Who built it?", True),
        ("name the capital of Peru", True),
        ("珠穆朗玛峰的高度是多少", True),
        ("Write a poem about rain.", False),
        ("请把下面的句子翻译成英文：今天天气很好。", False),
    ],
)
def test_which_questions_ask_for_a_fact(question: str, asked: bool) -> None:
    assert documents.asks(question) is asked


def test_facts_are_counted_in_questions_and_in_the_nearest_training_rows() -> None:
    rows = [Asked(f"How heavy is the Mule{i}?", f"The Mule{i} weighs {1000 + i} kg.") for i in range(20)]
    trained = [Asked(f"What does the Mule{i} weigh?", f"{1000 + i} kg") for i in range(10)]
    found = documents.facts(rows, trained)
    assert found is not None
    assert (found.n, found.asks, found.rows, found.in_question, found.in_nearest) == (20, 1.0, 1.0, 0.5, 0.5)
    alone = documents.facts(rows)
    assert alone is not None and alone.in_nearest is alone.near is None
    assert documents.facts(rows[:19]) is None


def test_words_of_many_answers_are_no_facts_and_13_is_not_in_137() -> None:
    rows = [
        Asked("When is the shop open?" + "!" * i, f"In Berlin at 13, number {137 + i}.") for i in range(40)
    ]
    found = documents.facts(rows, [Asked("When is the shop open?", "137137")])
    assert found is not None and (found.rows, found.in_question, found.in_nearest) == (1.0, 0.0, 0.0)
