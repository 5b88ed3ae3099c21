"""The plan: a pure function from settings to the examples of each step."""

import numpy as np
import pytest

from luthier.data.plan import Plan, pack, permutation


def test_every_example_once_an_epoch():
    plan = Plan(units=10, per_step=4, seed=1, epochs=2)
    first = [i for step in range(3) for i in plan.examples(step)]
    second = [i for step in range(3, 6) for i in plan.examples(step)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [len(plan.examples(s)) for s in range(6)] == [4, 4, 2, 4, 4, 2]


@pytest.mark.parametrize(
    ("units", "per_step", "epochs", "max_steps", "total"),
    [(10, 4, 3, -1, 9), (10, 4, 0.5, -1, 2), (10, 20, 3, -1, 3), (10, 4, 3, 7, 7), (1, 8, 1, -1, 1)],
)
def test_total_steps_are_those_of_transformers(units, per_step, epochs, max_steps, total):
    assert Plan(units, per_step, seed=0, epochs=epochs, max_steps=max_steps).total_steps == total


def test_ranks_share_a_step_without_overlap():
    whole = Plan(units=11, per_step=6, seed=3).examples(0)
    parts = [Plan(units=11, per_step=6, seed=3, world=3).examples(0, rank) for rank in range(3)]
    assert sorted(i for part in parts for i in part) == sorted(whole)
    assert [len(part) for part in parts] == [2, 2, 2]


def test_order_is_fixed_by_seed_and_epoch():
    assert permutation(8, 42, 0).tolist() == permutation(8, 42, 0).tolist()
    assert permutation(8, 42, 0).tolist() != permutation(8, 42, 1).tolist()
    assert permutation(8, 42, 0).tolist() != permutation(8, 43, 0).tolist()
    # A literal: resuming after an upgrade of NumPy must give the same order.
    assert permutation(8, 42, 0).tolist() == [3, 4, 2, 7, 6, 1, 5, 0]


def test_without_shuffling_the_order_is_that_of_the_files():
    plan = Plan(units=5, per_step=2, seed=9, shuffle=False)
    assert [plan.examples(s) for s in range(3)] == [[0, 1], [2, 3], [4]]


def test_packing_fills_bins_and_loses_nothing():
    lengths = np.array([5, 3, 8, 2, 2, 9, 1], np.int64)
    bins = pack(lengths, 10)
    assert sorted(i for b in bins for i in b) == list(range(7))
    assert [b.tolist() for b in bins] == [[5, 6], [2, 4], [0, 1, 3]]
    assert all(lengths[b].sum() <= 10 for b in bins)


def test_an_example_longer_than_the_bin_stands_alone():
    assert [b.tolist() for b in pack(np.array([12, 4], np.int64), 10)] == [[0], [1]]


def test_packed_units_are_bins():
    bins = pack(np.array([6, 4, 10], np.int64), 10)
    plan = Plan(units=len(bins), per_step=1, seed=0, bins=tuple(bins), shuffle=False)
    assert [sorted(plan.examples(s)) for s in range(2)] == [[2], [0, 1]]
