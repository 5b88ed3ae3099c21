"""Parameter groups and schedules."""

import math

import pytest
import torch
from transformers import get_scheduler

import tiny
from luthier.config import KEYS, load
from luthier.model import methods
from luthier.train import checkpoint, optim


def config(tmp_path, **changes):
    base = tmp_path / "base"
    if not base.exists():
        tiny.make_model(base, "qwen3")
    data = tmp_path / "d.json"
    data.write_text('[{"instruction": "a", "output": "b"}]')
    values = {
        "model_name_or_path": str(base), "dataset": str(data), "output_dir": str(tmp_path / "o"),
        "learning_rate": 0.1, "weight_decay": 0.5, **changes,
    }  # fmt: skip
    return load(values, "train", {})


def test_norms_and_biases_do_not_decay(tmp_path):
    model = tiny.build("qwen2")
    groups = optim.groups(model, config(tmp_path, finetuning_type="full"))
    decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    spared = {n for n, p in model.named_parameters() if id(p) not in decayed}
    assert spared == {n for n, _ in model.named_parameters() if "norm" in n or n.endswith("bias")}
    assert any(n.endswith("bias") for n in spared)


def test_loraplus_gives_b_its_own_rate(tmp_path):
    settings = config(tmp_path, loraplus_lr_ratio=16.0)
    model = methods.prepare(tiny.build("qwen3"), settings, training=True)
    rates = {
        name: group["lr"]
        for group in optim.groups(model, settings)
        for name, p in model.named_parameters()
        if any(p is q for q in group["params"])
    }
    assert {r for n, r in rates.items() if "lora_A" in n} == {0.1}
    assert {r for n, r in rates.items() if "lora_B" in n} == {0.1 * 16.0}


def test_the_table_has_what_the_configuration_offers():
    assert set(optim.OPTIMIZERS) == set(KEYS["optim"].choices)


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_every_optimizer_makes_a_step(tmp_path, name):
    if "bnb" in name or "8bit" in name or "paged" in name:
        pytest.importorskip("bitsandbytes")
        if not torch.cuda.is_available() and ("paged" in name or "lion" in name):
            pytest.skip("paged and lion optimizers of bitsandbytes need a GPU")
    model = tiny.build("qwen3")
    made = optim.build(model, config(tmp_path, finetuning_type="full", optim=name, learning_rate=1e-2))
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.arange(8)[None]).logits.float().pow(2).mean().backward()
    made.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("fused", [True, False])
def test_adams_step_counter_lies_where_its_kernel_reads_it(tmp_path, fused):
    """Elsewhere than on the CPU, that is beside the parameter for a fused kernel only."""
    model = tiny.build("qwen3")
    made = torch.optim.AdamW(model.parameters(), fused=fused)
    model(torch.arange(8)[None]).logits.float().pow(2).mean().backward()
    made.step()
    checkpoint.save_optimizer(made, model, tmp_path, {"scale": 512.0})
    away = tiny.build("qwen3").to("meta")
    other = torch.optim.AdamW(away.parameters())
    other.param_groups[0]["fused"] = fused
    assert checkpoint.load_optimizer(other, away, tmp_path) == {"scale": 512.0}
    for state in other.state.values():
        assert state["exp_avg"].is_meta
        assert state["step"].is_meta == fused


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("linear", {}),
        ("cosine", {}),
        ("constant_with_warmup", {}),
        ("polynomial", {"power": 2.0}),
        ("cosine_with_min_lr", {"min_lr": 0.01}),
        ("warmup_stable_decay", {"num_decay_steps": 5}),
    ],
)
def test_schedules_are_those_of_transformers(tmp_path, name, extra):
    settings = config(tmp_path, lr_scheduler_type=name, warmup_ratio=0.1, lr_scheduler_kwargs=extra or None)
    factor = optim.schedule(settings, 30)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = get_scheduler(name, optimizer, 3, 30, scheduler_specific_kwargs=dict(extra))
    for step in range(30):
        assert 0.1 * factor(step) == pytest.approx(theirs.get_last_lr()[0]), step
        optimizer.step()
        theirs.step()


def test_warmup_steps_win_over_the_ratio(tmp_path):
    assert optim.warmup_steps(config(tmp_path, warmup_ratio=0.1), 25) == 3
    assert optim.warmup_steps(config(tmp_path, warmup_ratio=0.1, warmup_steps=7), 25) == 7
    assert optim.warmup_steps(config(tmp_path), 25) == math.ceil(0)
