"""Losses on literal tensors."""

import math

import pytest
import torch

from luthier.train.losses import shares, target_nll, weighted_sum


def test_nll_is_that_of_the_softmax():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    nll = target_nll(logits, torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1]))
    assert nll.tolist() == pytest.approx([math.log(4 / 3), math.log(4.0), math.log(2.0)])


def test_one_position_may_predict_several_branches():
    logits = torch.randn(1, 7, generator=torch.Generator().manual_seed(0))
    nll = target_nll(logits, torch.zeros(7, dtype=torch.long), torch.arange(7))
    assert float(torch.exp(-nll).sum()) == pytest.approx(1.0)


def test_half_precision_logits_are_widened_first():
    logits = torch.tensor([[10.0, 10.0]], dtype=torch.bfloat16)
    assert target_nll(logits, torch.tensor([0]), torch.tensor([0])).dtype == torch.float32


def test_weights_scale_each_token():
    assert weighted_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 0.5])).item() == 3.0


def test_token_accuracy_is_a_share_of_each_sequence():
    right, weight = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.5, 0.5, 0.0])
    owner = torch.tensor([0, 0, 2, 2, 3])
    assert shares(right, weight, owner).tolist() == [0.5, 1.0]
    assert shares(right[:0], weight[:0], owner[:0]).tolist() == []
