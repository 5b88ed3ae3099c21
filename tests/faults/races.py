"""Two processes that want the same directory at the same time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tasks
from faults import outcome
from faults.bench import Bench, Child, Done, Trial

LIFE = 0.6
"""Seconds within which the second process starts after the first; about as long as the training lasts."""


def two_writers(bench: Bench, count: int) -> Iterator[Trial]:
    """One of them does all of its work, and the others say which process they found there."""
    folder = bench.folder()
    settings = tasks.make(folder, save_steps=2, output_dir=str(folder / "clean"))
    done = bench.luthier(["train", *tasks.words(settings)])
    assert done.code == 0, done.err
    kinds: tuple[tuple[int, Callable[..., Trial]], ...] = (
        (5, _trainings), (2, _resumptions), (2, _stores), (2, _exports), (1, _predictions), (1, _overwriters),
    )  # fmt: skip
    plan = [kind for times, kind in kinds for _ in range(times)]
    for k in range(count):
        kind = plan[k % len(plan)] if count > len(plan) else kinds[k % len(kinds)][1]
        yield kind(bench, settings, folder / "clean")


def meet(fifo: str, event: str, part: str, flags: int) -> None:
    """Called in the process: at its first `event` about a folder with `part` in it, wait for another process.

    A pipe can be opened for reading only while another opens it for writing, and the other way round.
    """
    met = False

    def hook(name: str, args: tuple[Any, ...]) -> None:
        nonlocal met
        about = name == event and not met and part in str(args[0])
        if about and (name == "os.mkdir" or os.path.isdir(args[0])):
            met = True
            os.close(os.open(fifo, flags))

    sys.addaudithook(hook)


def _at_once(bench: Bench, folder: Path, pair: Sequence[Sequence[str]], points: Sequence[str]) -> list[Done]:
    """Run two processes, each of which waits for the other at its point ("os.rename PART")."""
    fifo = folder.parent / f"{folder.name}.fifo"
    os.mkfifo(fifo)
    children = [
        bench.start(list(words), before=meet, args=[str(fifo), *point.split(" ", 1), flags])
        for words, point, flags in zip(pair, points, (os.O_RDONLY, os.O_WRONLY), strict=True)
    ]
    done = [children[0].finish()]
    os.close(os.open(fifo, os.O_RDWR))  # should the other still be waiting
    return [*done, children[1].finish()]


def _start(bench: Bench, words: Sequence[Sequence[str]], longest: float) -> tuple[list[Child], list[float]]:
    """Start the processes one after the other, each after a random time; often at nearly the same one."""
    children, waits = [], []
    for k, each in enumerate(words):
        wait = bench.random.choice((0.0, 0.02, longest)) * bench.random.random() if k else 0.0
        if children:
            children[-1].wait(wait)
        waits.append(wait)
        children.append(bench.start(list(each)))
    return children, waits


def _shown(what: str, waits: list[float]) -> str:
    return f"{what}, {', '.join(f'{wait * 1000:.0f} ms' for wait in waits[1:])} apart"


def _one_of(children: list[Child], done: list[Done]) -> str:
    """At least one got through; one that did not names a process that did. None trained in between."""
    winners = [child.pid for child, one in zip(children, done, strict=True) if one.code == 0]
    if not winners:
        return f"nobody got through: {' | '.join(one.err[-300:] for one in done)}"
    if sum("training from step" in one.err for one in done) > 1:
        return "two of them trained"
    for one in done:
        if problem := outcome.ended(one, 0, 1):
            return problem
        if one.code and not any(f"in use by process {pid} " in one.err for pid in winners):
            return f"does not name {winners}: {one.err[-300:]}"
    return ""


def _trainings(bench: Bench, settings: dict[str, Any], clean: Path) -> Trial:
    """Two or three trainings into one new directory, with one new folder of tokens."""
    folder = bench.folder()
    here = {"output_dir": str(folder / "run"), "tokenized_path": str(folder / "tokens")}
    words = ["train", *tasks.words({**settings, **here})]
    children, waits = _start(bench, [words] * bench.random.choice((2, 2, 3)), LIFE)
    problem = _one_of(children, [child.finish() for child in children])
    problem = problem or outcome.differs(folder / "run", clean) or outcome.left_over(folder)
    return Trial(_shown(f"{len(children)} trainings", waits), problem, {"trainings": 1})


def _resumptions(bench: Bench, settings: dict[str, Any], clean: Path) -> Trial:
    """Two processes that both want to continue what was killed."""
    folder = bench.folder()
    words = ["train", *tasks.words({**settings, "output_dir": str(folder / "run")})]
    first = bench.start(words)
    for line in first.lines():
        if "checkpoint 4 durable" in line:
            first.send(9)
    first.finish()
    children, waits = _start(bench, [words, words], LIFE)
    problem = _one_of(children, [child.finish() for child in children])
    problem = problem or outcome.differs(folder / "run", clean) or outcome.left_over(folder)
    return Trial(_shown("2 resumptions", waits), problem, {"resumptions": 1})


def _overwriters(bench: Bench, settings: dict[str, Any], clean: Path) -> Trial:
    """Two that were told to begin again: the second finds a process at work, or a finished run to replace."""
    folder = bench.folder()
    here = {"output_dir": str(folder / "run"), "overwrite_output_dir": True}
    words = ["train", *tasks.words({**settings, **here})]
    children, waits = _start(bench, [words, words], LIFE)
    done = [child.finish() for child in children]
    problem = _one_of(children, done)
    if problem == "two of them trained" and [one.code for one in done] == [0, 0]:
        problem = ""
    problem = problem or outcome.differs(folder / "run", clean) or outcome.left_over(folder)
    return Trial(_shown("2 trainings that overwrite", waits), problem, {"trainings": 1})


def _stores(bench: Bench, settings: dict[str, Any], clean: Path) -> Trial:
    """Two trainings in directories of their own that make the same tokens at once: both succeed."""
    folder = bench.folder()
    asked = [
        {**settings, "output_dir": str(folder / name), "tokenized_path": str(folder / "tokens")}
        for name in ("one", "two")
    ]
    pair = [["train", *tasks.words(each)] for each in asked]
    if together := bench.random.random() < 0.5:
        done = _at_once(bench, folder, pair, ["os.rename tokens/."] * 2)
        what = "2 writers of tokens, ready at the same instant"
    else:
        children, waits = _start(bench, pair, 0.1)
        done = [child.finish() for child in children]
        what = _shown("2 writers of tokens", waits)
    problem = next((p for one in done if (p := outcome.ended(one, 0))), "")
    problem = problem or outcome.differs(folder / "one", clean) or outcome.differs(folder / "two", clean)
    return Trial(what, problem or outcome.left_over(folder), {"stores": 1, "at the same instant": together})


def _exports(bench: Bench, settings: dict[str, Any], clean: Path) -> Trial:
    """A training and an export into one directory: one of them has it, the other leaves it alone."""
    folder = bench.folder()
    train = ["train", *tasks.words({**settings, "output_dir": str(folder / "run")})]
    export = ["export", str(clean), f"export_dir={folder / 'run'}"]
    if together := bench.random.random() < 0.5:
        exported, trained = _at_once(
            bench, folder, [export, train], [f"os.rename {folder}/.run.tmp", "os.mkdir .checkpoint-4.tmp"]
        )
        what = "an export is ready while the training saves"
    else:
        pair = [train, export] if bench.random.random() < 0.5 else [export, train]
        children, waits = _start(bench, pair, LIFE)
        done = [child.finish() for child in children]
        trained, exported = done if pair[0] is train else reversed(done)
        what = _shown(f"{pair[0][0]} and {pair[1][0]}", waits)
    problem = outcome.ended(trained, 0, 1) or outcome.ended(exported, 0, 1)
    if not problem and {trained.code, exported.code} != {0, 1}:
        problem = (
            f"ended with {trained.code} and {exported.code}: {trained.err[-300:]} | {exported.err[-300:]}"
        )
    if not problem and trained.code == 0:
        problem = outcome.differs(folder / "run", clean)
    if not problem and exported.code == 0 and not (folder / "run" / "export.json").is_file():
        problem = "the export is gone"
    counts = {"exports": 1, "at the same instant": together}
    return Trial(what, problem or outcome.left_over(folder), counts)


def _predictions(bench: Bench, settings: dict[str, Any], clean: Path) -> Trial:
    """A training, and a prediction that writes its answers into the same directory."""
    folder = bench.folder()
    run = folder / "run"
    train = ["train", *tasks.words({**settings, "output_dir": str(run)})]
    predict = [
        "predict", str(clean), "--dataset", "intent", f"dataset_dir={settings['dataset_dir']}",
        f"output_dir={run}", "max_new_tokens=2",
    ]  # fmt: skip
    pair = [train, predict] if bench.random.random() < 0.7 else [predict, train]
    children, waits = _start(bench, pair, LIFE)
    done = [child.finish() for child in children]
    trained, predicted = done if pair[0] is train else reversed(done)
    pids = [child.pid for child in children]
    problem = outcome.ended(trained, 0, 1) or outcome.ended(predicted, 0, 1)
    problem = problem or _told(trained, pids) or _told(predicted, pids)
    if not problem and trained.code == 0:
        same = outcome.weights(run) == outcome.weights(clean) and outcome.log(run) == outcome.log(clean)
        problem = "" if same else "the training differs"
    if not problem and predicted.code == 0:
        answers = (run / "generated_predictions.jsonl").read_bytes().splitlines()
        problem = "" if len(answers) == 30 else f"{len(answers)} answers of 30 rows"
    what = _shown(f"{pair[0][0]} and {pair[1][0]}", waits)
    return Trial(what, problem or outcome.left_over(folder), {"predictions": 1})


def _told(done: Done, pids: list[int]) -> str:
    if (
        done.code == 0
        or "is not empty" in done.err
        or any(f"in use by process {p} " in done.err for p in pids)
    ):
        return ""
    return f"does not say who is there: {done.err[-300:]}"
