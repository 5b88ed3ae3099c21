"""What converting to GGUF costs beside copying the bytes: time, processor time and memory.

    python benchmarks/convert.py [--work FOLDER] [--rounds 3] [--out convert.json]

A model with the geometry of Qwen2.5-0.5B (random bfloat16 weights in shards of 300 MB, 151 936 tokens) is
made in FOLDER and converted to each number format, on one thread, in a process of its own. What it wrote is
then copied by `cp`, and both are synced to the disk. Times are medians over the rounds. Memory is the largest
resident set of the process (VmHWM); what importing the libraries takes of it is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

GEOMETRY = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": True,
    "vocab_size": 151936, "eos_token_id": 2,
}  # fmt: skip
KINDS = ("bf16", "f16", "f32")
CHILD = """
import json, sys, time
from pathlib import Path
from luthier import gguf
import torch, transformers, transformers.models.qwen2.configuration_qwen2
torch.set_num_threads(1)
def peak():
    told = Path("/proc/self/status").read_text()
    return int(told[told.index("VmHWM:"):].split()[1]) / 1024
before = peak()
wall, cpu = time.perf_counter(), time.process_time()
gguf.convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], say=lambda text: None)
found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
print(json.dumps({**found, "peak": peak(), "libraries": before}))
"""


def make(folder: Path) -> Path:
    """The model, shard by shard, so that this process stays small too."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "model.safetensors.index.json").is_file():
        return folder
    config = AutoConfig.for_model("qwen2", **GEOMETRY)
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {
            name: value.shape for name, value in AutoModelForCausalLM.from_config(config).state_dict().items()
        }
    shapes.pop("lm_head.weight", None)
    torch.manual_seed(0)
    table: dict[str, str] = {}
    shard: dict[str, Any] = {}
    for name, shape in shapes.items():
        shard[name] = (torch.randn(shape) * 0.02).bfloat16()
        if sum(value.nbytes for value in shard.values()) > 300e6 or name == list(shapes)[-1]:
            file = f"model-{len(set(table.values())):05d}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            table |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    base = Path(__file__).parents[1] / "src/luthier/demo/base"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((base / name).read_bytes())
    return folder


def copied(file: Path) -> dict[str, float]:
    """What copying a file takes, synced."""
    target = file.with_name("copy")
    wall, spent = time.perf_counter(), _children()
    subprocess.run(["cp", str(file), str(target)], check=True)
    subprocess.run(["sync", str(target)], check=True)
    found = {"copy_wall": time.perf_counter() - wall, "copy_cpu": _children() - spent}
    target.unlink()
    return found


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def converted(source: Path, target: Path, kind: str) -> dict[str, float]:
    """One conversion, and what copying its result takes."""
    words = [sys.executable, "-c", CHILD, str(source), str(target), kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    found |= {**copied(target), "bytes": target.stat().st_size}
    target.unlink()
    return found


def main() -> None:
    """Convert, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    work = words.work or Path(tempfile.mkdtemp())
    source = make(work / "model")
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        runs = [converted(source, work / f"{kind}.gguf", kind) for _ in range(words.rounds)]
        one = found[kind] = {key: median(run[key] for run in runs) for key in runs[0]}
        one["times"] = one["wall"] / one["copy_wall"]
        print(
            f"{kind}: {one['bytes'] / 1e6:.0f} MB in {one['wall']:.2f} s, copied in {one['copy_wall']:.2f} s"
            f" ({one['times']:.2f} x); processor {one['cpu']:.2f} s; memory {one['peak']:.0f} MB,"
            f" {one['libraries']:.0f} of it libraries"
        )
    if words.out:
        words.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
