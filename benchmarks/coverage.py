"""How often the 95 % intervals of luthier.measure.statistics contain the truth, and how often chance is
taken for a change: simulated pairs of systems whose true difference is known.

    python benchmarks/coverage.py [EXPERIMENTS, 1000 by default]

Prints, per kind of metric and number of rows, the coverage, the mean width of the interval, the power (share
of verdicts in the true direction) and, for two systems of the same distribution, the share of "no evidence".
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from luthier.measure.statistics import Comparison, compare
from luthier.measure.types import Measured

Draw = np.random.Generator
Floats = npt.NDArray[np.float64]
# (generator, rows, changed) -> before, after and the true difference, which is 0 where nothing changed
Scenario = Callable[[Draw, int, bool], tuple[Measured, Measured, float]]

PRIOR = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
SIZES = (50, 100, 200, 500, 2000)


def _mean(values: Floats) -> Measured:
    rows = np.stack([values, np.ones_like(values)], axis=1)
    return Measured(rows, lambda sums: sums[..., 0] / sums[..., 1], per_row=values)


def _right(draw: Draw, n: int, old: float, new: float) -> tuple[Measured, Measured, float]:
    """Right or wrong, with a latent correlation of 0.6 between the answers to one row."""
    shared = np.sqrt(0.6) * draw.standard_normal(n)
    made = [shared + np.sqrt(0.4) * draw.standard_normal(n) < NormalDist().inv_cdf(p) for p in (old, new)]
    return _mean(made[0].astype(np.float64)), _mean(made[1].astype(np.float64)), new - old


def accuracy(draw: Draw, n: int, changed: bool) -> tuple[Measured, Measured, float]:
    """60 % right, then 70 %."""
    return _right(draw, n, 0.6, 0.7 if changed else 0.6)


def accuracy_high(draw: Draw, n: int, changed: bool) -> tuple[Measured, Measured, float]:
    """90 % right, then 95 %: few rows change."""
    return _right(draw, n, 0.9, 0.95 if changed else 0.9)


def skewed(draw: Draw, n: int, changed: bool) -> tuple[Measured, Measured, float]:
    """Log-normal row values (skewness 6) with a correlation of 0.8 between their logarithms."""
    shift, row = 0.1 if changed else 0.0, draw.standard_normal(n)
    old, new = np.exp(row), np.exp(0.8 * row + 0.6 * draw.standard_normal(n) + shift)
    return _mean(old), _mean(new), float(np.exp(0.5 + shift) - np.exp(0.5))


def token_f1(draw: Draw, n: int, changed: bool) -> tuple[Measured, Measured, float]:
    """Row values in [0, 1] with many zeros and ones, beta-distributed between."""
    row = draw.random(n)

    def values(none: float, whole: float) -> Floats:
        at = np.where(draw.random(n) < 0.6, row, draw.random(n))
        return np.where(at < none, 0.0, np.where(at > 1 - whole, 1.0, draw.beta(2, 5, n)))

    new = (0.3, 0.2) if changed else (0.4, 0.1)
    return _mean(values(0.4, 0.1)), _mean(values(*new)), (0.1 + 0.0) if changed else 0.0


def _macro_f1(sums: Floats) -> Floats:
    hits, answered, support = np.split(sums, 3, axis=-1)
    f1 = 2 * hits / np.maximum(answered + support, 1)
    return np.where(support > 0, f1, 0).sum(-1) / np.maximum((support > 0).sum(-1), 1)


def _classes(
    draw: Draw, n: int, prior: Floats, share: tuple[float, float]
) -> tuple[Measured, Measured, float]:
    """Classes of the given frequencies: with probability `share` the right one is told, else any."""
    count = len(prior)
    truth, any_class, row = draw.choice(count, n, p=prior), draw.integers(0, count, n), draw.random(n)

    def measured(right: float) -> Measured:
        at = np.where(draw.random(n) < 0.5, row, draw.random(n))
        one_hot = np.eye(count)
        told, wanted = one_hot[np.where(at < right, truth, any_class)], one_hot[truth]
        return Measured(np.concatenate([told * wanted, told, wanted], axis=1), _macro_f1)

    def true_f1(right: float) -> float:
        hits, answered = prior * (right + (1 - right) / count), prior * right + (1 - right) / count
        return float(np.mean(2 * hits / (answered + prior)))

    return measured(share[0]), measured(share[1]), true_f1(share[1]) - true_f1(share[0])


def macro_f1(draw: Draw, n: int, changed: bool) -> tuple[Measured, Measured, float]:
    """Five classes, the rarest 5 % of the rows."""
    return _classes(draw, n, PRIOR, (0.6, 0.7 if changed else 0.6))


def macro_f1_many(draw: Draw, n: int, changed: bool) -> tuple[Measured, Measured, float]:
    """Twenty classes, so that 50 rows leave some without a row."""
    prior = np.linspace(1, 4, 20)
    return _classes(draw, n, prior / prior.sum(), (0.5, 0.65 if changed else 0.5))


def ratio(draw: Draw, n: int, changed: bool) -> tuple[Measured, Measured, float]:
    """A ratio of sums over rows of very unequal length, as corpus BLEU and micro-F1 are."""
    length, new = draw.lognormal(2, 0.8, n), 0.55 if changed else 0.5

    def measured(share: float) -> Measured:
        rows = np.stack([length * np.clip(draw.normal(share, 0.1, n), 0, 1), length], axis=1)
        return Measured(rows, lambda sums: sums[..., 0] / sums[..., 1])

    return measured(0.5), measured(new), new - 0.5


SCENARIOS: dict[str, Scenario] = {
    "accuracy 60 -> 70 %": accuracy,
    "accuracy 90 -> 95 %": accuracy_high,
    "log-normal values": skewed,
    "token F1": token_f1,
    "macro-F1, 5 classes": macro_f1,
    "macro-F1, 20 classes": macro_f1_many,
    "ratio of sums": ratio,
}


def experiments(scenario: Scenario, n: int, count: int, changed: bool) -> list[tuple[Comparison, float]]:
    """`count` comparisons and their true differences; experiment i is seeded by (i, n)."""
    found = []
    for i in range(count):
        before, after, truth = scenario(np.random.default_rng([i, n]), n, changed)
        found.append((compare(before, after, seed=i), truth))
    return found


def main(count: int) -> None:
    """Print the table."""
    print(f"{'metric':22}{'rows':>6}{'covers':>9}{'width':>9}{'power':>8}{'untrained: no evidence':>25}")
    start = time.process_time()
    for name, scenario in SCENARIOS.items():
        for n in SIZES:
            known = experiments(scenario, n, count, changed=True)
            covers = np.mean([c.low <= truth <= c.high for c, truth in known])
            width = np.mean([c.high - c.low for c, _ in known])
            power = np.mean([c.verdict == "improved" for c, _ in known])
            same = experiments(scenario, n, count, changed=False)
            silent = np.mean([c.verdict == "no evidence" for c, _ in same])
            row = f"{name:22}{n:>6}{covers:>9.1%}{width:>9.3f}{power:>8.1%}{silent:>25.1%}"
            print(row, flush=True)
    print(f"{count} experiments each, {time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
