"""Is the difference between two systems on the same rows more than chance? Intervals, tests and words.

The interval is a paired bootstrap: rows are drawn with replacement, both systems on the same rows, and the
standard deviation of the difference over the resamples gives delta ± t(n - 1) · s · sqrt(n / (n - 1)), the
"bootstrap t interval" of Hesterberg (2015, The American Statistician 69:371), whose factors undo the
narrowness of the bootstrap at small n. Percentile and BCa end points were measured too and cover less in
skewed data and few rows (88 to 94 % instead of 95). Where resamples lose whole classes (macro-F1 of many
classes) or fold a sign (calibration error) the bootstrap itself is too narrow; there the jackknife, whose
variance is never too small on average (Efron and Stein, 1981, Annals of Statistics 9:586), is wider and is
taken. `benchmarks/coverage.py` prints how often these intervals contain the truth.

The test is exact wherever that is possible: McNemar's for answers that are right or wrong, Wilcoxon's signed
ranks for row values, and for all else (macro-F1, BLEU of a corpus) the paired randomization test: if training
changed nothing, before and after may swap places in any row (Noreen 1989; Yeh, COLING 2000).

A verdict other than "no evidence" needs both: an interval without zero and p < 0.04, after Holm's correction
where several metrics are judged together. An exact test at 0.05 is wrong in 5 % of cases, no less; the margin
keeps the untrained model's share of "no evidence" above 95 % also when it is counted in a thousand seeds.

It also needs a difference that can be seen: at least `RELEVANT`, half of the last digit that reports show of
a share (0.1 %), and of a metric above 1 that part of its value. With enough rows any difference becomes
significant, and with likelihoods a few suffice: calibration errors that differ by rounding do so in every
row, and so do perplexities of 404.577 and 404.573. "Improved by 0.0 %" would send a reader after nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError, MissingPackage
from luthier.measure.types import Measured

Floats = npt.NDArray[np.float64]
Test = Literal["mcnemar", "wilcoxon", "randomization"]
Verdict = Literal["improved", "no evidence", "regressed"]

LEVEL, SIGNIFICANT = 0.95, 0.04
RELEVANT = 0.0005
RESAMPLES = 1000
# Exchanges of the randomization test; the second number when none of the first was as extreme as the data.
EXCHANGES, MORE = 2000, 10_000
# Above this the jackknife and the bootstrap agree to a percent, and only the jackknife is computed.
LARGE = 20_000
_CELLS = 1 << 21  # float64 cells of one block of weights or of leave-one-out sums: 16 MiB
_ENUMERATED = 13  # up to so many non-zero differences all 2^m signs are tried


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric before and after on the same n rows.

    delta: after - before, with its 95 % interval from low to high (nan where n < 2) · p: two-sided, of `test`
    · corrected: p after Holm's correction over the metrics judged together, which decides the verdict.
    """

    before: float
    after: float
    delta: float
    low: float
    high: float
    n: int
    p: float
    test: Test
    verdict: Verdict
    corrected: float


def compare(before: Measured, after: Measured, seed: int) -> Comparison:
    """One metric of two systems; raises DataError when they were not measured on the same rows."""
    return compare_all({"the metric": before}, {"the metric": after}, seed)["the metric"]


def compare_all(
    before: Mapping[str, Measured], after: Mapping[str, Measured], seed: int
) -> dict[str, Comparison]:
    """All metrics that both systems have, in the order of `after`, with p corrected over all of them (Holm).

    Metrics over the same number of rows share their resamples, so a table of metrics costs little more than
    one. Equal seeds give equal numbers. Raises DataError when a metric's two sides have different rows.
    """
    names = [name for name in after if name in before]
    for name in names:
        _same_rows(name, before[name], after[name])
    intervals: dict[str, tuple[float, float]] = {}
    for n in sorted({len(after[name].rows) for name in names}):
        group = [name for name in names if len(after[name].rows) == n]
        found = _intervals([(after[name], before[name]) for name in group], seed)
        intervals |= dict(zip(group, found, strict=True))
    tests = {name: _test(before[name], after[name], seed) for name in names}
    corrected = holm([p for _, p in tests.values()])
    return {
        name: _comparison(before[name], after[name], intervals[name], tests[name], p)
        for name, p in zip(names, corrected, strict=True)
    }


