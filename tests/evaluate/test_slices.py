"""Slices: which rows are in which, what is judged in each, and what is said of those that got worse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from luthier.evaluate import slices
from luthier.evaluate.sets import Set
from luthier.infer.questions import Question
from luthier.measure.metrics import mean, micro_f1, perplexity
from luthier.measure.tasks import Asked, Kind, Task
from luthier.types import Example

FIGURE = {"n", "metric", "before", "after", "delta", "low", "high", "verdict"}


def made(kind: Kind, rows: Sequence[tuple[str, str]], lengths: Sequence[int] = (), name: str = "eval") -> Set:
    """A data set of (question, answer), with prompts of these many tokens."""
    sizes = lengths or [1] * len(rows)
    questions = tuple(
        Question([0] * size, answer, f"eval.json:{i}", Example(()), name)
        for i, ((_, answer), size) in enumerate(zip(rows, sizes, strict=True), 1)
    )
    labels = tuple(dict.fromkeys(answer for _, answer in rows)) if kind == "labels" else ()
    return Set(name, Task(kind), questions, tuple(Asked(q, a) for q, a in rows), labels)


def test_each_row_is_in_one_quarter_of_the_lengths() -> None:
    lengths = [9, 1, 2, 3, 4, 5, 6, 7, 8, 40, 41, 42]
    one = made("text", [(f"q{i}", "a") for i in range(12)], lengths)
    right = np.arange(12) % 2.0
    found = slices.slices(one, {"after": {"exact_match": mean(right), "token_f1": mean(1 - right)}}, 0)
    assert set(found["slices"]) == {"length"}
    parts = found["slices"]["length"]
    assert list(parts) == ["1 to 3 tokens", "4 to 6 tokens", "7 to 9 tokens", "40 to 42 tokens"]
    assert [part["n"] for part in parts.values()] == [3, 3, 3, 3]
    assert {part["metric"] for part in parts.values()} == {"token_f1"}
    assert parts["1 to 3 tokens"]["after"] == pytest.approx(np.mean(1 - right[[1, 2, 3]]))
    assert parts["1 to 3 tokens"]["before"] is None and parts["1 to 3 tokens"]["verdict"] is None


def test_equal_rows_are_no_slices() -> None:
    one = made("text", [("the same", "a")] * 6)
    assert slices.slices(one, {"after": {"token_f1": mean(np.ones(6))}}, 0) == {}


def test_classes_are_the_right_labels_and_no_more_than_twenty() -> None:
    answers = [f"label {i % 25}" for i in range(60)]
    one = made("labels", [(f"q {i}", answer) for i, answer in enumerate(answers)])
    found = slices.slices(one, {"after": {"accuracy": mean(np.ones(60))}}, 0)["slices"]["class"]
    assert len(found) == slices.CLASSES
    assert list(found)[:10] == [f"label {i}" for i in range(10)]  # three rows each; the others have two
    assert [part["n"] for part in found.values()] == [3] * 10 + [2] * 10


def test_calls_are_divided_by_the_tool_that_is_right() -> None:
    call = '{"name": "weather", "arguments": {"city": "Bern"}}'
    one = made("calls", [("a", call), ("b", "No tool can do that."), ("c", call)])
    found = slices.slices(one, {"after": {"call_match": mean([1.0, 0.0, 1.0])}}, 0)["slices"]["class"]
    assert {name: (part["n"], part["after"]) for name, part in found.items()} == {
        "weather": (2, 1.0),
        slices.NO_CALL: (1, 0.0),
    }
    assert found[slices.NO_CALL]["high"] is not None


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("我的 iPhone 订单在哪里？", slices.HAN),
        ("Where is my order?", slices.LATIN),
        ("Où est ma commande ?", slices.LATIN),
        ("注文はどこですか", slices.OTHER),
        ("Где мой заказ?", slices.OTHER),
        ("주문 order", slices.LATIN),
        ("12345", slices.OTHER),
    ],
)
def test_scripts(text: str, script: str) -> None:
    assert slices.script(text) == script


def test_the_words_that_all_questions_share_do_not_decide_their_script() -> None:
    instruction = "Which of these ten intents does the following sentence of a customer have?\n"
    one = made("text", [(instruction + text, "a") for text in ("订单在哪", "where is it", "退款")])
    found = slices.slices(one, {"after": {"token_f1": mean([1.0, 0.0, 1.0])}}, 0)["slices"]["language"]
    assert {name: part["n"] for name, part in found.items()} == {slices.HAN: 2, slices.LATIN: 1}


def test_a_slice_that_got_worse_while_the_whole_got_better_is_told() -> None:
    rows = [("订单", "物流")] * 30 + [("where", "物流")] * 90
    before, after = np.zeros(120), np.ones(120)
    before[:30], after[:30] = 1, 0
    one = made("labels", rows)
    sides = {"before": {"accuracy": mean(before)}, "after": {"accuracy": mean(after)}}
    found = slices.slices(one, sides, 0)
    worse, better = (found["slices"]["language"][name] for name in (slices.HAN, slices.LATIN))
    assert set(worse) >= FIGURE
    assert (worse["before"], worse["after"], worse["verdict"]) == (1.0, 0.0, "regressed")
    assert better["verdict"] == "improved"
    (note,) = found["notes"]
    assert note["key"] == "slice_regressed" and "30 rows" in note["en"] and slices.HAN in note["zh"]
    undone = {"before": sides["after"], "after": sides["before"]}
    assert slices.slices(one, undone, 0)["notes"] == []  # the whole regressed, so a slice is no surprise


def test_many_slices_are_corrected_together() -> None:
    """Six changes for the better in one of eight classes: enough by themselves, too few among eight."""
    rows = [(f"q{i}", f"label {i % 8}") for i in range(320)]
    before, after = np.zeros(320), np.zeros(320)
    after[np.arange(6) * 8] = 1
    one = made("labels", rows)
    sides = {"before": {"accuracy": mean(before)}, "after": {"accuracy": mean(after)}}
    found = slices.slices(one, sides, 0)["slices"]["class"]
    assert found["label 0"]["p"] < 0.04 and found["label 0"]["corrected"] > 0.04
    assert {part["verdict"] for part in found.values()} == {"no evidence"}


def test_metrics_of_sums_have_slices_too() -> None:
    counts = [(1.0, 1.0, 1.0), (0.0, 1.0, 3.0), (2.0, 2.0, 2.0), (0.0, 0.0, 1.0)]
    one = made("extraction", [("订", "{}"), ("订单", "{}"), ("order", "{}"), ("ten", "{}")])
    found = slices.slices(one, {"after": {"field_f1": micro_f1(counts)}}, 0)["slices"]["language"]
    assert found[slices.HAN]["after"] == pytest.approx(2 / 6)
    assert found[slices.LATIN]["after"] == pytest.approx(4 / 5)
    texts = made("perplexity", [("", "a" * n) for n in (10, 20, 30, 40)])
    losses = {"after": {"perplexity": perplexity.measured([-2.0, -4.0, -6.0, -8.0], [1, 2, 3, 4])}}
    lengths = slices.slices(texts, losses, 0)["slices"]["length"]
    assert list(lengths) == [f"{n} to {n} characters" for n in (10, 20, 30, 40)]
    assert [part["after"] for part in lengths.values()] == pytest.approx([np.exp(2)] * 4)
    assert all(part["low"] is None for part in lengths.values())  # one row has no interval


def test_data_sets_of_one_kind_stand_side_by_side() -> None:
    first, second = (made("labels", [("q", "a"), ("r", "b")] * 10, name=name) for name in ("one", "two"))
    other = made("text", [("q", "a")], name="other")
    sides = [
        {"before": {"accuracy": mean(np.zeros(20))}, "after": {"accuracy": mean(np.full(20, value))}}
        for value in (1.0, 0.0)
    ]
    text = {"before": {"token_f1": mean([0.0])}, "after": {"token_f1": mean([1.0])}}
    found = slices.by_dataset([(first, sides[0]), (second, sides[1]), (other, text)], 0)
    assert set(found) == {"one", "two"} and found["one"] == found["two"]
    assert [part["verdict"] for part in found["one"].values()] == ["improved", "no evidence"]
    assert found["one"]["two"]["after"] == 0.0
