"""Continuations as a tree: what is read, and that it changes nothing."""

import random

import pytest
import torch

import tiny
from infer.test_hf import by_forward, prompts, read_by
from luthier.infer.hf import HFEngine
from luthier.infer.likelihood import Trie


def test_a_tree_reads_each_beginning_once_and_no_last_token() -> None:
    trie = Trie.of([[5, 6, 2], [5, 7, 2], [8, 2], [9], [], [5, 6]])
    assert trie.tokens == (5, 6, 7, 8)
    assert trie.parents == (-1, 0, 0, -1)
    assert trie.paths[:3] == (((-1, 5), (0, 6), (1, 2)), ((-1, 5), (0, 7), (2, 2)), ((-1, 8), (3, 2)))
    assert trie.paths[3:] == (((-1, 9),), (), ((-1, 5), (0, 6)))
    assert (trie.depth, trie.levels()) == (3, [0, 1, 1, 0])
    want = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert torch.equal(trie.above(), torch.tensor(want, dtype=torch.bool))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_trees_equal_whole_passes_in_any_batch_and_order(batch: int) -> None:
    draw, model, rows = random.Random(4), tiny.build("qwen2"), prompts(6)
    labels = [[5, 6, 7, 2], [5, 6, 2], [5, 6], [9, 2], [11, 12, 13, 14, 2], [5, 6, 7, 2]]
    endings = [labels, labels, [], [[3]], labels[:2], draw.sample(labels, 6)]
    engine = HFEngine(model, tiny.tokenizer(), batch_size=batch)
    found = engine.score(rows, endings)
    for row, ends, values in zip(rows, endings, found, strict=True):
        assert values == pytest.approx([by_forward(model, row, end) for end in ends], abs=1e-4)
    order = draw.sample(range(6), 6)
    again = engine.score([rows[k] for k in order], [endings[k] for k in order])
    assert again == [pytest.approx(found[k], abs=1e-5) for k in order]


def test_labels_are_read_in_one_pass_and_prompts_once() -> None:
    model, rows = tiny.build("qwen3"), prompts(4, shared=100)
    engine = HFEngine(model, tiny.tokenizer())
    fed = read_by(model)
    engine.score(rows, [[[5, 6, 2], [5, 7, 2], [8, 2]]] * 4)
    assert len(fed) == 3
    assert (fed[0], fed[2]) == (100, 4 * 4)


def test_trees_of_many_tokens_or_a_large_vocabulary_are_taken_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, rows = tiny.build("qwen3"), prompts(5)
    endings = [[[5, 6, 2], [7, 2]]] * 5
    engine = HFEngine(model, tiny.tokenizer())
    want = engine.score(rows, endings)
    fed = read_by(model)
    for name, passes in (("LOGITS", 3), ("READ", 1 + 2 * 5)):
        monkeypatch.setattr(f"luthier.infer.likelihood.{name}", 1)
        fed.clear()
        assert engine.score(rows, endings) == [pytest.approx(values, abs=1e-6) for values in want]
        assert len(fed) == passes


def test_a_continuation_without_tokens_is_certain() -> None:
    engine = HFEngine(tiny.build("qwen3"), tiny.tokenizer())
    assert engine.score([[10, 11]], [[[], [5]]])[0][0] == 0.0
    assert engine.score([[10, 11]], [[]]) == [[]]
