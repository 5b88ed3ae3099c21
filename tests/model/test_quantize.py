"""A quantized base learns through an adapter, on a CPU too."""

import sys

import pytest
import torch

import tiny
from luthier.config import Config
from luthier.errors import MissingPackage, ModelError
from luthier.model import load, methods, quantize

IDS = torch.arange(80, 96)[None]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Rows of at least one quantization block (64 weights)."""
    size = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128}
    return tiny.make_model(tmp_path_factory.mktemp("wide"), "qwen3", **size)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"quantization_bit": 4}, 0.15),
        ({"quantization_bit": 4, "quantization_type": "fp4", "double_quantization": False}, 0.25),
        ({"quantization_bit": 8}, 0.02),
    ],
)
def test_qlora_learns(wide, keys, error):
    pytest.importorskip("bitsandbytes")
    config = Config(model_name_or_path=str(wide), **keys)
    exact = load.model(config.replace(quantization_bit=None), torch.float32, training=False)(IDS).logits
    base = load.model(config, torch.float32, training=True)
    assert type(base.model.layers[0].mlp.up_proj).__name__ in ("Linear4bit", "Linear8bitLt")
    assert type(base.lm_head) is torch.nn.Linear
    assert (base(IDS).logits - exact).norm() / exact.norm() < error
    model = methods.prepare(base, config, training=True)
    trained, total = methods.trainable_parameters(model)
    assert trained == sum(p.numel() for n, p in model.named_parameters() if "lora" in n)
    assert total - trained == sum(
        p.numel() for p in tiny.build(hidden_size=64, head_dim=16, intermediate_size=128).parameters()
    )
    before = model(IDS, labels=IDS).loss
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                assert parameter.dtype is torch.float32
                parameter -= 0.5 * parameter.grad
    assert model(IDS, labels=IDS).loss < before - 0.01


@pytest.mark.parametrize("bits", [4, 8])
def test_evaluating_and_saving_change_nothing_of_what_a_step_learns(wide, tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    config = Config(model_name_or_path=str(wide), quantization_bit=bits)
    model = methods.prepare(load.model(config, torch.float32, training=True), config, training=True)
    tiny.disturb(model)

    def gradients():
        model.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    first = gradients()
    with torch.no_grad():
        model.eval()(IDS)
    model.train()
    assert torch.equal(gradients(), first)
    methods.save(model, tmp_path, config)
    assert torch.equal(gradients(), first)


def test_a_quantized_base_takes_one_adapter_and_no_merge(wide, tmp_path):
    pytest.importorskip("bitsandbytes")
    config = Config(model_name_or_path=str(wide), quantization_bit=4)
    model = methods.prepare(load.model(config, torch.float32, True), config, True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        methods.save(model, tmp_path / name, config)
    with pytest.raises(ModelError, match="without quantization_bit"):
        methods.merge(model)
    twice = config.replace(adapter_name_or_path=(str(tmp_path / "one"), str(tmp_path / "two")))
    with pytest.raises(ModelError, match="takes one adapter"):
        methods.prepare(load.model(config, torch.float32, False), twice, False)


@pytest.mark.parametrize(
    ("keys", "words"),
    [({"finetuning_type": "full"}, "cannot train a quantized"), ({"pissa_init": True}, "pissa_init")],
)
def test_what_cannot_be_trained_on_a_quantized_base(wide, keys, words):
    pytest.importorskip("bitsandbytes")
    config = Config(model_name_or_path=str(wide), quantization_bit=4, **keys)
    base = load.model(config, torch.float32, True)
    with pytest.raises(ModelError, match=words):
        methods.prepare(base, config, True)


def test_without_bitsandbytes_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackage, match=r"luthier\[quant\]"):
        quantize.settings(Config(quantization_bit=4), torch.float32)


def test_nothing_is_quantized_unless_asked():
    assert quantize.settings(Config(), torch.float32) is None


def test_widths_that_four_bits_cannot_take_on_a_cpu_are_named(tmp_path):
    pytest.importorskip("bitsandbytes")
    narrow = tiny.make_model(tmp_path / "narrow", "qwen3")
    with pytest.raises(ModelError, match=r"multiple of 64; model\.layers\.0\.self_attn\.q_proj has 32"):
        load.model(Config(model_name_or_path=str(narrow), quantization_bit=4), torch.float32, training=True)
