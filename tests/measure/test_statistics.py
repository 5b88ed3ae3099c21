"""Tests, intervals and verdicts: equal to scipy, right on literal answers, refusing what is no comparison."""

import math
import sys

import numpy as np
import pytest

from luthier.errors import DataError, MissingPackage
from luthier.measure import statistics
from luthier.measure.metrics import mean
from luthier.measure.statistics import compare, compare_all, holm, interval, mcnemar, wilcoxon, wilson
from luthier.measure.types import Measured


def right(*counts: int) -> tuple[Measured, Measured]:
    """Rows that are right in both, only before, only after, in neither."""
    both, lost, won, none = counts
    before = [1.0] * (both + lost) + [0.0] * (won + none)
    after = [1.0] * both + [0.0] * lost + [1.0] * won + [0.0] * none
    return mean(before), mean(after)


def micro(values: np.ndarray) -> Measured:
    """The same mean, as a metric without row values."""
    return Measured(mean(values).rows, mean(values).of)


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_scipy(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(seed)
    n = int(draw.integers(1, 400))
    before, after = (draw.random((2, n)) < 0.5).astype(float)
    better, worse = int((after > before).sum()), int((after < before).sum())
    if better + worse:
        assert mcnemar(before, after) == pytest.approx(
            stats.binomtest(better, better + worse).pvalue, abs=1e-9
        )
    successes = int(draw.integers(0, n + 1))
    theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    values = draw.normal(0.2, 1, (2, 14 + n))
    assert wilcoxon(*values) == pytest.approx(
        stats.wilcoxon(values[1] - values[0], correction=True).pvalue, abs=1e-9
    )
    few = draw.normal(0.3, 1, 1 + n % 13)
    assert wilcoxon(0 * few, few) == pytest.approx(stats.wilcoxon(few, mode="exact").pvalue, abs=1e-9)
    for freedom in (9, 49, 1999):
        mine = statistics._student(0.975, freedom)
        assert mine == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-4)


def test_wilcoxon_is_exact_with_ties() -> None:
    """Five equal gains: all signs alike in 2 of 32 cases, whatever the normal approximation says."""
    pytest.importorskip("scipy")
    assert wilcoxon(np.zeros(20), np.array([0.5] * 5 + [0.0] * 15)) == pytest.approx(2 / 32)
    assert wilcoxon(np.full(9, 0.1 + 0.2), np.full(9, 0.3)) == 1.0


def test_holm_is_that_of_the_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]


def test_the_interval_of_a_mean_is_students() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(5)
    for n in (12, 80, 30_000):
        before, after = draw.normal(0, 1, n), draw.normal(0.1, 1, n)
        found = compare(mean(before), mean(after), seed=1)
        theirs = stats.ttest_rel(after, before).confidence_interval(0.95)
        width = theirs.high - theirs.low
        assert (found.low + found.high) / 2 == pytest.approx(found.delta)
        assert found.delta == pytest.approx((after - before).mean())
        # the larger of the jackknife's error, which is Student's, and the bootstrap's, near it
        assert width * (1 - 1e-4) <= found.high - found.low <= width * 1.08


def test_literal_verdicts() -> None:
    better = compare(*right(50, 5, 30, 15), seed=0)
    assert (better.verdict, better.test, better.n) == ("improved", "mcnemar", 100)
    assert better.delta == pytest.approx(0.25) and better.low > 0
    assert better.p == better.corrected == mcnemar(*(m.per_row for m in right(50, 5, 30, 15)))
    assert compare(*right(50, 30, 5, 15), seed=0).verdict == "regressed"
    assert compare(*right(50, 12, 18, 20), seed=0).verdict == "no evidence"
    lower = [Measured(m.rows, m.of, higher=False) for m in right(50, 5, 30, 15)]
    assert compare(*lower, seed=0).verdict == "regressed"
    assert compare(*lower, seed=0).test == "randomization"


def test_few_changes_are_no_evidence_however_narrow_the_interval() -> None:
    """Five rows won and none lost: the interval has no zero, the exact test says 1 in 16."""
    found = compare(*right(40, 0, 5, 5), seed=0)
    assert found.low > 0 and found.p == 2 / 32 and found.verdict == "no evidence"


