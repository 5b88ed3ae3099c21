from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.prepare.split import split

SHARES = {"train": 0.8, "eval": 0.1, "test": 0.1}


def test_each_class_in_proportion() -> None:
    classes = ["a"] * 100 + ["b"] * 50 + ["c"] * 10
    found = split(SHARES, classes)
    counts = {part: Counter(classes[i] for i in rows) for part, rows in found.parts.items()}
    assert counts == {
        "train": {"a": 80, "b": 40, "c": 8},
        "eval": {"a": 10, "b": 5, "c": 1},
        "test": {"a": 10, "b": 5, "c": 1},
    }
    assert found.deviation == pytest.approx(0)


def test_a_class_with_one_row_is_for_training() -> None:
    found = split({"eval": 0.1, "train": 0.9}, ["a"] * 20 + ["b"])
    assert 20 in found.parts["train"] and list(found.parts) == ["eval", "train"]


def test_the_seed_decides() -> None:
    classes = ["a"] * 100
    assert split(SHARES, classes, seed=1) == split(SHARES, classes, seed=1)
    assert split(SHARES, classes, seed=1) != split(SHARES, classes, seed=2)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 30)), min_size=1, max_size=120),
    st.integers(0, 5),
)
def test_every_row_once_and_groups_whole(rows: list[tuple[str, int]], seed: int) -> None:
    classes, groups = [c for c, _ in rows], [g for _, g in rows]
    parts = split(SHARES, classes, groups, seed).parts
    assert sorted(i for part in parts.values() for i in part) == list(range(len(rows)))
    sides = [{groups[i] for i in part} for part in parts.values()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=200), st.integers(0, 5))
def test_rows_alone_are_within_one_of_their_share(classes: list[str], seed: int) -> None:
    parts = split(SHARES, classes, seed=seed).parts
    totals = Counter(classes)
    for part, rows in parts.items():
        counts = Counter(classes[i] for i in rows)
        assert all(abs(counts[c] - SHARES[part] * n) <= 1 for c, n in totals.items())


def test_many_small_classes_do_not_all_round_the_same_way() -> None:
    classes = [f"class {i % 40}" for i in range(40 * 14)]  # 1.4 rows of each are asked for
    sizes = {part: len(rows) for part, rows in split({"train": 0.9, "eval": 0.1}, classes).parts.items()}
    assert sizes == {"train": 504, "eval": 56}
    sizes = {part: len(rows) for part, rows in split(SHARES, [i // 4 for i in range(400)]).parts.items()}
    assert sizes == {"train": 320, "eval": 40, "test": 40}


def test_classes_of_one_row_are_all_for_training() -> None:
    found = split({"eval": 0.1, "train": 0.9}, [*range(50), *["many"] * 1000])
    assert set(range(50)) <= set(found.parts["train"])
    assert len(found.parts["eval"]) == 100


@pytest.mark.parametrize("shares", [{}, {"train": 1.1, "eval": -0.1}, {"train": 0.5, "eval": 0.4}])
def test_shares_must_add_up(shares: dict[str, float]) -> None:
    with pytest.raises(DataError, match="add up to 1"):
        split(shares, ["a"])


def test_groups_must_fit() -> None:
    with pytest.raises(DataError, match="2 rows but 1 groups"):
        split(SHARES, ["a", "a"], [1])
