"""Every model type of architectures.yaml, with what its configuration can say, is the same in llama.cpp."""

import copy
from pathlib import Path
from typing import Any

import pytest

import ggufs
from luthier import gguf
from luthier.errors import ExportError
from luthier.gguf import architectures, read

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64}
GEMMA3 = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
    "long_factor": [1.0, 1.5, 2.0, 4.0, 8.0, 16.0],
    "original_max_position_embeddings": 256,
    "partial_rotary_factor": 0.75,
}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
BIASES = {"attention_bias": True}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3, **BIASES}),
    "llama 3.2": ("llama", {"rope_parameters": LLAMA3, "head_dim": 32, **TIED}),
    "llama linear": ("llama", {"rope_parameters": LINEAR, "mlp_bias": True}),
    "llama yarn": ("llama", {"rope_parameters": YARN}),
    "mistral": ("mistral", {}),
    "mistral yarn tied": ("mistral", {"rope_parameters": YARN, **TIED}),
    "qwen2": ("qwen2", {}),
    "qwen2 yarn tied": ("qwen2", {"rope_parameters": YARN, **TIED}),
    "qwen2_moe": ("qwen2_moe", {}),
    "qwen3_moe tied": ("qwen3_moe", TIED),
    "qwen2_moe without bias": ("qwen2_moe", {"qkv_bias": False}),
    "qwen3": ("qwen3", {}),
    "qwen3 yarn tied": ("qwen3", {"rope_parameters": YARN, **TIED}),
    "qwen3_moe": ("qwen3_moe", {}),
    "qwen3_moe yarn": ("qwen3_moe", {"rope_parameters": YARN}),
    "gemma2": ("gemma2", {}),
    "gemma2 scaled": ("gemma2", {"query_pre_attn_scalar": 12, "attn_logit_softcapping": 2.0}),
    "gemma2 27b": ("gemma2", {"num_hidden_layers": 46, "query_pre_attn_scalar": 64}),
    "gemma3 27b": ("gemma3_text", {"num_hidden_layers": 62, "query_pre_attn_scalar": 64}),
    "gemma3": ("gemma3_text", {"rope_parameters": GEMMA3}),
    "gemma3 scaled": ("gemma3_text", {"query_pre_attn_scalar": 12}),
    "phi3": ("phi3", {}),
    "phi3 longrope": ("phi3", {"rope_parameters": LONG, "max_position_embeddings": 1024, **TIED}),
    "smollm3": ("smollm3", {}),
    "smollm3 yarn": ("smollm3", {"rope_parameters": YARN, **TIED}),
    "granite": ("granite", {}),
    "granite tied": ("granite", {"attention_multiplier": 0.3, **TIED, **BIASES, "mlp_bias": True}),
    "olmo2": ("olmo2", {}),
    "olmo2 yarn": ("olmo2", {"rope_parameters": YARN, "num_key_value_heads": 4}),
    "gemma3 untied": ("gemma3_text", UNTIED),
    "glm4": ("glm4", {}),
    "glm4 without bias": ("glm4", {"attention_bias": False, **TIED}),
}
LENGTH = ggufs.GEOMETRY["max_position_embeddings"]
WITHIN = {"gemma2": 5e-3, "gemma3": 5e-3, "gemma2 27b": 1e-1, "gemma3 27b": 1e-2}
"""By a case or its first word. llama.cpp computes GELU from a table in float16; in the largest of each family
that happens 46 and 62 times, and queries scaled as in the smaller ones would differ by more than 2."""


def test_every_row_is_tried() -> None:
    assert {model for model, _ in CASES.values()} == set(architectures._rows()["models"])


