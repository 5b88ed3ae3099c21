"""Answers to headlines per second, beside LLaMA-Factory's do_predict if it is there.

    python benchmarks/predict.py --data ../shared/data/news --rival /path/to/python [--out predict.json]

Both answer the same rows greedily with the same model of 38 million parameters: Qwen2, a tokenizer learnt
from the headlines, trained by `luthier train` for 150 steps so that it ends its answers (kept in --work). The
rival is the Python of an environment with llamafactory[metrics] 0.9.5. It runs at its defaults (8 rows a
batch), at the best of a grid of batch sizes in float32, and at the best of all, bfloat16 included. Runs
alternate in processes of their own; ratios are medians over the rounds. Three clocks:

- loop: the answering itself; of the rival the sum of its prediction_step, which leaves out its collator and
  its metrics; ours is the whole of `generate` (or `score`);
- cpu: processor time of the same, all threads together: what is left to compare on a busy machine;
- command: the whole process, from import to written files.

The floor is the time that the multiplications of the rows' own tokens need at the speed of one large matrix
product: prompts without what they share, and the tokens of the answers, each through all weights but the
embedding. Answers of all runs are compared text by text with the rival's at its defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
GEOMETRY = {
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 8,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "tie_word_embeddings": True,
}  # fmt: skip
TRAINING = {
    "stage": "sft", "finetuning_type": "full", "dataset": "train", "max_samples": 1200, "cutoff_len": 128,
    "template": "qwen", "save_strategy": "no", "per_device_train_batch_size": 16, "num_train_epochs": 2,
    "gradient_accumulation_steps": 1, "learning_rate": 5e-4, "warmup_ratio": 0.06, "weight_decay": 0.1,
    "adam_beta2": 0.95, "lr_scheduler_type": "cosine",
}  # fmt: skip
GRID = [{"per_device_eval_batch_size": rows} for rows in (16, 32, 64, 128)]
GRID += [{"per_device_eval_batch_size": rows, "bf16": True, "use_cpu": True} for rows in (16, 32, 64)]
RIVAL = """
import json, sys, time, torch
spec = json.loads(sys.argv[1])
torch.set_num_threads(spec.pop("threads"))
from importlib.metadata import version
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
from llamafactory.train.tuner import run_exp
step, spent = CustomSeq2SeqTrainer.prediction_step, [0.0, 0.0]
def timed(*args, **options):
    loop, cpu = time.perf_counter(), time.process_time()
    found = step(*args, **options)
    spent[0] += time.perf_counter() - loop
    spent[1] += time.process_time() - cpu
    return found
CustomSeq2SeqTrainer.prediction_step = timed
run_exp(spec)
versions = {name: version(name) for name in ("llamafactory", "transformers", "torch")}
print("FOUND " + json.dumps({"loop": spent[0], "cpu": spent[1], "versions": versions}))
"""


# --- the model


def make_model(data: Path, work: Path) -> Path:
    """The trained model in `work`; made where it is missing (some minutes)."""
    run = work / "run"
    if not (run / "train_results.json").is_file():
        _start(data, work / "start")
        keys = TRAINING | {"model_name_or_path": work / "start", "dataset_dir": data, "output_dir": run}
        words = [f"{name}={value}" for name, value in keys.items()]
        subprocess.run([sys.executable, "-m", "luthier", "train", *words], check=True, capture_output=True)
    return run


def _start(data: Path, folder: Path) -> None:
    """Random weights, and a tokenizer that reads the template's English as large models' tokenizers do."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from luthier.demo import tokenizer

    turns = [turn["value"] for row in _rows(data, "train") for turn in row["conversations"]]
    tokenizer.train([*turns, *[f"system\n{SYSTEM}user\nassistant\n"] * 1000], folder, vocabulary=8000)
    found = AutoTokenizer.from_pretrained(folder)
    ends = {"bos_token_id": None, "eos_token_id": found.eos_token_id, "pad_token_id": found.pad_token_id}
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(vocab_size=len(found), **GEOMETRY, **ends)).save_pretrained(folder)


