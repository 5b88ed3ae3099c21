"""The lean pass: the model's own logits, or not used at all."""

from typing import Any

import pytest
import torch

import tiny
from luthier.infer import caches, lean

LEAN = ["llama", "qwen2", "qwen3"]


def both(model: Any, pass_: lean.Lean) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of three rows, padded by 0, 2 and 5, after 9 tokens and after 3 more, by model and lean pass."""
    torch.manual_seed(0)
    ids = torch.randint(10, 300, (3, 12))
    mask = (torch.arange(12) >= torch.tensor([[0], [2], [5]])).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    want = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, 8:]
    cache = caches.new_cache(model)
    first = pass_(ids[:, :9], positions[:, :9], mask[:, :9], cache)
    rest = pass_(ids[:, 9:], positions[:, 9:], mask, cache, last=False)
    return want, torch.cat([first[:, None], rest], dim=1)


@pytest.mark.parametrize("arch", LEAN)
@torch.inference_mode()
def test_logits_are_the_models_own(arch: str) -> None:
    model = tiny.build(arch)
    pass_ = lean.of(model)
    assert pass_ is not None
    want, found = both(model, pass_)
    torch.testing.assert_close(found, want, rtol=0, atol=2e-5)


@torch.inference_mode()
def test_what_changes_in_the_weights_is_seen() -> None:
    model = tiny.build("qwen3")
    pass_ = lean.of(model)
    assert pass_ is not None
    before = both(model, pass_)[1]
    model.model.layers[0].mlp.up_proj.weight.mul_(3)
    want, found = both(model, pass_)
    torch.testing.assert_close(found, want, rtol=0, atol=2e-5)
    assert not torch.allclose(found, before, atol=1e-3)


def test_adapters_and_half_precision_are_lean_too() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    lora = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(tiny.build("qwen3"), lora).eval()
    pass_ = lean.of(model)
    assert pass_ is not None
    with torch.inference_mode():
        want, found = both(model, pass_)
    torch.testing.assert_close(found, want, rtol=0, atol=2e-5)
    assert lean.of(tiny.build("qwen2").bfloat16()) is not None


def other_logits(model: Any) -> None:
    """The same parts, put together otherwise: only computing can tell."""

    class Scaled(type(model)):  # type: ignore[misc]
        def forward(self, *args: Any, **options: Any) -> Any:
            output = super().forward(*args, **options)
            output.logits = output.logits * 1.01
            return output

    model.__class__ = Scaled


def hooked(model: Any) -> None:
    model.model.layers[1].register_forward_hook(lambda _, __, output: output)


def upcast(model: Any) -> None:
    model.bfloat16().model.norm.float()


def more_parts(model: Any) -> None:
    model.model.layers[0].mlp.extra = torch.nn.Identity()


def eager(model: Any) -> None:
    model.set_attn_implementation("eager")


@pytest.mark.parametrize("change", [other_logits, hooked, upcast, more_parts, eager])
def test_what_would_be_passed_over_keeps_a_model_with_transformers(change: Any) -> None:
    model = tiny.build("llama")
    assert lean.of(model) is not None
    change(model)
    assert lean.of(model) is None


def test_windows_activations_and_families_that_it_does_not_know() -> None:
    assert lean.of(tiny.build("gemma3")) is None
    assert lean.of(tiny.build("mistral")) is None  # its window is 8
    assert lean.of(tiny.build("mistral", sliding_window=None)) is not None
    assert lean.of(tiny.build("llama", hidden_act="gelu")) is None


def test_who_sees_whom() -> None:
    full = torch.ones(1, 4, dtype=torch.long)
    assert lean.visible(full, 1) is None
    want = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1]]], dtype=torch.bool)
    assert torch.equal(lean.visible(full, 2), want)  # type: ignore[arg-type]
    padded = torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1]])
    want = torch.tensor([[[1, 0, 1, 0], [1, 0, 0, 1]], [[1, 1, 1, 0], [1, 1, 1, 1]]], dtype=torch.bool)
    assert torch.equal(lean.visible(padded, 2), want)  # type: ignore[arg-type]
