import pytest

from luthier.prepare import leakage
from luthier.prepare.exact import Ref

pytest.importorskip("rensa")
pytest.importorskip("jieba")

QUESTION = "How do I change the address that is printed on my monthly statement?"
OTHER = "Why was my card declined at the petrol station yesterday evening?"


def test_equal_and_similar_rows_leak() -> None:
    found = leakage.leaks(
        [OTHER, QUESTION, "Where is it?"],
        [
            QUESTION.upper(),
            "Something new",
            QUESTION.replace("address", "adress"),
            QUESTION.replace("?", " ?"),
        ],
        ["train.json:1", "train.json:2", "train.json:3"],
        ["eval.json:1", "eval.json:2", "eval.json:3", "eval.json:4"],
    )
    assert [(leak.evaluation.source, leak.train.source) for leak in found] == [
        ("eval.json:1", "train.json:2"),
        ("eval.json:3", "train.json:2"),
        ("eval.json:4", "train.json:2"),
    ]
    assert found[0].similarity == 1.0 and 0.8 < found[1].similarity < 1


def test_repetition_inside_one_side_is_no_leak() -> None:
    assert leakage.leaks([QUESTION, QUESTION + "!"], [OTHER, OTHER]) == []
    assert leakage.leaks([], [OTHER]) == [] and leakage.leaks([OTHER], []) == []


def test_every_repetition_of_a_leaked_row_is_named() -> None:
    found = leakage.leaks([QUESTION], [QUESTION + "!", QUESTION + "!", QUESTION])
    assert [leak.evaluation.index for leak in found] == [0, 1, 2]


def test_contradictions_equal_and_similar() -> None:
    inputs = [QUESTION, OTHER, QUESTION.lower(), OTHER + "!", "Where is it?", "Where is it? "]
    answers = ["address", "declined", "statement", "fees", "place", "Place "]
    found = leakage.contradictions(inputs, answers, [f"f:{i}" for i in range(1, 7)])
    assert [[(r.source, a) for r, a in zip(c.rows, c.answers, strict=True)] for c in found] == [
        [("f:1", "address"), ("f:3", "statement")],
        [("f:2", "declined"), ("f:4", "fees")],
    ]
    assert found[0].similarity == 1.0 and found[1].similarity < 1
    equal = leakage.contradictions(inputs, answers, threshold=None)
    assert [c.rows for c in equal] == [(Ref(0, "row 1"), Ref(2, "row 3"))]
