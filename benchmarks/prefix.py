"""What prefix sharing saves: the same steps with and without it, alternating.

    OMP_NUM_THREADS=1 python benchmarks/prefix.py

Short questions under one system prompt of about 60 tokens, LoRA r=8 on all linear layers, 8 rows a step, on
a base of about 31 million random weights. Best of three; the losses of all runs must agree.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

from tokenise import CHARACTERS, write_model
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from luthier.config import load
from luthier.train.run import train

SYSTEM = "".join(random.Random(1).choices(CHARACTERS, k=90))
LABELS = ("体育", "娱乐", "家居", "房产", "教育", "时尚", "时政", "游戏", "科技", "财经")
GEOMETRY = {
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 10, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True,
}  # fmt: skip


def prepare(folder: Path) -> None:
    rng = random.Random(7)
    rows = [
        {"instruction": "".join(rng.choices(CHARACTERS, k=rng.randint(12, 28))), "output": rng.choice(LABELS)}
        for _ in range(400)
    ]
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    write_model(folder)
    vocabulary = len(AutoTokenizer.from_pretrained(folder))
    Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, **GEOMETRY)).save_pretrained(folder)


def run(folder: Path, name: str, share: bool) -> dict[str, float]:
    keys = {
        "model_name_or_path": str(folder), "dataset": str(folder / "rows.json"), "template": "chatml",
        "default_system": SYSTEM, "output_dir": str(folder / name), "max_steps": 8, "learning_rate": 1e-4,
        "per_device_train_batch_size": 8, "lora_rank": 8, "lora_target": "all", "save_strategy": "no",
        "prefix_sharing": share, "tokenized_path": str(folder / "tokens"),
    }  # fmt: skip
    found: dict[str, float] = train(load(keys, "train", {})).read_json("train_results.json")
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        runs: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for k in range(3):
            for share in runs:
                runs[share].append(run(folder, f"run-{k}-{share}", share))
    losses = [r["train_loss"] for both in runs.values() for r in both]
    assert max(losses) - min(losses) < 1e-4 * min(losses), losses
    for share, found in runs.items():
        best = max(r["train_steps_per_second"] for r in found)
        tokens = found[0]["num_input_tokens_seen"]
        print(json.dumps({"prefix_sharing": share, "tokens": tokens, "steps_per_s": best}))


if __name__ == "__main__":
    main()
