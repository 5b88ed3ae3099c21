"""The starting point of the demo's base: its texts, its tokenizer, and a Qwen3 model with random weights.

python recipes/demo_base/make_base.py out/demo_base
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from luthier.demo import corpus, tokenizer

SEED = 0


def main(directory: Path) -> None:
    corpus.write(directory / "data", SEED)
    talk = (text for turns in corpus.conversations(SEED) for turn in turns for text in turn)
    tokenizer.train([*corpus.documents(SEED), *talk], directory / "start")
    tokens = AutoTokenizer.from_pretrained(directory / "start")
    torch.manual_seed(SEED)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokens),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=48,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
        )
    )
    model.save_pretrained(directory / "start")
    print(f"{directory / 'start'}: {model.num_parameters():,} parameters, {len(tokens)} tokens")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo_base"))
