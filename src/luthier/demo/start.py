"""A model to begin with: random weights for a tokenizer that lies in a directory."""

from __future__ import annotations

from pathlib import Path


def untrained(directory: Path, layers: int, key_value_heads: int, length: int, seed: int = 0) -> str:
    """Write a small Qwen3 model beside the tokenizer in `directory`; returns a line that describes it.

    Width 192, 4 heads of 48, tied embeddings; the weights depend on `seed` alone.
    """
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokens = AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokens),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=key_value_heads,
            head_dim=48,
            max_position_embeddings=length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
        )
    )
    model.save_pretrained(directory)
    return f"{directory}: {model.num_parameters():,} parameters, {len(tokens)} tokens"
