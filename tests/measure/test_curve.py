"""The learning curve: known curves are found again, and nothing is predicted where nothing can be."""

from statistics import NormalDist

import numpy as np
import pytest

from luthier.measure import curve
from luthier.measure.types import Measured

ROWS = [100, 250, 500, 1000]


def share(values: np.ndarray) -> Measured:
    """The mean of row values, as accuracy and token F1 are."""
    rows = np.stack([values, np.ones_like(values)], axis=1)
    return Measured(rows, lambda sums: sums[..., 0] / sums[..., 1], per_row=values)


def exactly(error: float) -> Measured:
    """A metric without chance: every row has the same value."""
    return share(np.full(10, 1 - error))


def simulated(errors: list[float], rows: int, seed: int) -> list[Measured]:
    """Right or wrong of each row at each point; rows that are hard at one point tend to be at the others."""
    draw = np.random.default_rng(seed)
    hard = draw.standard_normal(rows)
    noise = [draw.standard_normal(rows) for _ in errors]
    return [
        share((np.sqrt(0.7) * hard + np.sqrt(0.3) * own > NormalDist().inv_cdf(error)).astype(np.float64))
        for error, own in zip(errors, noise, strict=True)
    ]


@pytest.mark.parametrize(
    "known", [(0.07, 1.3, 0.35), (0.0, 2.0, 0.25), (0.2, 30.0, 1.4), (3.5, 400.0, 0.8), (0.1, 0.8, 0.07)]
)
@pytest.mark.parametrize("rows", [ROWS, [100, 500, 1000], [800, 1600, 2400, 3200, 8000]])
def test_a_known_curve_is_found_again_from_exact_points(
    known: tuple[float, float, float], rows: list[int]
) -> None:
    n = np.array(rows, np.float64)
    a, b, c = known
    weights = np.random.default_rng(0).uniform(0.5, 2, len(rows))
    found = curve.fit(n, (a + b * n**-c)[None], weights)
    assert [float(one[0]) for one in found] == pytest.approx(known, rel=1e-4, abs=1e-6)


def test_many_curves_are_fitted_as_each_alone() -> None:
    n = np.array(ROWS, np.float64)
    errors = np.random.default_rng(1).uniform(0.1, 0.4, (7, 4))
    together = np.stack(curve.fit(n, errors, np.ones(4)))
    alone = [np.concatenate(curve.fit(n, one[None], np.ones(4))) for one in errors]
    assert together == pytest.approx(np.stack(alone, axis=1), rel=1e-9)


def test_the_fit_is_the_best_that_a_fine_search_finds() -> None:
    n, y, w = np.array(ROWS, np.float64), np.array([0.31, 0.24, 0.22, 0.185]), np.array([1.0, 2, 2, 4])
    a, b, c = (float(one[0]) for one in curve.fit(n, y[None], w))

    def loss(a: float, b: float, c: float) -> float:
        return float((w * (y - a - b * n**-c) ** 2).sum())

    near = np.random.default_rng(2).normal(1, 0.02, (3000, 3)) * (a, b, c)
    assert a >= 0
    assert loss(a, b, c) <= min(loss(*one) for one in near) + 1e-15


def test_the_floor_is_never_below_zero() -> None:
    n = np.array(ROWS, np.float64)
    a, b, c = curve.fit(n, (2 * n**-0.3 - 0.1)[None], np.ones(4))
    assert a[0] == 0.0
    assert b[0] > 0 and c[0] > 0.3


def test_twice_the_rows_of_an_exact_curve() -> None:
    errors = [0.05 + 1.5 * n**-0.4 for n in ROWS]
    found = curve.learn(ROWS, [exactly(error) for error in errors], seed=0)
    assert found.why == "" and found.fit is not None and found.twice is not None
    twice, at = found.twice, 0.05 + 1.5 * 2000**-0.4
    assert twice.rows == 2000
    assert [twice.value, twice.low, twice.high] == pytest.approx([1 - at] * 3, abs=1e-6)
    assert [twice.gain, twice.gain_low, twice.gain_high] == pytest.approx([errors[-1] - at] * 3, abs=1e-6)
    assert found.fit.error(250) == pytest.approx(errors[1], abs=1e-6)


def test_of_perplexity_less_is_better() -> None:
    values = [4 + 60 * n**-0.5 for n in ROWS]
    points = [
        Measured(np.full((5, 1), np.log(value)), lambda s: np.exp(s[..., 0] / 5), higher=False)
        for value in values
    ]
    found = curve.learn(ROWS, points, seed=0)
    assert found.why == "" and found.twice is not None
    assert found.twice.value == pytest.approx(4 + 60 * 2000**-0.5, rel=1e-6)
    assert found.twice.low <= found.twice.value <= found.twice.high + 1e-9
    assert found.twice.gain == pytest.approx(values[-1] - found.twice.value, rel=1e-5)


def test_intervals_contain_the_truth() -> None:
    errors, truth = [0.05 + 2 * n**-0.4 for n in (800, 2000, 4000, 8000)], 0.05 + 2 * 16000**-0.4
    inside = gains = 0
    for seed in range(30):
        found = curve.learn([800, 2000, 4000, 8000], simulated(errors, 300, seed), seed)
        assert found.twice is not None
        inside += found.twice.low <= 1 - truth <= found.twice.high
        gains += found.twice.gain_low <= errors[-1] - truth <= found.twice.gain_high
    assert inside >= 27 and gains >= 27  # of 30; 28 or 29 would be 95 %


def test_a_flat_curve_promises_no_gain() -> None:
    whys = [curve.learn(ROWS, simulated([0.2] * 4, 400, seed), seed).why for seed in range(15)]
    assert whys.count("") <= 1
    still = curve.learn(ROWS, [exactly(0.2)] * 4, seed=0)
    assert still.why == "unsure" and still.twice is not None
    assert still.twice.gain == pytest.approx(0, abs=1e-9)


def test_more_data_that_is_worse_is_said_with_its_points() -> None:
    found = curve.learn(ROWS, simulated([0.3, 0.1, 0.25, 0.28], 400, 0), seed=0)
    assert found.why == "worse" and found.worse == (1, 3)


def test_two_points_are_no_curve() -> None:
    assert curve.learn([10, 20], [exactly(0.3), exactly(0.2)], seed=0) == curve.Learned("few")


def test_a_point_without_errors_does_not_decide_alone() -> None:
    found = curve.learn(ROWS, [*simulated([0.3, 0.2, 0.1], 200, 0), share(np.ones(200))], seed=0)
    assert found.fit is not None
    assert np.isfinite([found.fit.a, found.fit.b, found.fit.c]).all()
    assert found.fit.error(250) == pytest.approx(0.2, abs=0.08)


def test_points_that_lie_far_from_any_curve_widen_the_interval() -> None:
    rows, bend = [100, 250, 500, 1000, 2000], [0.02, -0.04, 0.04, -0.04, 0.02]
    smooth = [0.05 + 3 * n**-0.5 for n in rows]
    widths = []
    for errors in (smooth, [error + off for error, off in zip(smooth, bend, strict=True)]):
        found = curve.learn(rows, simulated(errors, 1000, 0), seed=0).twice
        assert found is not None and 0 <= found.low <= found.value <= found.high <= 1
        widths.append(found.high - found.low)
    assert widths[1] > 1.5 * widths[0]


def test_equal_seeds_give_equal_figures() -> None:
    points = simulated([0.3, 0.2, 0.15, 0.12], 200, 3)
    assert curve.learn(ROWS, points, seed=5) == curve.learn(ROWS, points, seed=5)
