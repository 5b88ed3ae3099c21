"""Rows to look at: which are shown, in which order, and what was trained near the worst of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from luthier.evaluate import examples
from luthier.evaluate.examples import Trained
from luthier.measure.metrics import labels, text
from luthier.measure.types import Answered

ROWS = 12


def answered(answers: list[str], references: list[str], **more: Any) -> Answered:
    sources = tuple(f"eval.json:{i}" for i in range(1, len(answers) + 1))
    inputs = tuple(f"question {i}" for i in range(1, len(answers) + 1))
    return Answered(sources, inputs, tuple(references), tuple(answers), **more)


def numbers(rows: list[examples.Shown]) -> list[int]:
    return [int(row["source"].partition(":")[2]) for row in rows]


def test_labels_are_ordered_by_the_probability_of_the_right_one() -> None:
    right = np.linspace(0.05, 0.95, ROWS)
    scores = np.log(np.stack([right, 1 - right], axis=1)) - 3.0  # not normalised, as models give them
    written = answered(["a"] * ROWS, ["a"] * ROWS, labels=("a", "b"))
    scored = answered(["a"] * ROWS, ["a"] * ROWS, labels=("a", "b"), scores=scores)
    assert examples.probability(scored) == pytest.approx(right)
    said = {"after": {"": written, "likelihood": scored}}
    measured = {"after": {way: labels.metrics(found) for way, found in said["after"].items()}}
    found = examples.extremes("labels", said, measured)
    assert numbers(found["best"]) == [12, 11, 10, 9, 8]
    assert numbers(found["worst"]) == [1, 2, 3, 4, 5]
    worst = found["worst"][0]
    assert worst["score"] == {"after": pytest.approx(0.05)}
    assert {key: worst[key] for key in ("source", "input", "reference", "after")} == {
        "source": "eval.json:1",
        "input": "question 1",
        "reference": "a",
        "after": "a",
    }


def test_no_row_is_both_best_and_worst() -> None:
    for count in (1, 2, 5):
        said = {"before": {"": answered(["x"] * count, ["x"] * count)}}
        measured = {"before": {"": text.metrics(said["before"][""])}}
        found = examples.extremes("text", said, measured)
        assert sorted(numbers([*found["best"], *found["worst"]])) == list(range(1, count + 1))


def test_free_text_is_rated_by_how_much_of_it_is_right() -> None:
    """Not by exact match, of which all rows would have none."""
    references = ["one two three four"] * 3
    before = answered(["one two", "one two three", "zero"], references)
    after = answered(["one two three", "one two", "zero"], references)
    said = {"before": before, "after": after}
    found = examples.changed("text", said, {side: text.metrics(one) for side, one in said.items()})
    assert numbers(found["fixed"]) == [1] and numbers(found["broken"]) == [2]
    assert found["fixed"][0]["score"]["before"] < found["fixed"][0]["score"]["after"] < 1
    alone = {"after": after}
    assert examples.changed("text", alone, {"after": text.metrics(after)}) == {}


def test_fixed_and_broken_of_a_metric_whose_small_values_are_good() -> None:
    said = {side: answered(["x"] * 3, ["x"] * 3) for side in ("before", "after")}
    measured = {
        side: {"loss": text.mean(values, higher=False)}
        for side, values in (("before", [1.0, 2.0, 3.0]), ("after", [0.0, 2.0, 9.0]))
    }
    found = examples.changed("another", said, measured)
    assert numbers(found["fixed"]) == [1] and numbers(found["broken"]) == [3]


def worst(question: str, reference: str) -> examples.Shown:
    return {"source": "eval.json:1", "input": question, "reference": reference, "after": "?"}


TRAINED = [
    Trained("train.json:1", "Where is the order that I placed last week?", "logistics"),
    Trained("train.json:2", "Please delete my account", "account"),
    Trained("train.json:3", "Give me my money back", "refund"),
    Trained("train.json:4", "Where is the order that I placed?", "logistics"),
]


def test_the_worst_rows_stand_beside_the_training_rows_most_like_them() -> None:
    rows = [
        worst("Where is the order that I placed yesterday?", "refund"),
        worst("delete account", "Account."),
        worst("Where can I get money?", "credit"),  # the nearest is like it in a word only
    ]
    found, (note,) = examples.beside("labels", rows, TRAINED)
    near = found[0]["nearest"]
    assert {near[0]["source"], near[1]["source"]} == {"train.json:1", "train.json:4"}
    assert len(near) <= examples.NEAREST and near[0]["similarity"] >= near[1]["similarity"]
    assert near[0]["answer"] == "logistics" and near[0]["input"].startswith("Where is the order")
    assert [row["contradicts"] for row in found] == [True, False, False]
    assert 0 < found[2]["nearest"][0]["similarity"] < 0.5
    assert note["key"] == "training_contradicts" and "of the 3 worst rows, 1 have" in note["en"]


def test_open_answers_contradict_only_where_the_question_is_the_same() -> None:
    like = worst("Where is the order that I placed yesterday?", "It is on its way.")
    same = worst("PLEASE delete  my account", "Your account is gone.")
    found, _ = examples.beside("text", [like, same], TRAINED)
    assert [row["contradicts"] for row in found] == [False, True]


def test_without_training_rows_nothing_is_said_of_them() -> None:
    rows = [worst("a", "b")]
    assert examples.beside("labels", rows, []) == (rows, [])
    nothing, notes = examples.beside("labels", [worst("%%%%", "b")], TRAINED)
    assert nothing[0]["nearest"] == [] and not nothing[0]["contradicts"] and notes == []
