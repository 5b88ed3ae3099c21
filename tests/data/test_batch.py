"""The prefix tree, on literal sequences."""

import numpy as np
import pytest

from luthier.data import batch
from luthier.data.batch import Flat, build, cut, sequences
from luthier.types import Rendered, Tokens


@pytest.fixture(autouse=True)
def _share_short_prefixes(monkeypatch):
    monkeypatch.setattr(batch, "MIN_SHARED", 1)


def flat(ids, mask=None, example=0, branch=0):
    mask = [1] * len(ids) if mask is None else mask
    return Flat(np.array(ids, np.int32), np.array(mask, np.float32), example, branch, f"f:{example}")


def rows(b):
    return {
        "ids": b.ids.tolist(),
        "positions": b.positions.tolist(),
        "node": b.node.tolist(),
        "parent": b.parent.tolist(),
    }


def test_two_sequences_share_their_prefix():
    b = build([flat([1, 2, 3, 4], example=0), flat([1, 2, 5], example=1)])
    assert rows(b) == {
        "ids": [1, 2, 3, 4, 5],
        "positions": [0, 1, 2, 3, 2],
        "node": [0, 0, 1, 1, 2],
        "parent": [-1, 0, 0],
    }
    # The last shared token predicts a different next token for each branch.
    targets = sorted(zip(b.owner.tolist(), b.rows[b.pick].tolist(), b.targets.tolist(), strict=True))
    assert targets == [(0, 0, 2), (0, 1, 3), (0, 2, 4), (1, 0, 2), (1, 1, 5)]
    assert b.unshared == 7 and b.count == 5.0


def test_a_prefix_of_another_sequence_adds_no_token():
    b = build([flat([1, 2], example=0), flat([1, 2, 3], example=1), flat([1, 2], example=2)])
    assert b.ids.tolist() == [1, 2, 3]
    assert b.sequences == ((0, 0), (2, 0), (1, 0))
    assert b.owner.tolist() == [0, 1, 2, 2]


def test_a_tree_of_three_levels():
    b = build([flat([1, 2, 3, 4]), flat([1, 2, 3, 5]), flat([1, 2, 6]), flat([7, 8])])
    assert rows(b) == {
        "ids": [1, 2, 3, 4, 5, 6, 7, 8],
        "positions": [0, 1, 2, 3, 3, 2, 0, 1],
        "node": [0, 0, 1, 2, 3, 4, 5, 5],
        "parent": [-1, 0, 1, 1, 0, -1],
    }
    assert b.paths == ((0, 1, 2), (0, 1, 3), (0, 4), (5,))


def test_without_sharing_each_sequence_is_a_root():
    b = build([flat([1, 2, 3]), flat([1, 2, 4])], share=False)
    assert rows(b) == {
        "ids": [1, 2, 3, 1, 2, 4],
        "positions": [0, 1, 2, 0, 1, 2],
        "node": [0, 0, 0, 1, 1, 1],
        "parent": [-1, -1],
    }


def test_short_prefixes_are_repeated(monkeypatch):
    monkeypatch.setattr(batch, "MIN_SHARED", 3)
    b = build([flat([1, 2, 3]), flat([1, 2, 4])])
    assert b.parent.tolist() == [-1, -1]


def test_only_masked_tokens_are_targets_and_weights_are_kept():
    b = build([flat([1, 2, 3, 4], mask=[0, 0, 0.5, 1])])
    assert b.targets.tolist() == [3, 4]
    assert b.weight.tolist() == [0.5, 1.0]
    assert b.rows.tolist() == [1, 2]
    assert b.count == 1.5
    assert b.is_chain


def test_the_first_token_is_never_a_target():
    assert build([flat([5, 6], mask=[1, 1])]).targets.tolist() == [6]


def test_an_example_with_two_branches_gives_two_sequences():
    tokens = lambda ids, m: Tokens(np.array(ids, np.int32), np.full(len(ids), m, np.float32))  # noqa: E731
    rendered = Rendered(tokens([1, 2], 0), (tokens([3], 1), tokens([4], 1)), None, "f:9")
    b = build(sequences(rendered, 7))
    assert b.sequences == ((7, 0), (7, 1))
    assert b.ids.tolist() == [1, 2, 3, 4]


def test_cut_respects_the_budget_and_counts_shared_tokens_once():
    groups = [[flat([1, 2, 3, k], example=k)] for k in range(4, 8)]
    assert [len(p) for p in cut(groups, budget=7, share=True)] == [4]
    assert [len(p) for p in cut(groups, budget=5, share=True)] == [2, 2]
    assert [len(p) for p in cut(groups, budget=8, share=False)] == [2, 2]


def test_cut_brings_equal_prefixes_together():
    groups = [[flat([k % 2, 9, 9, k], example=k)] for k in range(4)]
    passes = cut(groups, budget=5, share=True)
    assert [[f.example for f in p] for p in passes] == [[0, 2], [1, 3]]


def test_branches_stay_together_even_beyond_the_budget():
    group = [flat([1, 2, 3], branch=0), flat([4, 5, 6], branch=1)]
    assert [len(p) for p in cut([group, [flat([7])]], budget=2, share=True)] == [2, 1]


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="at least one sequence"):
        build([flat([])])


def test_random_trees_hold_every_sequence():
    rng = np.random.default_rng(0)
    for _ in range(200):
        seqs = [flat(rng.integers(0, 3, rng.integers(1, 9)), example=k) for k in range(rng.integers(1, 8))]
        b = build(seqs)
        for (example, _), path in zip(b.sequences, b.paths, strict=True):
            found = [int(t) for n in path for t in b.ids[slice(*b.bounds[n].tolist())]]
            assert found == seqs[example].ids.tolist()
        assert len(b.ids) <= b.unshared
        # Sorted order shares all that can be shared: one token for each distinct prefix.
        assert len(b.ids) == len({tuple(s.ids[: k + 1]) for s in seqs for k in range(len(s.ids))})