@pytest.mark.parametrize("name", CASES)
def test_the_file_computes_what_the_model_did(name: str, tmp_path: Path) -> None:
    model, keys = copy.deepcopy(CASES[name])  # transformers fills in what it is given
    folder = ggufs.random_model(tmp_path / "model", model, **keys)
    file = gguf.convert(folder, tmp_path / "model.gguf", "f32")
    trained = ggufs.model(folder)
    # One token, some, more than the sliding window, and as many as fit.
    with ggufs.opened(file) as served:
        asked = ggufs.prompts(1, 20, 90, min(served.context, LENGTH) - 1)
        spread = float(ggufs.logprobs(trained, asked[1]).std())
        worst = ggufs.difference(served, trained, asked)
    assert spread > 1, "flat logits agree with anything"
    assert worst <= WITHIN.get(name, WITHIN.get(name.split()[0], 1e-4))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    "bias of the output": ("qwen3", BIASES, "attention_bias is True"),
    "bias of the mlp": ("smollm3", {"mlp_bias": True}, "mlp_bias is True"),
    "a head that is tied": ("olmo2", TIED, "tie_word_embeddings is True"),
    "a head that is not tied": ("gemma2", UNTIED, "tie_word_embeddings is False"),
    "sees what follows": (
        "gemma3_text",
        {"use_bidirectional_attention": True},
        "use_bidirectional_attention",
    ),
    "routing": ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob is False"),
    "dense layers": ("qwen2_moe", {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]"),
    "order of layers": ("gemma2", {"layer_types": ["full_attention"] * 2}, "sliding"),
    "layers without positions": ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, "fourth"),
    "llama3 elsewhere": ("qwen2", {"rope_parameters": LLAMA3}, "'llama3'.*default, linear, yarn"),
    "dynamic": ("llama", {"rope_parameters": {**LINEAR, "rope_type": "dynamic"}}, "'dynamic'"),
    "another yarn": ("qwen2", {"rope_parameters": {**YARN, "beta_fast": 16}}, "beta_fast"),
    "yarn not rounded": ("qwen2", {"rope_parameters": {**YARN, "truncate": False}}, "truncate"),
    "scaled window": (
        "gemma3_text",
        {"rope_parameters": {**GEMMA3, "sliding_attention": LINEAR}},
        "'linear' of sliding layers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_gguf_would_compute_otherwise_is_refused(name: str) -> None:
    model, keys, why = copy.deepcopy(REFUSED[name])
    config = ggufs.settings(model, **keys)
    with pytest.raises(ExportError, match=why):
        architectures.metadata(config, architectures.of(config))


def test_a_type_that_is_not_covered_is_named_with_those_that_are(tmp_path: Path) -> None:
    folder = ggufs.random_model(tmp_path / "model", "gpt_neox")
    with pytest.raises(ExportError, match=r"'gpt_neox'.*gemma2.*llama.*smollm3.*--to hf"):
        gguf.convert(folder, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.parametrize(
    "model, keys", [("mistral", {}), ("qwen3", {"use_sliding_window": True, "max_window_layers": 1})]
)
def test_a_window_that_llama_cpp_lacks_ends_the_context(
    model: str, keys: dict[str, Any], tmp_path: Path
) -> None:
    folder = ggufs.random_model(tmp_path / "model", model, sliding_window=64, **keys)
    said: list[str] = []
    file = gguf.convert(folder, tmp_path / "model.gguf", "f32", say=said.append)
    head = read.header(file)
    assert head.metadata[f"{head.architecture}.context_length"] == 64
    assert any("num_ctx 64" in line for line in said)


def test_a_window_that_is_not_used_changes_nothing() -> None:
    config = ggufs.settings("qwen2", sliding_window=64, use_sliding_window=False)
    numbers, notes = architectures.metadata(config, architectures.of(config))
    assert numbers["context_length"] == LENGTH and not notes


def test_a_share_that_the_model_ignores_is_not_written() -> None:
    """transformers rotates whole heads of a llama, whatever its configuration says."""
    told = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = ggufs.settings("llama", rope_parameters=told)
    assert architectures.metadata(config, architectures.of(config))[0]["rope.dimension_count"] == 16


def test_shards_are_read_as_one_model(tmp_path: Path) -> None:
    whole = ggufs.random_model(tmp_path / "whole", "qwen2_moe")
    parts = tmp_path / "parts"
    ggufs.model(whole).save_pretrained(parts, max_shard_size="100KB")
    ggufs.tiny.make_tokenizer(parts)
    assert len(list(parts.glob("*.safetensors"))) > 2
    one = gguf.convert(whole, tmp_path / "model.gguf", "f32").read_bytes()
    other = gguf.convert(parts, tmp_path / "parts.gguf", "f32").read_bytes()
    assert one.replace(b"whole", b"parts") == other
