"""Memory and time of merging a LoRA adapter into a bfloat16 base, in memory and tensor by tensor.

    OMP_NUM_THREADS=1 python benchmarks/merge.py [--layers 12] [--width 1024]

Each way runs in a process of its own, which reports its peak resident memory beyond what the imports took,
and its CPU time. "in memory": load in float32, PEFT's merge, one rounding, save_pretrained. "whole export":
what `luthier export` does, which loads, compares, writes and compares again.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import luthier.demo
from luthier.config import Config

TOKENIZER = Path(luthier.demo.__file__).parent / "base"


def make(folder: Path, layers: int, width: int) -> None:
    """A random base with the demo's tokenizer, and an adapter on all linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    heads = width // 64
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=32_000, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=max(1, heads // 2), head_dim=64,
            max_position_embeddings=2048, bos_token_id=None, eos_token_id=2,
        )
    ).to(torch.bfloat16)  # fmt: skip
    model.save_pretrained(folder / "base")
    for file in TOKENIZER.glob("*token*"):
        shutil.copy(file, folder / "base")
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    tuned.save_pretrained(folder / "adapter")


def request(folder: Path, out: str) -> Config:
    return Config(
        verb="export", model_name_or_path=str(folder / "base"), template="chatml",
        adapter_name_or_path=(str(folder / "adapter"),), export_dir=str(folder / out),
    )  # fmt: skip


def in_memory(folder: Path) -> None:
    import torch

    from luthier.model import load, methods

    config = request(folder, "memory")
    base = load.model(config, torch.float32, training=False)
    merged = methods.merge(methods.prepare(base, config, training=False))
    merged.to(torch.bfloat16).save_pretrained(folder / "memory")


def by_tensor(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from luthier.export import merge_stream
    from luthier.model import load

    config = request(folder, "stream")
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(load.settings(config))
    (folder / "stream").mkdir()
    merge_stream.write(merge_stream.plan(shape, config, torch.bfloat16), folder / "stream", 5 * 10**9)


def whole(folder: Path) -> None:
    from luthier.export import merge

    merge.export(request(folder, "whole"))


WAYS = {"in memory": in_memory, "by tensor": by_tensor, "whole export": whole}


def child(way: str, folder: Path) -> None:
    """Print what the way took, beyond the imports."""
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM  # noqa: F401

    import luthier.export.merge  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    WAYS[way](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak": (peak - before) * 1024, "cpu": time.process_time() - began}))


def measure(way: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--way", choices=[*WAYS, "make"])
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.way == "make":
        make(asked.folder, asked.layers, asked.width)
        return
    if asked.way:
        child(asked.way, asked.folder)
        return
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        sizes = ["--layers", str(asked.layers), "--width", str(asked.width)]
        made = [sys.executable, __file__, "--way", "make", "--folder", str(folder), *sizes]
        subprocess.run(made, check=True, capture_output=True)  # a child's peak begins with its parent's size
        size = (folder / "base/model.safetensors").stat().st_size
        print(f"base: {size / 2 / 1e6:.0f} million weights, {size / 1e6:.0f} MB in bfloat16")
        for way in WAYS:
            found = measure(way, folder)
            print(
                f"{way:<13} peak {found['peak'] / 1e6:>6.0f} MB ({found['peak'] / size:.2f} x the base)"
                f"  {found['cpu']:.1f} s of CPU"
            )
        one, other = (_weights(folder / name / "model.safetensors") for name in ("memory", "stream"))
        print("same weights in both files:", one == other)


def _weights(file: Path) -> dict[str, bytes]:
    from safetensors.torch import load_file

    return {name: value.view(-1).float().numpy().tobytes() for name, value in load_file(file).items()}


if __name__ == "__main__":
    main()
