"""Memory that really runs out in a step or an evaluation: the system refuses to give the process any more."""

from __future__ import annotations

import ctypes
import itertools
import json
import re
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import tasks
import tiny
from faults.bench import Bench, Done, Trial, Unavailable
from luthier.runs.hashing import sha256_file
from luthier.train.observe import STATE

LIMIT = 1e-5
MIB = 2**20
PROBE = 60
"""Tokens that what finds out at the start what the model can do stays below."""
ROWS, LONG = 24, 9
"""Row LONG is the long one, where there is one."""
MODELS: dict[str, dict[str, int]] = {
    "wide": {"vocab_size": 50_000},
    "deep": {"num_hidden_layers": 8, "intermediate_size": 2048},
}
"""One whose logits take the memory, one whose layers do."""
METHODS: dict[str, dict[str, Any]] = {"lora": {}, "full": {"finetuning_type": "full", "lora_target": None}}


def held() -> int:
    """What RLIMIT_DATA counts of this process, in bytes."""
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise Unavailable("the system does not tell VmData")
    return int(found[1]) * 1024


def hold_nothing_back() -> None:
    """Memory that is free goes back to the system at once, so that what is held is what is used."""
    threshold, of_mapping = 64 * 1024, -3  # M_MMAP_THRESHOLD
    if not ctypes.CDLL(None).mallopt(of_mapping, threshold):
        raise OSError("mallopt refuses")


def arm(room: int, call: int, training: bool) -> None:
    """From forward pass `call` on, of a step (from 1) or of an evaluation, `room` bytes are left; until the
    other kind of pass begins.
    """
    hold_nothing_back()
    calls = itertools.count(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)

    def hook(module: torch.nn.Module, args: Any) -> None:
        if not isinstance(module, torch.nn.Embedding) or args[0].numel() < PROBE:
            return
        if module.training != training:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        elif next(calls) == call:
            resource.setrlimit(resource.RLIMIT_DATA, (held() + room, hard))

    torch.nn.modules.module.register_module_forward_pre_hook(hook)


def arm_update(room: int, call: int, saving: bool) -> None:
    """From the update of step `call` on (with `saving`: from its end on) `room` bytes are left."""
    hold_nothing_back()
    calls = itertools.count(1)

    def hook(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if next(calls) == call:
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (held() + room, hard))

    (register_optimizer_step_post_hook if saving else register_optimizer_step_pre_hook)(hook)


@dataclass(frozen=True)
class Case:
    """kind: what runs out of memory (step, evaluation, example) · room: MiB left from pass `call` on."""

    kind: str
    model: str
    method: str
    room: int
    call: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.model} model, {self.method}, {self.room} MiB left at pass {self.call}"


ROOMS = {
    ("wide", "lora"): (80, 140, 200),
    ("wide", "full"): (120, 160, 200),
    ("deep", "lora"): (60, 80, 100),
    ("deep", "full"): (75, 90, 105),
}
"""What holds one row of 90 tokens with ease, and not eight of them."""


def cases() -> list[Case]:
    made = [
        Case("step", *key, room, call) for key, rooms in ROOMS.items() for room in rooms for call in (1, 2)
    ]
    made += [Case("evaluation", *key, 60 if key[0] == "wide" else 20) for key in ROOMS]
    examples = (140, 160, 80, 80)
    made += [Case("example", *key, room) for key, room in zip(ROOMS, examples, strict=True)]
    made += [Case("update", "wide", "full", room) for room in (2, 14)]
    made += [Case("save", "wide", "full", -8, call) for call in (1, 2)]
    return [*made, Case("nothing", "wide", "lora", 2), Case("nothing", "deep", "full", 2)]


def exhausted(bench: Bench, count: int) -> Iterator[Trial]:
    """The system refuses memory: a step or an evaluation is cut smaller and repeated, to the same result;
    only an example that does not fit alone ends the run, with settings that are then seen to fit.
    """
    chosen = cases()
    if count < len(chosen):
        kinds = [[case for case in chosen if case.kind == kind] for kind in PROBLEMS]
        chosen = [bench.random.choice(kinds[k % len(kinds)]) for k in range(count)]
    places: dict[Any, Place] = {}
    for case in chosen:
        key = case.model, case.method, case.kind == "example"
        if key not in places:
            places[key] = Place(bench, *key)
        yield Trial(str(case), PROBLEMS[case.kind](places[key], case), {case.kind: 1})


class Place:
    """A base and rows of some 90 tokens (with `long` one of 350); what trainings without limits leave."""

    def __init__(self, bench: Bench, model: str, method: str, long: bool) -> None:
        self.bench, folder = bench, bench.folder()
        tiny.make_model(folder / "base", "qwen3", **MODELS[model])
        (folder / "data").mkdir()
        words = "where order refund please member export ship arrive tomorrow thanks".split()

        def text(count: int) -> str:
            return " ".join(bench.random.choice(words) for _ in range(count))

        rows = [
            {"instruction": text(5), "output": text(70 if long and k == LONG else 12)}
            for k in range(1, ROWS + 1)
        ]
        (folder / "data" / "intent.json").write_text(json.dumps(rows))
        (folder / "data" / "dataset_info.json").write_text('{"intent": {"file_name": "intent.json"}}')
        self.settings = tasks.make(folder, gradient_accumulation_steps=2, save_steps=1, **METHODS[method])
        self._free: dict[str, Path] = {}

    def run(self, case: Case | None, **changes: Any) -> tuple[Done, Path]:
        """Train, within the limits of `case`; how it ended, and the run directory."""
        settings = {**self.settings, "output_dir": str(self.bench.folder() / "run"), **changes}
        folder = Path(settings["output_dir"])
        words = tasks.words({key: value for key, value in settings.items() if value is not None})
        if case is None:
            return self.bench.luthier(["train", *words]), folder
        late = case.kind in ("update", "save")
        limits = (case.room * MIB, case.call, case.kind == "save" if late else case.kind != "evaluation")
        before = arm_update if late else arm
        return self.bench.luthier(["train", *words], before=before, args=limits), folder

    def free(self, **changes: Any) -> Path:
        """The run directory of a training without limits."""
        key = json.dumps(changes)
        if key not in self._free:
            done, self._free[key] = self.run(None, **changes)
            if done.code:
                raise RuntimeError(done.err)
        return self._free[key]