def _rows(data: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((data / f"{name}.json").read_text(encoding="utf-8"))
    return rows


def request(model: Path, data: Path, rows: int, out: Path) -> dict[str, Any]:
    """What both sides are asked, under the names that they share."""
    return {
        "model_name_or_path": str(model), "dataset_dir": str(data), "eval_dataset": "eval",
        "template": "qwen", "do_sample": False, "max_samples": rows, "output_dir": str(out),
    }  # fmt: skip


# --- runs


def rival(python: str, asked: dict[str, Any], threads: int, settings: dict[str, Any]) -> dict[str, Any]:
    keys = asked | settings | {
        "stage": "sft", "do_predict": True, "predict_with_generate": True, "finetuning_type": "full",
        "report_to": "none", "overwrite_cache": True, "threads": threads,
    }  # fmt: skip
    return _spoken([python, "-c", RIVAL, json.dumps(keys)], Path(asked["output_dir"]))


def ours(asked: dict[str, Any], threads: int, settings: dict[str, Any]) -> dict[str, Any]:
    spec = json.dumps(asked | settings | {"threads": threads})
    return _spoken([sys.executable, __file__, "--one", spec], Path(asked["output_dir"]))


def _spoken(command: list[str], out: Path) -> dict[str, Any]:
    """What a process found, with its own duration and its answers."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    spent = time.perf_counter() - began
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    if done.returncode or not lines:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-3000:]}")
    answers = out / "generated_predictions.jsonl"
    texts = [json.loads(line)["predict"] for line in answers.read_text("utf-8").splitlines()]
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("FOUND "))
    return {"answers": texts, **found, "command": spent}


def one(spec: dict[str, Any]) -> None:
    """Our side, in a process of its own: `luthier predict`, or the likelihood of every label of the rows."""
    import torch

    torch.set_num_threads(spec.pop("threads"))
    likelihood = spec.pop("likelihood", False)
    from luthier.config import load
    from luthier.infer import loading, predict
    from luthier.infer.hf import HFEngine
    from luthier.infer.questions import questions

    config = load(spec, "predict", {})
    if not likelihood:
        HFEngine.generate, spent = _timed(HFEngine.generate)  # type: ignore[method-assign]
        predict.predict(config, lambda line: None)
    else:
        tokenizer, renderer = loading.text(config, lambda line: None)
        rows = questions(config, renderer, lambda line: None)
        ready = loading.model(config, tokenizer, renderer)
        labels = sorted({row.label for row in rows})
        plain = tokenizer(labels, add_special_tokens=False).input_ids
        ids = [[*one, tokenizer.eos_token_id] for one in plain]
        score, spent = _timed(ready.engine.score)  # type: ignore[attr-defined]
        scores = score([row.prompt for row in rows], [ids] * len(rows))
        _keep(Path(spec["output_dir"]), [labels[max(range(len(ids)), key=s.__getitem__)] for s in scores])
    print("FOUND " + json.dumps({"loop": spent[0], "cpu": spent[1]}))


def _timed(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[float]]:
    """The function, and a list that grows by the seconds on the wall and of the processor it took."""
    spent: list[float] = []

    def called(*args: Any, **options: Any) -> Any:
        loop, cpu = time.perf_counter(), time.process_time()
        found = function(*args, **options)
        spent.extend([time.perf_counter() - loop, time.process_time() - cpu])
        return found

    return called, spent


def _keep(out: Path, answers: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"predict": text}, ensure_ascii=False) + "\n" for text in answers]
    (out / "generated_predictions.jsonl").write_text("".join(lines), encoding="utf-8")


# --- the comparison


def floor(model: Path, data: Path, rows: int, threads: int) -> dict[str, float]:
    """Seconds that the multiplications of our generation need at least, and the speeds measured for it."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    torch.set_num_threads(threads)
    config, tokenizer = AutoConfig.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    width, inner = config.hidden_size, config.intermediate_size
    head = width // config.num_attention_heads
    square = 2 * width * width + 2 * width * head * config.num_key_value_heads + 3 * width * inner
    turns = [[turn["value"] for turn in row["conversations"]] for row in _rows(data, "eval")[:rows]]
    # After the shared beginning: the headline, the end of its turn, the header, and the answer read back.
    texts = [
        f"{asked.removeprefix('新闻分类：')}<|im_end|>\n<|im_start|>assistant\n{said}"
        for asked, said in turns
    ]
    tokens = sum(map(len, tokenizer(texts, add_special_tokens=False).input_ids))
    work = 2 * tokens * square * config.num_hidden_layers
    found = {"tokens": float(tokens)}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        speed = _speed(torch.zeros(1024, width, dtype=dtype), torch.zeros(inner, width, dtype=dtype))
        found |= {f"{name}_gflops": round(speed / 1e9), f"{name}_seconds": round(work / speed, 2)}
    return found


def _speed(rows: Any, weight: Any) -> float:
    """Floating-point operations a second of one product, best of twenty."""
    import torch

    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        torch.nn.functional.linear(rows, weight)
        best = min(best, time.perf_counter() - began)
    return 2 * rows.numel() * weight.shape[0] / best


def best_settings(run: Callable[[dict[str, Any]], dict[str, Any]], clock: str) -> dict[str, dict[str, Any]]:
    """The rival's settings that take the least time: of those in float32, and of all."""
    spent = []
    for settings in GRID:
        found = run(settings)
        spent.append(found[clock])
        print(json.dumps({"grid": settings, "loop": found["loop"], "cpu": found["cpu"]}), flush=True)
    order = sorted(range(len(GRID)), key=lambda k: spent[k])
    exact = next(k for k in order if "bf16" not in GRID[k])
    return {"rival best float32": GRID[exact], "rival best": GRID[order[0]]}


def compare(runs: dict[str, list[dict[str, Any]]], rows: int) -> dict[str, Any]:
    """Medians over the rounds, rows per second, and how many times faster than each way of the rival."""
    middle = {
        name: {clock: median(one[clock] for one in found) for clock in ("loop", "cpu", "command")}
        for name, found in runs.items()
    }
    first = runs.get("rival default", runs["ours"])[0]["answers"]
    table: dict[str, Any] = {}
    for name, found in runs.items():
        equal = [sum(a == b for a, b in zip(one["answers"], first, strict=True)) for one in found]
        table[name] = {clock: round(spent, 2) for clock, spent in middle[name].items()}
        table[name] |= {"rows_per_s": round(rows / middle[name]["loop"], 1), "equal": min(equal)}
    pairs = [(a, b) for a in runs for b in runs if a.startswith("ours") and b.startswith("rival")]
    pairs += [("ours likelihood", "ours")]
    ratios = {
        f"{a} over {b}": {clock: round(middle[b][clock] / middle[a][clock], 2) for clock in middle[a]}
        for a, b in pairs
    }
    return {"runs": table, "times_faster": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/news"))
    parser.add_argument("--rival", help="Python of an environment with llamafactory[metrics]")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--grid-rows", type=int, default=256, help="rows to find the rival's best settings on"
    )
    parser.add_argument("--clock", choices=("loop", "cpu"), default="loop", help="what the grid is ranked by")
    parser.add_argument("--work", type=Path, help="where the model is kept between runs of this script")
    parser.add_argument("--out", type=Path, help="a JSON file with everything that is printed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(json.loads(asked.one))
        return
    with tempfile.TemporaryDirectory() as name:
        found = measure(asked, Path(name), (asked.work or Path(name)).resolve())
    text = json.dumps(found, ensure_ascii=False, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")


def measure(asked: argparse.Namespace, scratch: Path, work: Path) -> dict[str, Any]:
    import torch
    import transformers

    data, threads = asked.data.resolve(), asked.threads
    model = make_model(data, work)
    ask = request(model, data, asked.rows, scratch / "answers")
    small = ask | {"max_samples": asked.grid_rows}
    ways: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, Any]]] = {}
    if asked.rival:
        best = best_settings(lambda settings: rival(asked.rival, small, threads, settings), asked.clock)
        ways = {
            name: (lambda settings: rival(asked.rival, ask, threads, settings), settings)
            for name, settings in {"rival default": {}, **best}.items()
        }
    mine = {"ours": {}, "ours bfloat16": {"infer_dtype": "bfloat16"}, "ours likelihood": {"likelihood": True}}
    ways |= {name: (lambda settings: ours(ask, threads, settings), s) for name, s in mine.items()}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, (way, settings) in ways.items():
            runs[name].append(way(settings))
            print(json.dumps({name: runs[name][-1] | {"answers": None}}), flush=True)
    versions = {"luthier": {"torch": torch.__version__, "transformers": transformers.__version__}}
    if asked.rival:
        versions["rival"] = runs["rival default"][0]["versions"]
    return {
        "machine": f"{platform.processor() or platform.machine()}, {threads} threads",
        "rows": asked.rows,
        "rounds": asked.rounds,
        "settings": {name: settings for name, (_, settings) in ways.items()},
        "versions": versions,
        "floor": floor(model, data, asked.rows, threads),
        **compare(runs, asked.rows),
    }


if __name__ == "__main__":
    main()
