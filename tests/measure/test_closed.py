from luthier.measure import closed


def test_recurring_short_answers_are_a_closed_set() -> None:
    assert closed.labels(["a", "b", "a", "b", "a", "typo"]) == ("a", "b")
    assert closed.labels(["yes"] * 9) is None
    assert closed.labels([f"an answer {i}" for i in range(9)]) is None
    assert closed.labels(["x\ny", "x\ny", "z", "z"]) is None
    assert closed.labels(["x" * 61] * 3 + ["z"] * 3) is None
    assert closed.labels([" "] * 3 + ["z"] * 3) is None
    assert closed.labels([]) is None


def test_labels_cover_most_of_the_rows() -> None:
    assert closed.labels(["a"] * 4 + ["b"] * 4 + ["c", "d"]) == ("a", "b")
    assert closed.labels(["a"] * 4 + ["b"] * 3 + ["c", "d", "e"]) is None
