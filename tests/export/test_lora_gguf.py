"""A LoRA as GGUF over its base in llama.cpp says what PEFT says; what GGUF cannot say is refused by name."""

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import ggufs
from luthier import gguf
from luthier.errors import ExportError
from luthier.export import lora
from luthier.infer.llama_cpp import LlamaCpp

pytest.importorskip("xllamacpp")
ASKED = ggufs.prompts(3, 30)
MODELS = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {},
    "phi3": {},
    "granite": {},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16},
    "qwen3_moe": {},
}


def adapted(folder, base, seed=1, **keys):
    """An adapter of PEFT with large random values on the model in `base`; the model with it."""
    target = ["q_proj", "k_proj", "v_proj", "o_proj"] if "moe" in base.name else "all-linear"
    settings = {"r": 4, "lora_alpha": 8, "target_modules": target, "task_type": "CAUSAL_LM", **keys}
    model = peft.get_peft_model(ggufs.model(base), peft.LoraConfig(**settings)).eval()
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value += 0.3 * torch.randn(value.shape, generator=draws)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return ggufs.random_model(tmp_path_factory.mktemp("base") / "llama", "llama")


@pytest.fixture(scope="module")
def base_file(base):
    return gguf.convert(base, base.parent / "base.gguf", "f32", say=str)


def difference(base_file, lora_file, model):
    with LlamaCpp(base_file, exact=True, slots=1, threads=1, lora=lora_file) as served:
        return ggufs.difference(served, model, ASKED)


@pytest.mark.parametrize("name", MODELS)
def test_as_peft(name, tmp_path):
    base = ggufs.random_model(tmp_path / name, name, **MODELS[name])
    model = adapted(tmp_path / "adapter", base)
    base_file = gguf.convert(base, tmp_path / "base.gguf", "f32", say=str)
    file = lora.convert(lora.load(tmp_path / "adapter"), gguf.settings(base), tmp_path / "lora.gguf")
    allowed = 2e-2 if "gemma" in name else 1e-3
    assert difference(base_file, file, model) <= allowed
    with torch.no_grad():
        assert difference(base_file, file, ggufs.model(base)) > 0.1  # the adapter does something
    with ggufs.opened(base_file) as alone:
        assert ggufs.difference(alone, model, ASKED) > 0.1


@pytest.mark.parametrize(
    "keys",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 32, "v_proj": 3}},
        {"use_rslora": True, "rank_pattern": {"k_proj": 8}, "lora_alpha": 5},
    ],
)
def test_every_scale(keys, base, base_file, tmp_path):
    model = adapted(tmp_path / "adapter", base, **keys)
    file = lora.convert(lora.load(tmp_path / "adapter"), gguf.settings(base), tmp_path / "lora.gguf")
    assert difference(base_file, file, model) <= 1e-3


def test_rows_that_are_not_moved_are_seen(base, base_file, tmp_path, monkeypatch):
    """llama's queries and keys lie in another order in GGUF: B as it is gives another model."""
    model = adapted(tmp_path / "adapter", base)
    monkeypatch.setattr(lora.tensors, "change", lambda source, config, one: lambda value: value)
    file = lora.convert(lora.load(tmp_path / "adapter"), gguf.settings(base), tmp_path / "lora.gguf")
    assert difference(base_file, file, model) > 0.1


def test_what_is_in_the_file(base, tmp_path):
    from gguf import GGUFReader

    adapted(tmp_path / "adapter", base, target_modules=["v_proj"], lora_alpha=6)
    file = lora.convert(lora.load(tmp_path / "adapter"), gguf.settings(base), tmp_path / "lora.gguf")
    read = GGUFReader(file)
    told = {key: field.contents() for key, field in read.fields.items() if "." in key and "GGUF" not in key}
    assert (told["general.type"], told["adapter.type"], told["adapter.lora.alpha"]) == (
        "adapter",
        "lora",
        6.0,
    )
    assert told["general.architecture"] == "llama"
    tensors = {tensor.name: np.asarray(tensor.data) for tensor in read.tensors}
    assert sorted(tensors) == [f"blk.{i}.attn_v.weight.lora_{half}" for i in (0, 1) for half in "ab"]
    kept = load_file(tmp_path / "adapter/adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    assert np.array_equal(tensors["blk.1.attn_v.weight.lora_b"], kept[name].numpy())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"use_dora": True}, "use_dora: .*--to gguf merges it"),
        ({"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}, "modules_to_save: "),
        ({"bias": "all"}, "bias: biases"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens.* has no place"),
        ({"trainable_token_indices": [1], "target_modules": ["q_proj"]}, "trainable_token_indices"),
    ],
)
def test_what_cannot_be_said(keys, what, base, tmp_path):
    adapted(tmp_path / "adapter", base, **keys)
    with pytest.raises(ExportError, match=what):
        lora.load(tmp_path / "adapter")


def test_other_adapters_are_named(base, tmp_path):
    settings = peft.LoHaConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(ggufs.model(base), settings).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="is LOHA; GGUF knows adapters of LoRA only"):
        lora.load(tmp_path)


def test_half_an_adapter(base, tmp_path):
    adapted(tmp_path, base, target_modules=["q_proj"])
    file = tmp_path / "adapter_model.safetensors"
    kept = load_file(file)
    kept.pop(next(name for name in kept if "lora_B" in name))
    save_file(kept, file)
    with pytest.raises(ExportError, match="has not both matrices"):
        lora.load(tmp_path)


def test_a_tied_head(tmp_path):
    base = ggufs.random_model(tmp_path / "tied", "llama", tie_word_embeddings=True)
    adapted(tmp_path / "adapter", base, target_modules=["lm_head"])
    kept = load_file(tmp_path / "adapter/adapter_model.safetensors")
    save_file({k: v for k, v in kept.items() if "lora_" in k}, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(ExportError, match="lm_head has no LoRA in GGUF's 'llama'"):
        lora.convert(lora.load(tmp_path / "adapter"), gguf.settings(base), tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()
