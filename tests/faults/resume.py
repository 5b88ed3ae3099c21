"""A run that is killed and started again reports and yields, bit for bit, what one left alone does."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import tasks
import tiny
from faults import cover
from faults.bench import Bench, Trial, Unavailable
from luthier.runs.hashing import sha256_file

ROWS = 14
CLOCKS = ("runtime", "per_second", "_time", "_seconds", "throughput", "crc32", "peak_memory")
"""How the names of those values end that a clock decides; all others must be equal."""

METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "lora+": {"loraplus_lr_ratio": 8.0},
    "pissa": {"pissa_init": True, "pissa_iter": 4},
    "exact pissa, rslora": {"pissa_init": True, "pissa_iter": -1, "use_rslora": True},
    "additional target": {"additional_target": "lm_head"},
    "8-bit base": {"quantization_bit": 8},
    "4-bit base": {"quantization_bit": 4},
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "sharing": {"packing": False},
    "no sharing": {"packing": False, "prefix_sharing": False},
    "packing": {"packing": True, "cutoff_len": 150},
    "small passes": {"packing": False, "micro_batch_tokens": 60},
}
NOISE: dict[str, dict[str, Any]] = {
    "no noise": {},
    "dropout": {"lora_dropout": 0.1},
    "attention dropout": {},
    "neftune": {"neftune_noise_alpha": 5.0},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"lr_scheduler_kwargs": {"num_cycles": 2}},
    "polynomial": {},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "cosine_with_min_lr": {"lr_scheduler_kwargs": {"min_lr": 1e-4}},
    "cosine_warmup_with_min_lr": {"lr_scheduler_kwargs": {"min_lr": 1e-4}},
    "warmup_stable_decay": {"lr_scheduler_kwargs": {"num_decay_steps": 3}},
}
STAGES: dict[str, dict[str, Any]] = {
    "sft": {},
    "pt": {"stage": "pt", "cutoff_len": 80},
    "pt, streaming": {
        "stage": "pt", "cutoff_len": 80, "streaming": True, "max_steps": 10, "buffer_size": 5,
    },
}  # fmt: skip
EVALUATION: dict[str, dict[str, Any]] = {
    "no evaluation": {},
    "the best is the result": {
        "val_size": 4, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True,
    },
}  # fmt: skip
STOPS = ("the first step", "mid-epoch", "the end of an epoch", "the last step but one", "the last step")
OPTIMIZERS = (
    "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "adamw_bnb_8bit",
    "lion_8bit",
)  # fmt: skip

FACTORS: dict[str, tuple[str, ...]] = {
    "method": tuple(METHODS),
    "accumulation": ("1", "2", "3"),
    "layout": tuple(LAYOUTS),
    "noise": tuple(NOISE),
    "stop": STOPS,
    "schedule": tuple(SCHEDULES),
    "optimizer": OPTIMIZERS,
    "stage": tuple(STAGES),
    "evaluation": tuple(EVALUATION),
}
IMPOSSIBLE: dict[cover.Pair, str] = {
    frozenset({("method", "full"), ("noise", "dropout")}): "this dropout stands in front of adapters",
    frozenset({("method", "freeze"), ("noise", "dropout")}): "this dropout stands in front of adapters",
    frozenset({("stage", "pt, streaming"), ("stop", "the end of an epoch")}): "a stream has no epochs",
}


def resume(bench: Bench, count: int) -> Iterator[Trial]:
    """Killed at the moment when a checkpoint is announced, then the same command again.

    The configurations cover every possible pair of levels of any two factors; there are at least `count`.
    """
    if find_spec("bitsandbytes") is None:
        raise Unavailable("bitsandbytes is not installed: quantized bases, 8-bit optimizers")
    design = cover.cover(FACTORS, IMPOSSIBLE)
    missing = cover.possible(FACTORS, IMPOSSIBLE) - set().union(*map(cover.pairs, design))
    assert not missing and len(design) >= 48, (missing, len(design))
    folder = bench.folder()
    bases(folder)
    for row in design if count >= 48 else cover.spread(design, count):
        what = ", ".join(
            row[factor] if factor != "accumulation" else f"x {row[factor]}" for factor in FACTORS
        )
        yield Trial(what, compared(bench, settings(folder, row), row["stop"]))


def bases(folder: Path) -> None:
    """Data, and four tiny bases: with and without dropout of attention, narrow or wide enough for 4 bits."""
    tasks.make(folder, ROWS)
    wide = {"hidden_size": 64, "head_dim": 16}
    tiny.make_model(folder / "base-noisy", attention_dropout=0.1)
    tiny.make_model(folder / "base-wide", **wide)
    tiny.make_model(folder / "base-wide-noisy", attention_dropout=0.1, **wide)


def settings(folder: Path, row: Mapping[str, str]) -> dict[str, Any]:
    """The configuration that a row of the design stands for: about ten steps in two and a half epochs."""
    each = {"1": 2, "2": 1, "3": 1} if row["layout"] == "packing" else {"1": 4, "2": 2, "3": 1}
    wide = "-wide" * (row["method"] == "4-bit base")
    noisy = "-noisy" * (row["noise"] == "attention dropout")
    asked = {
        "model_name_or_path": str(folder / f"base{wide}{noisy}"),
        "per_device_train_batch_size": each[row["accumulation"]],
        "gradient_accumulation_steps": int(row["accumulation"]),
        "num_train_epochs": 2.5,
        "save_steps": 1,
        "lr_scheduler_type": row["schedule"],
        "optim": row["optimizer"],
        **METHODS[row["method"]],
        **LAYOUTS[row["layout"]],
        **NOISE[row["noise"]],
        **SCHEDULES[row["schedule"]],
        **STAGES[row["stage"]],
        **EVALUATION[row["evaluation"]],
    }
    return tasks.make(folder, ROWS, **asked)


def compared(bench: Bench, asked: Mapping[str, Any], stop: str) -> str:
    """What differs between a run left alone and one killed at `stop` and started again; "" for nothing."""
    place = bench.folder()
    done = bench.luthier(train(asked, place / "whole"))
    if done.code:
        return done.err
    step = moment(place / "whole", stop)
    return continued(bench, asked, place, [f"checkpoint {step} durable"])


def train(asked: Mapping[str, Any], run: Path) -> list[str]:
    """The words of a command that trains in `run`."""
    return ["train", *tasks.words({**asked, "output_dir": str(run)})]


def continued(
    bench: Bench, asked: Mapping[str, Any], place: Path, lines: Sequence[str], threads: int = 1
) -> str:
    """How a run that is killed at each of these lines, and at last left alone, differs from place/whole."""
    words = train(asked, place / "killed")
    before = "training from step 0"
    for line in lines:
        done = bench.luthier(words, before=die_after, args=[line, threads])
        if done.code != -signal.SIGKILL or before not in done.err:
            return f"was not continued and killed at {line!r} but ended with {done.code}: {done.err}"
        kept = re.findall(r"checkpoint (\d+) durable", done.err)
        before = f"(step {kept[-1]})" if kept else before
    done = bench.luthier(words, before=compute_with, args=[threads])
    if done.code or before not in done.err:
        return f"was not continued ({before}) but ended with {done.code}: {done.err}"
    return difference(reported(place / "whole"), reported(place / "killed"))


def moment(whole: Path, stop: str) -> int:
    """The step that is meant, read from what an uninterrupted run wrote."""
    state = json.loads((whole / "trainer_state.json").read_text())
    last = state["log_history"][-1]
    total, epoch = int(state["global_step"]), round(last["step"] / last["epoch"])
    assert total >= 5 and epoch >= 2, "too short to be stopped in five different places"
    return {
        "the first step": 1,
        "mid-epoch": epoch + 1 if epoch < total else total // 2,
        "the end of an epoch": epoch,
        "the last step but one": total - 1,
        "the last step": total,
    }[stop]


class Doomed:
    """Standard error that kills its own process once a line has been written to it."""

    def __init__(self, stream: Any, line: str) -> None:
        self._stream, self._line = stream, line

    def write(self, text: str) -> int:
        written = int(self._stream.write(text))
        if self._line in text:
            self._stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def die_after(line: str, threads: int = 1) -> None:
    """Called in the process that is to die: a reader on the other side of a pipe would be some steps late."""
    compute_with(threads)
    sys.stderr = Doomed(sys.stderr, line)


def compute_with(threads: int) -> None:
    """Called in a process that is to compute with so many threads."""
    import torch

    torch.set_num_threads(threads)


def reported(run: Path) -> dict[str, Any]:
    """All that a run has written, by path: JSON without clocks, weights and pictures as hashes."""
    found: dict[str, Any] = {}
    for file in sorted(run.rglob("*")):
        name = str(file.relative_to(run))
        if file.suffix in (".safetensors", ".png") or file.name == "adapter_config.json":
            found[name] = sha256_file(file)
        elif file.name.endswith(("_results.json", "trainer_state.json", "ledger.json")):
            found[name] = timeless(json.loads(file.read_text()))
        elif file.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in file.read_text().splitlines()]
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if not key.endswith(CLOCKS)}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def difference(one: Any, other: Any, where: str = "") -> str:
    """The first place where two values differ, in words; numbers must be equal to the last bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        parts = ((f"{where} {key}", one.get(key), other.get(key)) for key in keys)
    elif isinstance(one, list) and isinstance(other, list):
        parts = ((f"{where} {k}", a, b) for k, (a, b) in enumerate(zip_longest(one, other)))
    else:
        return "" if one == other and type(one) is type(other) else f"{where}: {one!r} became {other!r}"
    return next((found for name, a, b in parts if (found := difference(a, b, name))), "")
