import pytest

from luthier.errors import DataError
from luthier.prepare import agreement

# Fleiss (1971) as printed in the textbook example: 10 rows, 14 annotators, 5 labels; kappa 0.210.
TABLE = [
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
]  # fmt: skip


def test_cohen() -> None:
    """20 times both yes, 5 and 10 times apart, 15 times both no: (0.7 - 0.5) / (1 - 0.5) = 0.4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement.cohen(first, second)
    assert (found.kappa, found.observed, found.expected) == (pytest.approx(0.4), 0.7, 0.5)
    assert [r.index for r in found.disputed] == list(range(20, 35))


def test_cohen_skips_rows_without_both() -> None:
    found = agreement.cohen(["a", None, "b", "a"], ["a", "b", "", "b"], ["f:1", "f:2", "f:3", "f:4"])
    assert (found.rows, found.skipped, [r.source for r in found.disputed]) == (2, 2, ["f:4"])


def test_cohen_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = list("abcabcaabbcca"), list("abccbaaabbacb")
    assert agreement.cohen(first, second).kappa == pytest.approx(metrics.cohen_kappa_score(first, second))


def test_fleiss() -> None:
    rows = [[str(k) for k, n in enumerate(counts) for _ in range(n)] for counts in TABLE]
    found = agreement.fleiss(rows)
    assert found.kappa == pytest.approx(0.2099, abs=1e-4)
    assert (found.observed, found.expected) == (
        pytest.approx(0.378, abs=1e-3),
        pytest.approx(0.2128, abs=1e-4),
    )
    assert len(found.disputed) == 9


def test_fleiss_with_missing_annotations() -> None:
    found = agreement.fleiss([["a", "a", None], ["a", ""], ["b", "b", "b"]])
    assert (found.kappa, found.rows, found.skipped) == (pytest.approx(1.0), 2, 1)


def test_one_label_throughout_has_no_kappa() -> None:
    assert agreement.cohen(["a", "a"], ["a", "a"]).kappa is None


@pytest.mark.parametrize("rows", [[], [["a"]], [[None, "a"]]])
def test_nothing_to_compare(rows: list[list[str | None]]) -> None:
    with pytest.raises(DataError, match="no row has two annotations"):
        agreement.fleiss(rows)


def test_cohen_needs_equal_lists() -> None:
    with pytest.raises(DataError, match="annotations of 1 and 2 rows"):
        agreement.cohen(["a"], ["a", "b"])
    with pytest.raises(DataError, match="no row has both"):
        agreement.cohen(["a", None], [None, "a"])
