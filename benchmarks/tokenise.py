"""Rows per second from a JSON file to tokens, and the memory it takes; beside LLaMA-Factory if it is there.

    python benchmarks/tokenise.py --rows 100000 [--rival /path/to/python] [--workers 1]

Rows are alpaca rows made from a seed, no two alike: `long` of about 150 tokens in Chinese, `short` of about
40. The rival is the Python of an environment with llamafactory 0.9.5; its own loading code reads the same
file with the same tokenizer, template and cutoff. Runs alternate; ratios are of the best of three.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHARACTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就"
    "分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
)
RIVAL = """
import sys, time
folder, rows, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
from llamafactory.hparams import get_train_args
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.model import load_tokenizer
keys = dict(model_name_or_path=folder, stage="sft", do_train=True, finetuning_type="lora", dataset="rows",
    dataset_dir=folder, template="qwen", cutoff_len=1024, output_dir=folder + "/rival", overwrite_cache=True,
    preprocessing_num_workers=workers, report_to="none", use_cpu=True)
model, data, training, _, _ = get_train_args(keys)
tokenizer = load_tokenizer(model)["tokenizer"]
template = get_template_and_fix_tokenizer(tokenizer, data)
began = time.perf_counter()
get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer)
print("rows_per_second", rows / (time.perf_counter() - began))
"""


def write_rows(folder: Path, count: int, kind: str) -> None:
    rng = random.Random(7)
    size = (60, 240) if kind == "long" else (2, 8)

    def text(low: int, high: int) -> str:
        return "".join(rng.choices(CHARACTERS, k=rng.randint(low, high)))

    rows = [
        {
            "instruction": f"{k} {text(8, 40)}？",
            "input": "",
            "output": "，".join(text(*size) for _ in range(2)),
        }
        for k in range(count)
    ]
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (folder / "dataset_info.json").write_text('{"rows": {"file_name": "rows.json"}}')


def write_model(folder: Path) -> None:
    """A byte-level BPE of 8,000 tokens trained on the rows, and a configuration to go with it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))[:2000]
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((r["instruction"] + r["output"] for r in rows), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.save_pretrained(str(folder))
    Qwen3Config(vocab_size=len(fast), hidden_size=64, num_hidden_layers=1).save_pretrained(str(folder))


def ours(folder: Path, rows: int) -> float:
    from luthier.config import load
    from luthier.data.prepare import prepare
    from luthier.data.render import Renderer
    from luthier.model import load as loading

    keys = {
        "model_name_or_path": str(folder), "dataset": "rows", "dataset_dir": str(folder), "template": "qwen",
        "cutoff_len": 1024, "output_dir": str(folder / "o"), "overwrite_cache": True,
        "tokenized_path": str(folder / "tokens"),
    }  # fmt: skip
    config = load(keys, "train", {})
    renderer = Renderer.of(config, loading.tokenizer(config))
    began = time.perf_counter()
    prepare(config, renderer, lambda line: None)
    return rows / (time.perf_counter() - began)


def rival(python: str, folder: Path, rows: int, workers: int) -> float:
    command = [python, "-c", RIVAL, str(folder), str(rows), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("rows_per_second"))
    return float(line.split()[1])


def alone(folder: Path, rows: int) -> tuple[float, float]:
    """Our figure from a process of its own: rows per second, and its peak memory in MB."""
    command = [sys.executable, __file__, "--one", str(folder), "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    speed, memory = done.stdout.split()[-2:]
    return float(speed), float(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rival", help="Python of an environment with llamafactory")
    parser.add_argument("--workers", type=int, default=1, help="the rival's preprocessing_num_workers")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        speed = ours(Path(asked.one), asked.rows)
        print(speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    for kind in ("long", "short"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_rows(folder, asked.rows, kind)
            write_model(folder)
            mine, theirs, memory = [], [], 0.0
            for _ in range(3):
                speed, memory = alone(folder, asked.rows)
                mine.append(speed)
                if asked.rival:
                    theirs.append(rival(asked.rival, folder, asked.rows, asked.workers))
            found = {"rows": kind, "luthier_rows_per_s": round(max(mine)), "peak_mb": round(memory)}
            if theirs:
                found |= {"rival_rows_per_s": round(max(theirs)), "ratio": round(max(mine) / max(theirs), 2)}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
