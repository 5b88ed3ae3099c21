"""Continuing with something changed: each change is named and classified, and nothing happens silently."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import prepared
from faults.bench import Bench, Done, Trial

HARMLESS, MATHEMATICS, IMPOSSIBLE = "harmless", "changes the mathematics", "impossible"


@dataclass(frozen=True)
class Change:
    """What is changed, and how it must be named.

    keys: of the configuration · edit: files below the folder of the task · kind, named: what the message says
    · same: harmless to the last bit, so that the final weights are those of the clean run.
    """

    what: str
    kind: str
    named: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    edit: Callable[[Path], object] | None = None
    threads: int = 1
    same: bool = True


def _data(folder: Path) -> None:
    file = folder / "data" / "intent.json"
    file.write_text(file.read_text("utf-8").replace("物流查询", "投诉建议", 1), encoding="utf-8")


def _more_data(folder: Path) -> None:
    file = folder / "data" / "intent.json"
    rows = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps([*rows, rows[0]], ensure_ascii=False), encoding="utf-8")


def _columns(folder: Path) -> None:
    file = folder / "data" / "dataset_info.json"
    info = {"intent": {"file_name": "intent.json", "columns": {"prompt": "input", "response": "output"}}}
    file.write_text(json.dumps(info), encoding="utf-8")


def _tokenizer(folder: Path) -> None:
    file = folder / "base" / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:-1]
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _weights(folder: Path) -> None:
    file = folder / "base" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1  # a digit of the last weight
    file.write_bytes(data)


def _moved_base(folder: Path) -> None:
    shutil.copytree(folder / "base", folder / "the same base")


def _copied_data(folder: Path) -> None:
    shutil.copytree(folder / "data", folder / "the same data")


def changes_of(folder: Path) -> list[Change]:
    """Data, template, tokenizer, base weights, batch size, seed; method, schedule and cosmetics."""
    plain = [
        Change("a word of the data", MATHEMATICS, "data.intent.json", edit=_data),
        Change("the seed", MATHEMATICS, "seed", {"seed": 43}),
        Change("the adapter's rank", IMPOSSIBLE, "lora_rank", {"lora_rank": 4}),
        Change("a larger batch", MATHEMATICS, "examples per step", {"per_device_train_batch_size": 8}),
        Change("the base's weights", IMPOSSIBLE, "base.model.safetensors", edit=_weights),
        Change("the template", MATHEMATICS, "template", {"template": "llama3"}),
        Change("the tokenizer", MATHEMATICS, "tokenizer.tokenizer.json", edit=_tokenizer),
        Change("how often it is saved", HARMLESS, "save_steps", {"save_steps": 3}),
        Change(
            "the same batch, accumulated", HARMLESS, "gradient_accumulation_steps",
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        ),
        Change("a row more", MATHEMATICS, "data.intent.json", edit=_more_data),
        Change("columns of the data", MATHEMATICS, "data.dataset_info.json", edit=_columns),
        Change("a copy of the base", HARMLESS, "model_name_or_path",
               {"model_name_or_path": str(folder / "the same base")}, _moved_base),
        Change("a copy of the data", HARMLESS, "dataset_dir",
               {"dataset_dir": str(folder / "the same data")}, _copied_data),
        Change("the learning rate", MATHEMATICS, "learning_rate", {"learning_rate": 1e-3}),
        Change("the schedule", MATHEMATICS, "lr_scheduler_type", {"lr_scheduler_type": "linear"}),
        Change("more epochs", MATHEMATICS, "num_train_epochs", {"num_train_epochs": 2.0}),
        Change("the order of the data", MATHEMATICS, "data_seed", {"data_seed": 7}),
        Change("the length", MATHEMATICS, "cutoff_len", {"cutoff_len": 64}),
        Change("dropout", MATHEMATICS, "lora_dropout", {"lora_dropout": 0.5}),
        Change("the method", IMPOSSIBLE, "finetuning_type", {"finetuning_type": "full"}),
        Change("the optimizer", IMPOSSIBLE, "optim", {"optim": "sgd"}),
        Change("the layers", IMPOSSIBLE, "lora_target", {"lora_target": "q_proj,v_proj"}),
        Change("how often it is logged", HARMLESS, "logging_steps", {"logging_steps": 2}),
        Change("what fits at once", HARMLESS, "micro_batch_tokens", {"micro_batch_tokens": 100}, same=False),
        Change("threads", HARMLESS, "process.threads", threads=2, same=False),
    ]  # fmt: skip
    return plain


def changes(bench: Bench, count: int) -> Iterator[Trial]:
    """Each change on a copy of a run that was killed half-way; the last one with two ranks instead of one."""
    folder = bench.folder()
    half = prepared.half(bench, folder, step=4, lora_dropout=0.1)
    for number, change in enumerate(changes_of(folder)[: count - 1 if count > 20 else count]):
        with _edited(folder, change.edit):
            problem = _tried(bench, half, change, f"changed-{number}")
        yield Trial(change.what, problem, {change.kind: 1})
    if count > 20:
        yield Trial("two ranks", _two_ranks(bench, half), {MATHEMATICS: 1})


@contextmanager
def _edited(folder: Path, edit: Callable[[Path], object] | None) -> Iterator[None]:
    """Files changed for as long as the body runs."""
    names = [folder / part for part in ("data", "base")]
    kept = {file: file.read_bytes() for name in names for file in name.iterdir()}
    if edit is not None:
        edit(folder)
    try:
        yield
    finally:
        for file, data in kept.items():
            if file.read_bytes() != data:
                file.write_bytes(data)


def _tried(bench: Bench, half: prepared.Half, change: Change, name: str) -> str:
    place, _ = half.copy(name)
    before = prepared.tree(place)
    threads = {"before": "torch:set_num_threads", "args": [change.threads]}
    done = bench.luthier(["train", *half.words(place, **change.keys)], **threads)
    if change.kind == HARMLESS:
        wrong = _went_on(done, f"continuing with {change.named}: ", change.kind)
        return wrong or (half.differs(place) if change.same else "")
    wrong = _refused(done, change) or ("" if prepared.tree(place) == before else "files were changed")
    if wrong:
        return wrong
    done = bench.luthier(["train", *half.words(place, confirm_changes=True, **change.keys)])
    if change.kind == IMPOSSIBLE:
        return _refused(done, change)
    return _went_on(done, f"continuing with {change.named}: ", change.kind)


def _refused(done: Done, change: Change) -> str:
    line = re.search(rf"^ *{re.escape(change.named)}: .* -> .* \({change.kind}\)$", done.err, re.MULTILINE)
    if done.code == 1 and line and "Traceback" not in done.err:
        return ""
    return f"exit {done.code}, not named as {change.named} ({change.kind}): {done.err[-600:]}"


def _went_on(done: Done, said: str, kind: str) -> str:
    lines = [line for line in done.err.splitlines() if line.startswith(said)]
    if done.code != 0:
        return f"exit {done.code}: {done.err[-600:]}"
    return "" if any(line.endswith(f"({kind})") for line in lines) else f"not said: {said} … ({kind})"


def _two_ranks(bench: Bench, half: prepared.Half) -> str:
    """As under accelerate launch: refused with as many examples a rank, goes on with half of them."""
    place, words = half.copy("two-ranks")
    first, other = _ranks(bench, words)
    named = "examples per step: 4 -> 8 (changes the mathematics)"
    if first.code != 1 or named not in first.err:
        return f"rank 0 ended with {first.code}: {first.err[-600:]}"
    first, other = _ranks(bench, half.words(place, per_device_train_batch_size=2))
    wrong = _went_on(first, "continuing with process.world: 1 -> 2", HARMLESS)
    return wrong or ("" if other.code == 0 else f"rank 1 ended with {other.code}: {other.err[-600:]}")


def _ranks(bench: Bench, words: list[str]) -> list[Done]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true",
    }
    started = [
        bench.start(["train", *words], env={**common, "RANK": str(k), "LOCAL_RANK": str(k)}) for k in (0, 1)
    ]
    done = [started[0].finish(120)]
    if done[0].code:
        os.kill(started[1].pid, 9)  # as the launcher does
    return [*done, started[1].finish(120)]
