"""The cache that grows in place holds what transformers' own would, whatever is done to it."""

import random

import torch
from transformers import DynamicCache

import tiny
from luthier.infer import caches


def test_a_cache_with_room_equals_one_that_is_copied() -> None:
    draw = random.Random(3)
    torch.manual_seed(0)
    model = tiny.build("qwen3")
    for _ in range(30):
        ours, theirs, rows = caches.new_cache(model), DynamicCache(config=model.config), 3
        for _ in range(12):
            what = draw.choice(["grow", "grow", "grow", "select", "crop"])
            if what == "grow" or ours.get_seq_length() < 2:
                keys, values = torch.randn(2, rows, 2, draw.choice([1, 1, 2, 30]), 8)
                got, want = ours.update(keys, values, 0), theirs.update(keys, values, 0)
                assert all(map(torch.equal, got, want))
            elif what == "select":
                index = torch.tensor([draw.randrange(rows) for _ in range(draw.randrange(1, 5))])
                ours.reorder_cache(index)
                theirs.reorder_cache(index)
                rows = len(index)
            else:
                ours.crop(-1)
                theirs.crop(-1)
            assert torch.equal(ours.layers[0].keys, theirs.layers[0].keys)
            assert torch.equal(ours.layers[0].values, theirs.layers[0].values)


def test_what_is_lent_is_never_written_to() -> None:
    cache = caches.new_cache(tiny.build("qwen3"))
    cache.update(*torch.ones(2, 1, 2, 5, 8), 0)
    first, second = caches.lend(cache, 3), caches.lend(cache, 2)
    assert first.layers[0].keys.data_ptr() == cache.layers[0].keys.data_ptr()
    first.update(*torch.full((2, 3, 2, 1, 8), 2.0), 0)
    keys, _ = second.update(*torch.full((2, 2, 2, 1, 8), 3.0), 0)
    assert keys[0, 0, :, 0].tolist() == [1, 1, 1, 1, 1, 3]
    assert cache.layers[0].keys.shape == (1, 2, 5, 8)
    cache.update(*torch.full((2, 1, 2, 1, 8), 4.0), 0)
    assert first.layers[0].keys[0, 0, :, 0].tolist() == [1, 1, 1, 1, 1, 2]


def test_a_step_writes_one_column_and_copies_nothing() -> None:
    cache = caches.new_cache(tiny.build("qwen3"))
    cache.update(*torch.zeros(2, 1, 2, 100, 8), 0)
    places = set()
    for _ in range(20):
        keys, _ = cache.update(*torch.zeros(2, 1, 2, 1, 8), 0)
        places.add(keys.data_ptr())
    assert len(places) == 1
