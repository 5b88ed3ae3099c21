"""The learning curve: how a metric grows with the training rows, and what twice the rows would bring.

Generalisation error falls as a power law of the number of training rows, down to a floor:
error = a + b * n^-c with a >= 0 (Hestness et al., 2017, arXiv:1712.00409, section 3, who write it
epsilon(m) = alpha * m^beta + gamma with beta = -c). The error is 1 - metric of a metric of which more is
better (a share of 1) and the metric itself of one of which less is better (perplexity).

The fit is the least squares weighted by each point's standard error: for each c the best a and b are those of
a linear regression on n^-c, and c is looked for on a grid that narrows. The rows evaluated are the same at
each point, so a resample draws rows once for all points; the fit to each resample gives the interval.

Each point is one training, and another seed would move it, which no resample of rows shows. With more points
than the curve has parameters it shows in how far they lie from the curve: where that is more than their
standard errors explain, the interval is stretched by sqrt(chi^2 / (points - 3)) (Birge, 1932, Physical
Review 40:207), as is usual where measurements disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from luthier.measure import statistics
from luthier.measure.types import Measured

Floats = npt.NDArray[np.float64]
Why = Literal["", "few", "worse", "unsure"]
"""Why nothing is predicted: too few points, more data was worse, or a gain that may be none; "" if it is."""

POINTS = 3  # as many as the curve has parameters
RESAMPLES = 1000
_LEVEL = (2.5, 97.5)
_EXPONENTS = np.geomspace(0.01, 5.0, 80)  # Hestness et al. saw 0.07 to 0.35; small sets are learnt faster
_ROUNDS, _FINER = 10, 9  # each round leaves a quarter of the range of c
# A point that got every row right has an error of 0 by its rows, and would alone decide the fit.
_FLOOR = 1 / 3


@dataclass(frozen=True, slots=True)
class Fit:
    """error = a + b * rows^-c."""

    a: float
    b: float
    c: float

    def error(self, rows: float) -> float:
        return float(self.a + self.b * rows**-self.c)


@dataclass(frozen=True, slots=True)
class Twice:
    """The metric at twice the rows, and what of it is gain: better by `gain`, along the fitted curve.

    Both with the 95 % interval over resamples of the rows evaluated.
    """

    rows: int
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What the points say. fit, twice: None with fewer than three points · why: "" where `twice` may be
    believed · worse: places of two points of which the later, with more rows, is worse by more than
    chance."""

    why: Why
    fit: Fit | None = None
    twice: Twice | None = None
    worse: tuple[int, int] | None = None


def learn(rows: Sequence[int], points: Sequence[Measured], seed: int) -> Learned:
    """Fit the curve to one metric measured on the same rows after training on `rows` rows each
    (increasing)."""
    if len(points) < POINTS:
        return Learned("few")
    n = np.array(rows, np.float64)
    seen = np.array([[_error(one, one.rows.sum(0)) for one in points]])
    drawn = _resampled(points, seed)
    spread = drawn.std(0, ddof=1)
    weights = np.ones(len(points))
    if spread.max() > 0:
        weights = np.maximum(spread, _FLOOR * spread.max()) ** -2.0
    a, b, c = (float(value[0]) for value in fit(n, seen, weights))
    found, worse = Fit(a, b, c), _worse(drawn)
    stretch = _stretch(seen[0] - [found.error(rows) for rows in n], weights) if spread.max() > 0 else 1.0
    twice = _twice(n[-1], found, fit(n, drawn, weights), stretch, points[0].higher)
    why: Why = "worse" if worse is not None else "" if twice.gain_low >= statistics.RELEVANT else "unsure"
    return Learned(why, found, twice, worse)


def fit(n: Floats, errors: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b, c, [curves] each, of the curves with these errors [curves, points] at n [points].

    b may be negative, so that a curve that does not fall is not made to.
    """
    count = len(errors)
    low, high = np.full(count, _EXPONENTS[0]), np.full(count, _EXPONENTS[-1])
    grid = np.broadcast_to(_EXPONENTS, (count, len(_EXPONENTS)))
    for _ in range(_ROUNDS):
        best = _regressed(n / n[-1], errors, weights, grid)[2].argmin(1)
        places = np.arange(count)
        low = grid[places, np.maximum(best - 1, 0)]
        high = grid[places, np.minimum(best + 1, grid.shape[1] - 1)]
        grid = np.linspace(low, high, _FINER, axis=1)
    c = (low + high) / 2
    a, b, _ = _regressed(n / n[-1], errors, weights, c[:, None])
    return a[:, 0], b[:, 0] * n[-1] ** c, c


def _regressed(n: Floats, errors: Floats, weights: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
    """Best a and b, and their weighted sum of squares, for exponents c [curves, tried]; n relative to the
    last."""
    x = n ** -c[..., None]
    y, w = errors[:, None, :], weights / weights.sum()
    mean_x, mean_y = (x * w).sum(-1), (y * w).sum(-1)
    square = ((x - mean_x[..., None]) ** 2 * w).sum(-1)
    b = ((x - mean_x[..., None]) * (y - mean_y[..., None]) * w).sum(-1) / square
    a = mean_y - b * mean_x
    through = (x * y * w).sum(-1) / (x * x * w).sum(-1)
    b, a = np.where(a < 0, through, b), np.maximum(a, 0.0)
    return a, b, ((y - a[..., None] - b[..., None] * x) ** 2 * w).sum(-1)


def _error(one: Measured, sums: Floats) -> float:
    value = float(one.of(sums))
    return 1.0 - value if one.higher else value


def _resampled(points: Sequence[Measured], seed: int) -> Floats:
    """The error of each point over the same resamples of the rows, [RESAMPLES, points]."""
    draw, n = np.random.default_rng(seed), len(points[0].rows)
    errors = np.empty((RESAMPLES, len(points)))
    for i in range(RESAMPLES):
        counts = np.bincount(draw.integers(0, n, n), minlength=n).astype(np.float64)
        errors[i] = [_error(one, counts @ one.rows) for one in points]
    return errors


def _worse(drawn: Floats) -> tuple[int, int] | None:
    """The two points of which the later is worse by most, where that is more than chance; drawn: errors."""
    found = None
    most = 0.0
    for j in range(drawn.shape[1]):
        for i in range(j):
            least = float(np.percentile(drawn[:, j] - drawn[:, i], _LEVEL[0]))
            if least > most:
                found, most = (i, j), least
    return found


def _stretch(residuals: Floats, weights: Floats) -> float:
    """Birge's ratio, at least 1; 1 where the curve has as many parameters as there are points."""
    freedom = len(residuals) - POINTS
    return max(1.0, math.sqrt(float((weights * residuals**2).sum()) / freedom)) if freedom > 0 else 1.0


def _twice(
    rows: float, found: Fit, curves: tuple[Floats, Floats, Floats], stretch: float, higher: bool
) -> Twice:
    a, b, c = curves
    errors, now = a + b * (2 * rows) ** -c, a + b * rows**-c
    error = found.error(2 * rows)
    gain = found.error(rows) - error
    ends = (error + stretch * (float(one) - error) for one in np.percentile(errors, _LEVEL))
    low, high = (max(0.0, end) for end in ends)
    gains = [gain + stretch * (float(one) - gain) for one in np.percentile(now - errors, _LEVEL)]
    values = (1 - error, 1 - high, 1 - low) if higher else (error, low, high)
    return Twice(round(2 * rows), *values, gain, *gains)
