"""Values that are no numbers, put into a real training at every place where they can arise.

The faults are put there with PyTorch's own hooks, or by weights and rates that really lead to them.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import tasks
import tiny
from faults.bench import Bench, Done, Trial
from luthier.runs.hashing import sha256_file

ROWS, STEPS, PASSES = 30, 3, 8
PLACES = list(itertools.product((1, 2, STEPS), (1, 4, PASSES)))
"""Step and micro-batch, from 1: the first, one between, the last."""
MARKS = [chr(0x4E00 + 5 * k) for k in range(ROWS)]
"""Row k + 1 is the only one with this character, of three tokens."""
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"lora_dropout": 0.1},
    "full": {"finetuning_type": "full", "lora_target": None},
}
MODEL = "Qwen3ForCausalLM"


def tokens_of(row: int) -> list[int]:
    return list(tiny.tokenizer().encode(MARKS[row - 1]))


def _rows_in(ids: torch.Tensor) -> list[int]:
    """The rows whose mark is among the tokens of a pass."""
    text = " " + " ".join(map(str, ids.flatten().tolist())) + " "
    marks = {row: " ".join(map(str, tokens_of(row))) for row in range(1, ROWS + 1)}
    return [row for row, mark in marks.items() if f" {mark} " in text]


def _first(module: torch.nn.Module, trained: bool) -> tuple[str, torch.Tensor]:
    return next((n, p) for n, p in module.named_parameters() if p.requires_grad == trained and p.ndim == 2)


def _loss(module: torch.nn.Module, output: Any) -> None:
    output.logits = output.logits * math.nan


def _gradient(module: torch.nn.Module, output: Any) -> None:
    output.logits.register_hook(lambda grad: grad * math.inf)


def _weight(module: torch.nn.Module, output: Any) -> None:
    _first(module, trained=True)[1].data[0, 0] = math.inf


def _frozen(module: torch.nn.Module, output: Any) -> None:
    _first(module, trained=False)[1].data[:] = math.nan


SPOIL: dict[str, Callable[[torch.nn.Module, Any], None]] = {
    "loss": _loss,
    "evaluation": _loss,
    "gradient": _gradient,
    "weight": _weight,
    "frozen weight": _frozen,
    "nothing": lambda module, output: None,
}


def arm(kind: str, calls: list[int], row: int, note: str) -> None:
    """Spoil the model's forward passes of these numbers, from 1, and every pass with that row (0: none).

    note: a file that is told the rows of each spoilt pass, a line each.
    """
    number = itertools.count(1)

    def hook(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if type(module).__name__ != MODEL or module.training == (kind == "evaluation"):
            return
        rows = _rows_in(kwargs["input_ids"])
        if next(number) in calls or row in rows:
            SPOIL[kind](module, output)
            with open(note, "a") as file:
                file.write(json.dumps(rows) + "\n")

    torch.nn.modules.module.register_module_forward_hook(hook, with_kwargs=True)


@dataclass(frozen=True)
class Case:
    """One injection: once at a place (step, micro-batch; from 1), or whenever the row of that place comes."""

    method: str
    kind: str
    step: int = 0
    number: int = 0
    by_row: bool = False

    def __str__(self) -> str:
        where = f" at step {self.step}, micro-batch {self.number}" if self.step else ""
        return f"{self.method}: {self.kind}{where}{', whenever its row comes' if self.by_row else ''}"


def cases() -> list[Case]:
    """Thirty: every kind by every method, each at two places or more; all places are taken."""
    places = itertools.cycle(PLACES)
    made = [
        Case(method, kind, *next(places), by_row)
        for _ in range(2)
        for kind, by_row in (("loss", 0), ("loss", 1), ("gradient", 0), ("gradient", 1), ("weight", 0))
        for method in METHODS
    ]
    made += [Case(method, "weight", *next(places)) for method in METHODS]
    made += [Case("lora", "frozen weight", step, 1 + step) for step in (1, 3)]
    made += [Case(method, kind) for kind in ("evaluation", *REAL) for method in METHODS]
    return made


REAL = ("learning rate", "damaged base")


@dataclass
class Place:
    """Where a method is trained. passes: the row of each pass of the clean run, in their order."""

    settings: dict[str, Any]
    clean: Path
    passes: list[int]


def prepare(bench: Bench, method: str) -> Place:
    """The clean run, in whose passes each stands one row."""
    folder = bench.folder()
    cut = {"gradient_accumulation_steps": 2, "micro_batch_tokens": 1}
    settings = tasks.make(folder, save_steps=1, val_size=6, **cut, **METHODS[method])
    rows = [{**row, "input": row["input"] + mark} for row, mark in zip(tasks.rows(ROWS), MARKS, strict=True)]
    (folder / "data" / "intent.json").write_text(json.dumps(rows, ensure_ascii=False))
    clean, note = folder / "clean", folder / "passes"
    every = list(range(1, STEPS * PASSES + 1))
    done = run(bench, {**settings, "output_dir": str(clean)}, arm, ("nothing", every, 0, str(note)))
    passes = [json.loads(line) for line in note.read_text().splitlines()]
    if done.code or any(len(rows) != 1 for rows in passes) or len(passes) != len(every):
        raise RuntimeError(f"the clean run is not as it should be: {passes} {done.err}")
    return Place(settings, clean, [rows[0] for rows in passes])


def run(bench: Bench, settings: dict[str, Any], before: Any = "", args: Sequence[Any] = ()) -> Done:
    return bench.luthier(["train", *tasks.words(settings)], before=before, args=args)


def poisoned(bench: Bench, count: int) -> Iterator[Trial]:
    """A loss, a gradient or a weight becomes NaN or infinite: the run stops within the step, names the row
    or the weight, and keeps what was good; without the fault it goes on and ends as the clean run did.
    """
    chosen = cases()
    if count < len(chosen):
        chosen = bench.random.sample(chosen, count)
    places = {method: prepare(bench, method) for method in dict.fromkeys(case.method for case in chosen)}
    for case in chosen:
        yield Trial(str(case), problem(bench, places[case.method], case), {case.kind: 1})


def problem(bench: Bench, place: Place, case: Case) -> str:
    """What is wrong with how a run took this fault, "" for nothing."""
    settings = {**place.settings, "output_dir": str(bench.folder() / "run")}
    done, expected = spoil(bench, settings, place, case)
    if done.code != 1 or "Traceback" in done.err:
        return f"ended with {done.code}: {done.err[-600:]}"
    if re.search(expected, done.err, re.DOTALL) is None:
        return f"does not say {expected!r}: {done.err[-600:]}"
    return kept(Path(settings["output_dir"]), place, case, done) or ended(bench, settings, place)


def spoil(bench: Bench, settings: dict[str, Any], place: Place, case: Case) -> tuple[Done, str]:
    """Train with the fault; the end, and what should have been said."""
    if case.kind == "learning rate":
        done = run(bench, {**settings, "learning_rate": 1e30, "save_strategy": "no"})
        return done, r"step [23]\b.*(the (loss|gradient norm) is|weights that are) (nan|inf|not finite)"
    if case.kind == "damaged base":
        return damaged(bench, settings, case)
    note = str(bench.folder() / "note")
    if case.kind == "evaluation":
        row = next(row for row in range(1, ROWS + 1) if row not in place.passes)
        evaluated = {**settings, "eval_strategy": "steps", "eval_steps": 2}
        done = run(bench, evaluated, arm, (case.kind, [], row, note))
        return done, rf"evaluation: the loss is nan; stopped\. It comes from \S*intent\.json:{row} alone"
    number = (case.step - 1) * PASSES + case.number
    row = place.passes[number - 1]
    done = run(bench, settings, arm, (case.kind, *(([], row) if case.by_row else ([number], 0)), note))
    return done, message(case, row)


def message(case: Case, row: int) -> str:
    """What the run must say, as a regular expression."""
    if "weight" in case.kind:
        # The first weight of a full fine-tune belongs to a token that no row has: no loss tells of it.
        late = case.kind == "weight" and (case.number == PASSES or case.method == "full")
        what = "after the update: weights that are not finite: " if late else "The weights "
        return rf"step {case.step}\b.*{what}\S+(weight|lora_A\.\S+)"
    what, name = "gradient norm" if case.kind == "gradient" else "loss", rf"\S*intent\.json:{row}\b"
    named = rf"It comes from {name} alone" if case.by_row else rf"No row gives it alone; rows of the .*{name}"
    return rf"step {case.step}: the {what} is (nan|inf).*{named}"


def damaged(bench: Bench, settings: dict[str, Any], case: Case) -> tuple[Done, str]:
    """Train on a base in which one weight is infinite, then put the good one back."""
    file = Path(settings["model_name_or_path"]) / "model.safetensors"
    good = file.read_bytes()
    weights = load_file(file)
    name = "model.layers.0.mlp.down_proj.weight"
    weights[name][3, 5] = math.inf
    save_file(weights, file, metadata={"format": "pt"})
    done = run(bench, settings)
    file.write_bytes(good)
    where = (
        "before step 1: weights that are not finite: " if case.method == "full" else "step 1: .*The weights "
    )
    return done, rf"{where}\S*layers\.0\.mlp\.down_proj\."


def kept(folder: Path, place: Place, case: Case, done: Done) -> str:
    """The checkpoints before the fault, equal to those of the clean run; nothing after it, no result."""
    last = max(case.step - 1, 0) if case.kind != "evaluation" else 1
    found = sorted(p.name for p in folder.glob("checkpoint-*"))
    if found != [f"checkpoint-{step}" for step in range(1, last + 1)]:
        return f"{found} are left, {last} should be"
    for name in found:
        if digest(folder / name) != digest(place.clean / name):
            return f"{name} differs from the clean run's"
    if digest(folder):
        return "there are final weights"
    said = f"checkpoint {last} is kept" if last else "no checkpoint was written yet"
    return "" if said in done.err else f"does not say {said!r}: {done.err[-400:]}"


def ended(bench: Bench, settings: dict[str, Any], place: Place) -> str:
    """The same command, without the fault."""
    done = run(bench, settings)
    if done.code:
        return f"does not go on: {done.err[-600:]}"
    return "" if digest(Path(settings["output_dir"])) == digest(place.clean) else "the final weights differ"


def digest(folder: Path) -> str:
    files = [folder / name for name in ("adapter_model.safetensors", "model.safetensors")]
    return "".join(sha256_file(file) for file in files if file.is_file())
