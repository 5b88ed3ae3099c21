"""Order of rows over data sets: literal values, and drawn sequences against the definition."""

import numpy as np
import pytest

from luthier.data import mix
from luthier.errors import DataError


def pairs(counts, strategy, probabilities=None, seed=42):
    return [tuple(pair) for pair in mix.order(counts, strategy, probabilities, seed).tolist()]


def test_concat():
    order = mix.order([2, 3], "concat")
    assert order.dtype == np.int64
    assert order.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]]


def test_in_turns():
    assert pairs([2, 3], "interleave_under") == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert pairs([2, 3], "interleave_over") == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 2)]
    assert pairs([2, 3], "interleave_once") == [(0, 0), (1, 0), (0, 1), (1, 1), (1, 2)]


def by_the_book(counts, strategy, probabilities, seed):
    """The definition, one draw at a time."""
    generator = np.random.default_rng(seed)
    at, done, found = [0] * len(counts), [False] * len(counts), []
    while not (any(done) if strategy == "interleave_under" else all(done)):
        which = int(generator.choice(len(counts), p=probabilities))
        if strategy == "interleave_once" and done[which]:
            continue
        found.append((which, at[which]))
        at[which] += 1
        if at[which] >= counts[which]:
            at[which], done[which] = 0, True
    return found


@pytest.mark.parametrize("strategy", mix.STRATEGIES[1:])
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_drawn_with_probabilities(strategy, seed, monkeypatch):
    expected = by_the_book([5, 9, 3], strategy, [0.2, 0.5, 0.3], seed)
    assert pairs([5, 9, 3], strategy, [0.2, 0.5, 0.3], seed) == expected
    monkeypatch.setattr(mix, "BLOCK", 4)
    assert pairs([5, 9, 3], strategy, [0.2, 0.5, 0.3], seed) == expected


def test_interleave_once_holds_every_row_once():
    found = pairs([50, 7], "interleave_once", [0.3, 0.7])
    assert sorted(found) == [(0, n) for n in range(50)] + [(1, n) for n in range(7)]


@pytest.mark.parametrize("probabilities", [[0.5, 0.6], [1.0], [1.0, 0.0], [0.5, -0.5]])
def test_bad_probabilities(probabilities):
    with pytest.raises(DataError, match="write 2 positive numbers, one per data set, with sum 1"):
        mix.order([2, 2], "interleave_over", probabilities)


def test_unknown_strategy_and_empty_set():
    with pytest.raises(DataError, match='unknown strategy "shuffle" -> use one of concat'):
        mix.order([2, 2], "shuffle")
    with pytest.raises(DataError, match="at least one row"):
        mix.order([2, 0])


def test_sample():
    assert mix.sample(4).tolist() == [0, 1, 2, 3]
    assert mix.sample(4, max_samples=2).tolist() == [0, 1]
    assert mix.sample(10, 3, seed=42).tolist() == np.random.default_rng(42).permutation(10)[:3].tolist()
    more = mix.sample(3, 8, seed=1)
    assert len(more) == 8 and sorted(more[:3].tolist()) == [0, 1, 2] and set(more.tolist()) <= {0, 1, 2}
    assert mix.sample(3, 8, 1, max_samples=4).tolist() == more[:4].tolist()


def test_split():
    train, held = mix.split(10, 0.25, seed=7)
    assert len(held) == 3 and sorted([*train.tolist(), *held.tolist()]) == list(range(10))
    assert held.tolist() == sorted(held.tolist())
    again = mix.split(10, 3, seed=7)
    assert again[1].tolist() == held.tolist()
    assert len(mix.split(10, 1)[1]) == 1
    for size in (10, 11, 0):
        with pytest.raises(DataError, match="val_size"):
            mix.split(10, size)
