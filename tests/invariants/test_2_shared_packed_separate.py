"""Promise 2: losses and gradients of a prefix-shared or packed batch equal those of separate passes."""

import numpy as np
import pytest
import torch

import tiny
from luthier.data.batch import Flat, build
from luthier.model import attention
from luthier.train.probe import layout_of
from luthier.train.stages import STAGES, loss_of

LIMIT = 1e-5


def examples(branches: int, seed: int = 0) -> list[list[Flat]]:
    """Eight examples: one trunk common to all, a second one common to half, one without; 1 or 2 branches."""
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.integers(3, 399, n)  # noqa: E731
    trunk, middle = draw(20), draw(12)
    groups = []
    for k in range(8):
        head = [trunk, middle] if k % 2 else [trunk] if k else [draw(9)]
        start = np.concatenate([*head, draw(3)])
        group = []
        for branch in range(branches):
            ids = np.concatenate([start, draw(int(rng.integers(2, 9)))]).astype(np.int32)
            mask = np.where(np.arange(len(ids)) >= len(start), rng.choice([1.0, 0.5]), 0.0).astype(np.float32)
            group.append(Flat(ids, mask, k, branch, f"x:{k}"))
        groups.append(group)
    return groups


def gradients(model, stage, passes, share, layout="tree"):
    """Loss and gradients of the sum over passes, divided once by the whole count."""
    model.zero_grad()
    batches = [build(flats, share) for flats in passes]
    count = sum(batch.count for batch in batches)
    total = 0.0
    for batch in batches:
        loss = loss_of(stage)(model, batch, layout)[0] / count
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def difference(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("stage", sorted(STAGES))
@pytest.mark.parametrize("arch", sorted(tiny.ARCHITECTURES))
@pytest.mark.parametrize("blocks", [False, True], ids=["dense", "blocks"])
def test_shared_and_packed_equal_separate(stage, arch, blocks, monkeypatch):
    monkeypatch.setattr(attention, "DENSE_BELOW", 0 if blocks else 10**9)
    monkeypatch.setattr(attention, "WASTE", 0)
    model = tiny.build(arch).train()
    attention.enable(model)
    groups = examples(branches=1)
    flats = [f for group in groups for f in group]
    apart = gradients(model, stage, [[f] for f in flats], share=False)
    for share in (False, True):
        together = gradients(model, stage, [flats], share)
        assert together[0] == pytest.approx(apart[0], rel=LIMIT)
        assert difference(together[1], apart[1]) <= LIMIT
    row = build(flats)
    assert len(row.ids) < 0.7 * row.unshared


def test_branches_of_one_prompt_equal_separate_sequences():
    model = tiny.build("qwen3").train()
    attention.enable(model)
    flats = [f for group in examples(branches=2) for f in group]
    apart = gradients(model, "sft", [[f] for f in flats], share=False)
    together = gradients(model, "sft", [flats], share=True)
    assert difference(together[1], apart[1]) <= LIMIT


def test_blocks_are_really_used(monkeypatch):
    monkeypatch.setattr(attention, "DENSE_BELOW", 0)
    monkeypatch.setattr(attention, "WASTE", 0)
    model = tiny.build("qwen3")
    attention.enable(model)
    seen = []
    original = attention.F.scaled_dot_product_attention

    def counted(*args, **kwargs):
        seen.append(args[0].shape[2])
        return original(*args, **kwargs)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", counted)
    batch = build([f for group in examples(1) for f in group])
    attention.forward(model, batch)
    assert sum(seen) == 2 * len(batch.ids) and len(seen) == 2 * len(batch.parent)


def test_a_wrong_mask_would_be_found():
    """The check can fail: without the mask of the tree, the loss is another one."""
    model = tiny.build("qwen3").train()
    flats = [f for group in examples(1) for f in group]
    batch = build(flats)
    right = loss_of("sft")(model, batch, "tree")[0]
    plain = model(input_ids=batch.ids[None], position_ids=batch.positions[None], logits_to_keep=batch.rows)
    wrong = -(torch.log_softmax(plain.logits[0], -1)[batch.pick, batch.targets] * batch.weight).sum()
    assert abs((wrong - right).item()) > 1e-3 * right.item()


def test_models_that_mix_positions_otherwise_are_recognised_and_padded():
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = MambaForCausalLM(config).train()
    attention.enable(model)
    assert layout_of(model) == "padded"
    flats = [f for group in examples(1) for f in group]
    apart = gradients(model, "sft", [[f] for f in flats], share=False, layout="padded")
    together = gradients(model, "sft", [flats], share=False, layout="padded")
    assert difference(together[1], apart[1]) <= LIMIT


def test_ordinary_models_are_recognised_as_trees():
    for arch in tiny.ARCHITECTURES:
        model = tiny.build(arch)
        attention.enable(model)
        assert layout_of(model) == "tree", arch
