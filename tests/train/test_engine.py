"""What ranks exchange at once."""

import torch

from luthier.train import engine


def test_gradients_travel_in_buckets_of_one_dtype_and_a_limited_size(monkeypatch):
    monkeypatch.setattr(engine, "BUCKET", 10)
    sizes = [
        (4, torch.float32),
        (6, torch.float32),
        (1, torch.float32),
        (3, torch.bfloat16),
        (12, torch.bfloat16),
    ]
    tensors = [torch.zeros(n, dtype=dtype) for n, dtype in sizes]
    found = [[t.numel() for t in bucket] for bucket in engine._buckets(tensors)]
    assert found == [[4, 6], [1], [3], [12]]
    assert list(engine._buckets([])) == []