def weights_of(folder: Path) -> Path:
    files = (folder / "adapter_model.safetensors", folder / "model.safetensors")
    return next(file for file in files if file.is_file())


def apart(a: Path, b: Path) -> float:
    """Relative distance of two runs' weights."""
    first, second = (
        torch.cat([t.flatten() for _, t in sorted(load_file(weights_of(f)).items())]) for f in (a, b)
    )
    return float((first - second).norm() / first.norm())


def of_step(place: Place, case: Case) -> str:
    done, folder = place.run(case)
    if done.code:
        return f"ended with {done.code}: {done.err[-600:]}"
    said = rf"step {case.call}: out of memory; forward passes cut to \d+ tokens \(before: 4096\)"
    if len(re.findall(said, done.err)) != 1:
        return f"does not say once {said!r}: {done.err[-600:]}"
    if (distance := apart(folder, place.free())) > LIMIT:
        return f"weights differ by {distance:.1e}"
    if case.call > 1 or done.err.count("out of memory") > 1:
        return ""  # what later steps learnt is not in checkpoint 1
    done, again = place.run(None, resume_from_checkpoint=str(folder / "checkpoint-1"))
    same = not done.code and sha256_file(weights_of(again)) == sha256_file(weights_of(folder))
    return "" if same else f"continued without the limit it comes to other weights: {done.err[-300:]}"


def of_evaluation(place: Place, case: Case) -> str:
    changes = {"val_size": 16, "eval_strategy": "steps", "eval_steps": 9, "eval_on_start": True}
    done, folder = place.run(case, **changes)
    if done.code:
        return f"ended with {done.code}: {done.err[-600:]}"
    if "evaluation: out of memory; forward passes cut to" not in done.err:
        return f"the limit was not felt: {done.err[-600:]}"
    free = place.free(**changes)
    if sha256_file(weights_of(folder)) != sha256_file(weights_of(free)):
        return "the final weights differ"
    found, expected = (
        [
            entry["eval_loss"]
            for entry in json.loads((run / STATE).read_text())["log_history"]
            if "eval_loss" in entry
        ]
        for run in (folder, free)
    )
    same = len(found) == len(expected) == 1 and abs(found[0] - expected[0]) <= LIMIT * expected[0]
    return "" if same else f"evaluation losses {found}, not {expected}"


def of_example(place: Place, case: Case) -> str:
    done, folder = place.run(case)
    named = re.search(
        rf"one example a pass: \S*intent\.json:{LONG}, \d+ tokens .*Tried, and it fits with (.*)\.\n",
        done.err,
    )
    if done.code != 1 or named is None or "Traceback" in done.err:
        return f"ended with {done.code}: {done.err[-600:]}"
    if any((folder / name).exists() for name in ("adapter_model.safetensors", "model.safetensors")):
        return "there are final weights"
    for setting in named[1].split(", and with "):
        key, _, value = setting.partition(": ")
        done, _ = place.run(case, **{key: json.loads(value)})
        if done.code:
            return f"{setting} does not fit: {done.err[-600:]}"
    return ""


def of_update(place: Place, case: Case) -> str:
    """An update or a save that does not fit ends the run; nothing half-done is left to go on from."""
    done, folder = place.run(case)
    # The library that writes safetensors knows no other answer to a refusal than to abort the process.
    aborted = case.kind == "save" and done.code == -signal.SIGABRT and "memory allocation of" in done.err
    if not aborted and (done.code != 1 or "Traceback" in done.err):
        return f"ended with {done.code}: {done.err[-600:]}"
    where = "in the optimizer's update" if case.kind == "update" else "outside a pass"
    if not aborted and re.search(rf"step {case.call}\b.*: out of memory {where}", done.err) is None:
        return f"does not say so: {done.err[-600:]}"
    whole = [f"checkpoint-{n}" for n in range(1, case.call)]
    if sorted(path.name for path in folder.glob("checkpoint-*")) != whole:
        return f"there is {[path.name for path in folder.iterdir()]}"
    done, _ = place.run(None, output_dir=str(folder))
    same = not done.code and sha256_file(weights_of(folder)) == sha256_file(weights_of(place.free()))
    return "" if same else f"with memory enough it does not go on to the same weights: {done.err[-300:]}"


def of_nothing(place: Place, case: Case) -> str:
    done, _ = place.run(case)
    if done.code != 1 or "Traceback" in done.err:
        return f"ended with {done.code}: {done.err[-600:]}"
    said = "does not fit with gradient_checkpointing: true and cutoff_len: 8 either"
    return "" if said in done.err else f"does not say {said!r}: {done.err[-600:]}"


PROBLEMS = {
    "step": of_step,
    "evaluation": of_evaluation,
    "example": of_example,
    "update": of_update,
    "save": of_update,
    "nothing": of_nothing,
}
"""What is wrong with how a run took a shortage of that kind, "" for nothing."""
