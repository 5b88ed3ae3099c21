"""A small base for headlines: a tokenizer learnt from them, and a Qwen3 model with random weights.

    python recipes/news/make_base.py DATA WORK

DATA holds train.json (sharegpt, "新闻分类：<headline>" -> class). WORK gets the headlines without their
classes, as text to pre-train on, and the untrained model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from luthier.demo import tokenizer

SEED = 0


def main(data: Path, work: Path) -> None:
    rows = json.loads((data / "train.json").read_text(encoding="utf-8"))
    headlines = [row["conversations"][0]["value"] for row in rows]
    (work / "data").mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("headlines.json", [{"text": text} for text in headlines]),
        ("dataset_info.json", {"headlines": {"file_name": "headlines.json", "columns": {"prompt": "text"}}}),
    ):
        (work / "data" / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    tokenizer.train(headlines, work / "start", vocabulary=8000)
    tokens = AutoTokenizer.from_pretrained(work / "start")
    torch.manual_seed(SEED)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokens),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=48,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
        )
    )
    model.save_pretrained(work / "start")
    print(f"{work / 'start'}: {model.num_parameters():,} parameters, {len(tokens)} tokens")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
