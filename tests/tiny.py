"""Tiny models and a tokenizer, made on the spot: tests need neither a network nor shipped weights.

    directory = make_model(tmp_path / "base", "qwen3")      # config.json, model.safetensors, tokenizer files
    tokenizer = tiny.tokenizer()                            # in memory, the same one

All models share one byte-level BPE tokenizer (ChatML, <|im_end|> ends a turn and a text, <|endoftext|> pads).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEXT = (
    "You are a helpful assistant. The user asks a question and the assistant writes an answer.",
    "system user assistant tool Hello, how are you? I am fine, thank you. What is your name?",
    "Where is my order? Your order is on its way and will arrive tomorrow. Can I return it? Yes, you can.",
    "你好，请问有什么可以帮您？我的订单在哪里？您的订单正在路上，明天就会到。我可以退货吗？可以的。",
    "One two three four five six seven eight nine ten. The quick brown fox jumps over the lazy dog.",
)
VOCAB = 400

GEOMETRY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": None,
}
ARCHITECTURES = {
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {"tie_word_embeddings": False}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {"tie_word_embeddings": False}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"tie_word_embeddings": False}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {"tie_word_embeddings": False, "sliding_window": 8}),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "tie_word_embeddings": True,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 8,
        },
    ),
}


@functools.cache
def _backend() -> str:
    """The tokenizer as tokenizers' JSON: trained once per process, equal in every process."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT, trainer)
    return str(bpe.to_str())


def tokenizer() -> PreTrainedTokenizerBase:
    """A fresh copy (tests may add tokens to theirs)."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend()),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=512,
    )
    fast.chat_template = CHATML
    return fast


def make_tokenizer(directory: str | Path) -> Path:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja; returns the directory."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    tokenizer().save_pretrained(str(directory))
    return Path(directory)


def build(arch: str = "qwen3", seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A random float32 model in memory; `overrides` are config keys. The caller's RNG is untouched."""
    import torch
    import transformers

    config_name, model_name, extra = ARCHITECTURES[arch]
    ids = {"vocab_size": len(tokenizer()), "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, config_name)(**{**GEOMETRY, **ids, **extra, **overrides})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, model_name)(config)
    return model.eval()


def make_model(
    directory: str | Path, arch: str = "qwen3", seed: int = 0, dtype: str = "float32", **overrides: Any
) -> Path:
    """Write such a model and the tokenizer to `directory`; returns it."""
    import torch

    model = build(arch, seed, **overrides).to(getattr(torch, dtype))
    model.save_pretrained(str(directory))
    return make_tokenizer(directory)


def disturb(model: PreTrainedModel, size: float = 0.1, seed: int = 0) -> PreTrainedModel:
    """Add noise to every trainable parameter (in place): what training would have changed, at once."""
    import torch

    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=draws).to(parameter)
    return model
