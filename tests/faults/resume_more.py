"""What else a continued run has to know: scores, windows of the log, mixtures of data, its results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks
import tiny
from faults.bench import Bench, Trial
from faults.resume import ROWS, compute_with, continued, difference, reported, train

SCORED = {"val_size": 4, "eval_strategy": "steps", "eval_steps": 1}
EARLY = {
    **SCORED, "finetuning_type": "full", "learning_rate": 0.03, "lr_scheduler_type": "constant",
    "greater_is_better": True,
}  # fmt: skip
"""The highest loss counts as the best, so the best step is an early one."""
TALKS = {"dataset": "talks", "template": "chatml", "cutoff_len": 200}
ANSWERS = {"val_size": 3, "do_predict": True, "predict_with_generate": True, "max_new_tokens": 6}


@dataclass(frozen=True)
class Case:
    """settings: beside tasks.make's · lines: where the run is killed, one after the other · proof: what an
    uninterrupted run prints when the case is what its name says · threads: that compute."""

    what: str
    settings: dict[str, Any]
    lines: tuple[str, ...] = ("checkpoint 3 durable",)
    proof: str = ""
    threads: int = 1


CASES = (
    Case(
        "early stopping, killed while it counts",
        {**EARLY, "early_stopping_steps": 3},
        proof="stopped early: eval_loss has not improved for 3 evaluations",
    ),
    Case(
        "early stopping, killed once it has stopped",
        {**EARLY, "early_stopping_steps": 2, "load_best_model_at_end": True},
        ("step 3: eval loss", "stopped early"),
        proof="stopped early: eval_loss has not improved for 2 evaluations",
    ),
    Case(
        "the best step lies before the kill, two checkpoints are kept",
        {**EARLY, "load_best_model_at_end": True, "save_total_limit": 2},
        ("checkpoint 6 durable",),
        proof="the best weights are those of step",
    ),
    Case(
        "the best step lies between two regular checkpoints",
        {**EARLY, "load_best_model_at_end": True, "save_steps": 4},
        ("checkpoint 4 durable",),
        proof="the best weights are those of step 2",
    ),
    Case("only the best is saved", {
        **EARLY, "eval_on_start": True, "save_strategy": "best", "load_best_model_at_end": True,
        "greater_is_better": False, "learning_rate": 0.01,
    }),
    Case(
        "in the middle of a window of the log",
        {"logging_steps": 3, "logging_first_step": True},
        ("checkpoint 5 durable",),
    ),
    Case(
        "evaluations and checkpoints of epochs",
        {"val_size": 4, "eval_strategy": "epoch", "eval_delay": 2, "save_strategy": "epoch"},
        ("checkpoint 6 durable",),
    ),
    Case("two evaluation sets, each by itself", {
        "eval_dataset": "intent,talks", "eval_on_each_dataset": True, "eval_strategy": "steps",
        "eval_steps": 2,
    }),
    Case("data sets drawn by chance", {
        "dataset": "intent,talks", "mix_strategy": "interleave_over", "interleave_probs": "0.6,0.4",
        "data_seed": 7, "val_size": 0.2, "eval_strategy": "steps", "eval_steps": 2,
    }),
    Case("data sets in turns, some of their rows", {
        "dataset": "intent,talks", "mix_strategy": "interleave_under", "max_samples": 9,
    }),
    Case("conversations, only the last reply", {**TALKS, "mask_history": True, "lora_dropout": 0.2}),
    Case("conversations, the prompts too", {**TALKS, "train_on_prompt": True, "neat_packing": True}),
    Case(
        "answers at the end, killed after the last step",
        {**ANSWERS, "do_sample": True, "temperature": 0.9, "eval_strategy": "steps", "eval_steps": 4},
        ("checkpoint 8 durable",),
    ),
    Case("answers at the end, killed while they are written", ANSWERS, ("done: loss",)),
    Case(
        "curves of the loss",
        {**SCORED, "plot_loss": True, "include_num_input_tokens_seen": "all"},
        ("checkpoint 7 durable",),
    ),
    Case("killed three times", {"lora_dropout": 0.1}, tuple(f"checkpoint {n} durable" for n in (1, 4, 8))),
    Case("two threads", {"model": "large", "finetuning_type": "full"}, threads=2),
    Case("killed before the first checkpoint", {"save_steps": 20, **SCORED}, ("step 3: eval loss",)),
    Case("recomputed activations and dropout", {"gradient_checkpointing": True, "lora_dropout": 0.2}),
    Case("bfloat16 products", {"bf16": True, "lora_dropout": 0.1}),
    Case("bfloat16 weights", {"pure_bf16": True, "finetuning_type": "full"}),
    Case("new tokens", {"add_tokens": "Lieferung,Rechnung", "resize_vocab": True}),
    Case("weights from scratch", {"train_from_scratch": True, "stage": "pt", "finetuning_type": "full"}),
    Case("shared embeddings, windows of attention", {
        "model": "gemma3", "finetuning_type": "full", "micro_batch_tokens": 90,
    }),
    Case("a model that cannot share prefixes", {"model": "mamba", "finetuning_type": "full"}),
    Case("no clipping, weight decay, the files' order", {
        "max_grad_norm": 0, "weight_decay": 0.1, "disable_shuffling": True,
    }),
)  # fmt: skip


def more(bench: Bench, count: int) -> Iterator[Trial]:
    """As in `resume.resume`, case by case; then what is changed, or asked for, when a run is continued."""
    folder = bench.folder()
    prepare(folder)
    special = (longer, from_a_given_checkpoint, on_top_of_adapters)
    step = 1 if count >= len(CASES) else len(CASES) // count
    for case in CASES[::step]:
        yield Trial(case.what, compared(bench, settings(folder, case), case))
    for trial in special if step == 1 else ():
        yield Trial((trial.__doc__ or "").rstrip("."), trial(bench, folder))


def prepare(folder: Path) -> None:
    """Two data sets, and a base of each kind that is asked for."""
    tasks.make(folder, ROWS)
    turns = (
        "where is my order?",
        "it comes tomorrow",
        "and the other one?",
        "in two days",
        "thank you",
        "bye",
    )
    talks = [
        {"messages": [
            {"role": "assistant" if n % 2 else "user", "content": f"{turn} {k * n % 7}"}
            for n, turn in enumerate(turns[: 2 + 2 * (k % 3)])
        ]}
        for k in range(ROWS)
    ]  # fmt: skip
    (folder / "data" / "talks.json").write_text(json.dumps(talks))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    info = {
        "intent": {"file_name": "intent.json"},
        "talks": {
            "file_name": "talks.json", "formatting": "sharegpt", "columns": {"messages": "messages"},
            "tags": tags,
        },
    }  # fmt: skip
    (folder / "data" / "dataset_info.json").write_text(json.dumps(info))
    tiny.make_model(folder / "gemma3", "gemma3")
    tiny.make_model(folder / "large", hidden_size=256, intermediate_size=512, head_dim=64)
    mamba(folder / "mamba")


def mamba(folder: Path) -> None:
    """A tiny state-space model, whose positions mix in a way of their own."""
    import torch
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=len(tiny.tokenizer()), hidden_size=32, num_hidden_layers=2, state_size=4, eos_token_id=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MambaForCausalLM(config).save_pretrained(str(folder))
    tiny.make_tokenizer(folder)


def settings(folder: Path, case: Case) -> dict[str, Any]:
    asked = {"num_train_epochs": 2.5, "save_steps": 1, **case.settings}
    base = folder / asked.pop("model", "base")
    return tasks.make(folder, ROWS, model_name_or_path=str(base), **asked)


def compared(bench: Bench, asked: dict[str, Any], case: Case) -> str:
    place = bench.folder()
    done = bench.luthier(train(asked, place / "whole"), before=compute_with, args=[case.threads])
    if done.code or case.proof not in done.err:
        return f"{done.code}, without {case.proof!r}: {done.err}"
    return continued(bench, asked, place, case.lines, case.threads)


def longer(bench: Bench, folder: Path) -> str:
    """More epochs for a run that is finished: named, confirmed, then continued."""
    asked = tasks.make(folder, ROWS, save_steps=1, num_train_epochs=1.0)
    run = bench.folder() / "run"
    bench.luthier(train(asked, run))
    before = reported(run)
    more_epochs = {**asked, "num_train_epochs": 2.0}
    done = bench.luthier(train(more_epochs, run))
    if done.code == 0 or "num_train_epochs: 1.0 -> 2.0 (changes the mathematics)" not in done.err:
        return f"was not refused: {done.err}"
    if reported(run) != before:
        return "was refused, and changed all the same"
    done = bench.luthier(train({**more_epochs, "confirm_changes": True}, run))
    if done.code or "continuing with num_train_epochs: 1.0 -> 2.0" not in done.err:
        return f"was not continued aloud: {done.err}"
    return "" if reported(run)["trainer_state.json"]["global_step"] == 8 else "did not train 8 steps"


def from_a_given_checkpoint(bench: Bench, folder: Path) -> str:
    """Continued from an older checkpoint than the newest."""
    asked = tasks.make(folder, ROWS, save_steps=1, num_train_epochs=2.5, lora_dropout=0.1)
    place = bench.folder()
    bench.luthier(train(asked, place / "whole"))
    given = {**asked, "resume_from_checkpoint": str(place / "killed" / "checkpoint-2")}
    done = bench.luthier(train(asked, place / "killed"))
    if done.code:
        return done.err
    done = bench.luthier(train(given, place / "killed"))
    if (
        done.code
        or "(step 2)" not in done.err
        or "checkpoint-3 is newer and will be replaced" not in done.err
    ):
        return f"did not continue from step 2: {done.err}"
    return difference(reported(place / "whole"), reported(place / "killed"))


def on_top_of_adapters(bench: Bench, folder: Path) -> str:
    """An adapter trained on top of another one, which is merged."""
    asked = tasks.make(folder, ROWS, save_steps=1, num_train_epochs=1.0)
    place = bench.folder()
    bench.luthier(train(asked, place / "first"))
    asked |= {"adapter_name_or_path": str(place / "first"), "create_new_adapter": True, "use_dora": True}
    done = bench.luthier(train(asked, place / "whole"))
    return done.err if done.code else continued(bench, asked, place, ["checkpoint 2 durable"])
