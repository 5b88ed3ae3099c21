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


def test_the_scale_of_half_precision_goes_on_where_it_was():
    made, again = engine.Engine(cpu=True), engine.Engine(cpu=True)
    assert made.scale() == {}
    made._accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=7)
    again._accelerator.scaler = torch.amp.GradScaler("cpu")
    weight = torch.nn.Parameter(torch.ones(1))
    made._accelerator.scaler.scale(weight.sum()).backward()  # the scale exists from the first use on
    again._accelerator.scaler.scale(weight.sum()).backward()
    again.rescale(made.scale())
    assert again._accelerator.scaler.state_dict() == made._accelerator.scaler.state_dict()
    assert again.scale()["scale"] == 512.0