def test_the_same_answers_are_no_evidence() -> None:
    values = np.random.default_rng(0).random(30)
    for measured in (mean(values), mean((values > 0.5) * 1.0), micro(values), mean([1.0])):
        found = compare(measured, measured, seed=3)
        assert (found.delta, found.p, found.verdict) == (0, 1, "no evidence")
        assert len(values) != found.n or (found.low, found.high) == (0, 0)
    assert math.isnan(compare(mean([1.0]), mean([1.0]), seed=0).low)


def test_a_difference_that_nobody_could_see_is_no_evidence() -> None:
    """However sure it is: 0.04 % of a share, four thousandths of a perplexity of 400; larger ones are."""
    draw = np.random.default_rng(0)
    for scale, tiny in ((1.0, 0.0004), (400.0, 0.004)):
        rows = scale * (1 + draw.random(400))
        for shift, verdict in ((tiny, "no evidence"), (20 * tiny * max(1.0, scale / 20), "improved")):
            found = compare(mean(rows), mean(rows + shift * (1 + draw.random(400) / 10)), 0)
            assert found.p < 1e-9 and found.low > 0
            assert found.verdict == verdict


def test_randomization_finds_what_students_test_finds() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(2)
    for gain in (0.0, 0.15, 0.25, 1.0):
        before, after = draw.normal(0, 1, 100), draw.normal(gain, 1, 100)
        mine = compare(micro(before), micro(after), seed=0).p
        assert mine == pytest.approx(stats.ttest_rel(before, after).pvalue, abs=0.04)
    assert mine == 1 / 10_001  # nothing as extreme, so it has looked closer


def test_the_order_of_rows_and_of_metrics_changes_little_and_the_seed_decides_all() -> None:
    draw = np.random.default_rng(4)
    before, after = draw.random((2, 60))
    one = compare_all({"a": mean(before), "b": micro(before)}, {"a": mean(after), "b": micro(after)}, 7)
    two = compare_all({"b": micro(before), "a": mean(before)}, {"b": micro(after), "a": mean(after)}, 7)
    assert one == two and list(one) == ["a", "b"] and list(two) == ["b", "a"]
    assert one["a"].low == one["b"].low == compare(mean(before), mean(after), 7).low


def test_verdicts_are_corrected_for_the_number_of_metrics() -> None:
    pairs = {f"m{i}": right(40, 15, 15, 30) for i in range(9)} | {"m9": right(40, 6, 18, 36)}
    before, after = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
    alone, found = compare(*pairs["m9"], seed=0), compare_all(before, after, seed=0)["m9"]
    assert alone.verdict == "improved" and alone.p == found.p < 0.04
    assert found.corrected == pytest.approx(10 * alone.p) and found.verdict == "no evidence"


def test_memory_is_bounded_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(6)
    before, after = (micro(v) for v in draw.random((2, 50)))
    whole = compare(before, after, seed=1)
    monkeypatch.setattr(statistics, "_CELLS", 200)
    small = compare(before, after, seed=1)
    assert (small.low, small.high) == pytest.approx((whole.low, whole.high), abs=0.02)
    assert max(statistics._blocks(1000, 50)) == 4 and sum(statistics._blocks(1000, 50)) == 1000


def test_interval_of_one_system() -> None:
    share = mean([1.0] * 30 + [0.0] * 10)
    assert interval(share, seed=0) == wilson(30, 40)
    low, high = interval(micro(np.arange(40.0)), seed=0)
    assert low < 19.5 < high and (low + high) / 2 == pytest.approx(19.5)
    assert wilson(0, 0) == (0, 1) and wilson(5, 5)[1] == 1


def test_what_is_no_comparison_is_refused() -> None:
    with pytest.raises(DataError, match="accuracy: 2 rows before and 1 after are no pairs"):
        compare_all({"accuracy": mean([1, 0])}, {"accuracy": mean([1])}, seed=0)
    with pytest.raises(DataError, match="0 rows before and 0 after"):
        compare(mean([]), mean([]), seed=0)
    with pytest.raises(DataError, match="two different measures"):
        compare(Measured(np.ones((2, 3)), np.sum), Measured(np.ones((2, 4)), np.sum), seed=0)
    assert compare_all({"a": mean([1, 0])}, {"b": mean([1, 0])}, seed=0) == {}


def test_a_missing_scipy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingPackage, match=r"scipy.*luthier\[metrics\]"):
        wilcoxon(np.zeros(3), np.arange(3.0))
    assert compare(*right(5, 2, 3, 4), seed=0).test == "mcnemar"