def interval(measured: Measured, seed: int) -> tuple[float, float]:
    """95 % interval of one system's metric: Wilson's for a share of rows, else the bootstrap's."""
    values = measured.per_row
    if values is not None and _is_mean(measured) and _zero_one(values):
        return wilson(int(values.sum()), len(values))
    return _intervals([(measured,)], seed)[0]


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of one proportion (Wilson 1927), in [0, 1] and honest near 0 and 1; (0, 1) without rows."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, extra = successes / n, z * z / n
    centre = (share + extra / 2) / (1 + extra)
    half = math.sqrt(share * (1 - share) * extra + extra * extra / 4) / (1 + extra)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(before: Floats, after: Floats) -> float:
    """Exact two-sided p of McNemar's test for 0/1 values of the same rows.

    Only rows that changed count; each change is as likely for the better as for the worse. The binomial p is
    kept rather than the mid-p value: that one errs in 6 to 7 % of cases for some numbers of changes.
    """
    better, worse = int(np.sum(after > before)), int(np.sum(after < before))
    changed = better + worse
    tail = sum(math.comb(changed, i) for i in range(min(better, worse) + 1))
    return min(1.0, float(2 * tail / 2**changed))


def wilcoxon(before: Floats, after: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on row values; rows without a difference do not count.

    Exact for up to 13 differences, ties or not; beyond, scipy's choice with correction for continuity.
    """
    difference = np.round(after - before, 12)
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0
    stats = _scipy_stats()
    if len(difference) > _ENUMERATED:
        return min(1.0, float(stats.wilcoxon(difference, correction=True).pvalue))
    signs = 1 - 2 * (np.arange(2 ** len(difference))[:, None] >> np.arange(len(difference)) & 1)
    ranks = stats.rankdata(np.abs(difference))
    return float(np.mean(np.abs(signs @ ranks) >= abs(np.sign(difference) @ ranks)))


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected so that the chance of any error among all is what one test's was (Holm 1979)."""
    corrected, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = highest
    return corrected


def randomization(before: Measured, after: Measured, seed: int) -> float:
    """Two-sided p of the paired randomization test, which needs nothing of a metric but its row sums.

    Small p are looked at more closely, or a correction over many metrics could never be passed. This is no
    second chance: p falls only where it was the smallest possible already.
    """
    gain = after.rows - before.rows
    gain = gain[np.any(gain != 0, axis=1)]
    sum_before, sum_after = before.rows.sum(0), after.rows.sum(0)
    seen = abs(float(after.of(sum_after) - before.of(sum_before)))
    if not len(gain) or not math.isfinite(seen):
        return 1.0
    draw, extreme, done = np.random.default_rng(seed), 0, 0
    for total in (EXCHANGES, MORE):
        for count in _blocks(total - done, max(gain.shape)):
            moved = draw.integers(0, 2, (count, len(gain)), dtype=np.int8).astype(np.float64) @ gain
            swapped = after.of(sum_after - moved) - before.of(sum_before + moved)
            extreme += int(np.sum(np.abs(swapped) >= seen * (1 - 1e-9)))
        done = total
        if extreme:
            break
    return (extreme + 1) / (done + 1)


def _comparison(
    before: Measured,
    after: Measured,
    bounds: tuple[float, float],
    test: tuple[Test, float],
    corrected: float,
) -> Comparison:
    low, high = bounds
    values = before.value, after.value
    verdict: Verdict = "no evidence"
    if corrected < SIGNIFICANT and (low > 0 or high < 0) and _seen(*values):
        verdict = "improved" if (low > 0) == after.higher else "regressed"
    return Comparison(
        *values, values[1] - values[0], low, high, len(after.rows), test[1], test[0], verdict, corrected
    )


def _seen(before: float, after: float) -> bool:
    """Whether the difference is one that anybody could act on."""
    return abs(after - before) >= RELEVANT * max(1.0, abs(before))


def _same_rows(name: str, before: Measured, after: Measured) -> None:
    if before.rows.shape[1:] != after.rows.shape[1:] or before.higher != after.higher:
        raise DataError(
            f"{name}: before and after are two different measures ({before.rows.shape[1]} and"
            f" {after.rows.shape[1]} sums a row) -> measure both with the same labels and options"
        )
    if len(before.rows) != len(after.rows) or not len(after.rows):
        raise DataError(
            f"{name}: {len(before.rows)} rows before and {len(after.rows)} after are no pairs"
            " -> let both systems answer the same rows, at least one"
        )


def _test(before: Measured, after: Measured, seed: int) -> tuple[Test, float]:
    old, new = before.per_row, after.per_row
    if old is None or new is None or not (_is_mean(before) and _is_mean(after)):
        return "randomization", randomization(before, after, seed)
    if _zero_one(old) and _zero_one(new):
        return "mcnemar", mcnemar(old, new)
    return "wilcoxon", wilcoxon(old, new)


def _is_mean(measured: Measured) -> bool:
    """Whether the metric is the mean of its row values, so that a test of these is a test of the metric."""
    values = measured.per_row
    return values is not None and math.isclose(float(values.mean()), measured.value, abs_tol=1e-9)


def _zero_one(values: Floats) -> bool:
    return bool(np.all((values == 0) | (values == 1)))


Contrast = tuple[Measured] | tuple[Measured, Measured]


def _intervals(contrasts: Sequence[Contrast], seed: int) -> list[tuple[float, float]]:
    """95 % interval of each metric (one part) or difference, first minus second (two parts), same n each."""
    n = len(contrasts[0][0].rows)
    if n < 2:
        return [(math.nan, math.nan)] * len(contrasts)
    error = _jackknife(contrasts)
    if n <= LARGE:
        error = np.maximum(error, _bootstrap(contrasts, seed))
    half = error * _student((1 + LEVEL) / 2, n - 1)
    middle = [_difference(contrast, [part.rows.sum(0) for part in contrast]) for contrast in contrasts]
    return [(float(m - h), float(m + h)) for m, h in zip(middle, half, strict=True)]


def _difference(contrast: Contrast, sums: Sequence[Floats]) -> Floats:
    values = [part.of(total) for part, total in zip(contrast, sums, strict=True)]
    return values[0] - values[1] if len(values) == 2 else values[0]


def _bootstrap(contrasts: Sequence[Contrast], seed: int) -> Floats:
    """Standard error of each contrast over resamples of the rows, times sqrt(n / (n - 1)).

    Resamples are counts, [resamples, n]: one product with the rows [n, k] gives all their sums. Metrics that
    share a matrix of rows share its product.
    """
    n, draw = len(contrasts[0][0].rows), np.random.default_rng(seed)
    matrices = {id(part.rows): part.rows for contrast in contrasts for part in contrast}
    widest = max(rows.shape[1] for rows in matrices.values())
    values: list[list[Floats]] = [[] for _ in contrasts]
    for count in _blocks(RESAMPLES, max(n, widest * len(matrices))):
        picked = draw.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
        counts = np.bincount(picked.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)
        sums = {key: counts @ rows for key, rows in matrices.items()}
        for found, contrast in zip(values, contrasts, strict=True):
            found.append(_difference(contrast, [sums[id(part.rows)] for part in contrast]))
    spread = [np.std(np.concatenate(found), ddof=1) for found in values]
    return np.array(spread) * math.sqrt(n / (n - 1))


def _jackknife(contrasts: Sequence[Contrast]) -> Floats:
    """Standard error of each contrast from its values with one row left out at a time."""
    n, errors = len(contrasts[0][0].rows), []
    for contrast in contrasts:
        totals, start, found = [part.rows.sum(0) for part in contrast], 0, []
        for count in _blocks(n, contrast[0].rows.shape[1]):
            left = [t - part.rows[start : start + count] for t, part in zip(totals, contrast, strict=True)]
            found.append(_difference(contrast, left))
            start += count
        errors.append(math.sqrt((n - 1) ** 2 / n) * np.std(np.concatenate(found), ddof=1))
    return np.array(errors)


def _blocks(total: int, width: int) -> list[int]:
    """Sizes that add up to `total`, so that a block of rows of `width` cells stays within memory."""
    size = max(1, _CELLS // max(1, width))
    return [min(size, total - start) for start in range(0, total, size)]


def _student(share: float, freedom: int) -> float:
    """Quantile of Student's t, by the expansion 26.7.5 of Abramowitz and Stegun (to 1e-4 from 8 on)."""
    z, v = NormalDist().inv_cdf(share), freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingPackage("scipy", "Wilcoxon's signed-rank test", "metrics") from error
    return stats
