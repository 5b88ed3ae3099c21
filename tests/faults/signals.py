"""SIGTERM, Ctrl-C and SIGHUP at any moment; terminals, pipes and disks that take no more output."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tasks
from faults import outcome
from faults.bench import Bench, Child, Done, Trial

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LINE = "@ "
_SHORT = {"max_new_tokens": 2, "do_sample": False}
_SLOW = {"prefix_sharing": False, "micro_batch_tokens": 64, "per_device_train_batch_size": 10}


@dataclass(frozen=True)
class Shop:
    """bench, what all trials train, and the run that nobody disturbs."""

    bench: Bench
    settings: dict[str, Any]
    clean: Path

    def place(self) -> tuple[Path, dict[str, Any]]:
        """A fresh folder, and the settings to train there."""
        folder = self.bench.folder()
        here = {"output_dir": str(folder / "run"), "tokenized_path": str(folder / "tokens")}
        return folder, {**self.settings, **here}


Case = Callable[[], Trial]


def signals(bench: Bench, count: int) -> Iterator[Trial]:
    """Stopped at a random moment, the right exit code, no step lost; then on to the clean run's end."""
    plain = _shop(bench, {"num_train_epochs": 2.0})
    eager = _shop(bench, {"val_size": 10, "eval_strategy": "steps", "eval_steps": 1, "do_eval": True})
    slow = _shop(bench, {**_SLOW, "save_steps": 100, "lora_dropout": 0.2})
    bare = _shop(bench, {"save_only_model": True, "save_steps": 2, "num_train_epochs": 2.0})
    once: list[Case] = []
    twice: list[Case] = []
    for number in NUMBERS:
        for when in ("start", "tokens", "load", "train", "train", "save"):
            once.append(partial(_stopped, plain, number, when))
        for when in ("train", "train", "save", "result"):
            once.append(partial(_stopped, eager, number, when))
        once.append(partial(_stopped, bare, number, "train"))
        twice.append(partial(_twice, slow, number, bench.random.choice(NUMBERS[:2])))
    answers = _shop(bench, {"val_size": 4, "do_predict": True, "predict_with_generate": True, **_SHORT})
    mute: list[Case] = [partial(_mute, shop, how) for how in MUTES for shop in (plain, answers)]
    hung: list[Case] = [
        partial(_ignored, plain),
        partial(_hung_up_twice, slow),
        partial(_terminal_gone, plain),
    ]
    if count < len(once):
        for case in (*bench.random.sample(once, count - 2), bench.random.choice(twice), hung[-1]):
            yield case()
        return
    for case in (*once, *twice, *mute, *hung):
        yield case()
    ranks = _shop(bench, {"use_cpu": True, "num_train_epochs": 8.0}, ranks=2)
    for number in NUMBERS:
        yield _ranks(ranks, number, both=False)
        yield _ranks(ranks, number, both=True)


def _shop(bench: Bench, changes: dict[str, Any], ranks: int = 1) -> Shop:
    folder = bench.folder()
    settings = tasks.make(folder, **{"save_steps": 1, **changes})
    settings["output_dir"] = str(folder / "clean")
    if ranks > 1:
        codes = [child.finish().code for child in _launch(bench, settings, ranks)]
        assert codes == [0] * ranks
    else:
        done = bench.luthier(["train", *tasks.words(settings)])
        assert done.code == 0, done.err
    return Shop(bench, settings, folder / "clean")


def announce(top: str) -> None:
    """Called in the process: say on stderr which files below `top` it opens, and what it begins to write."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and str(args[0]).startswith(top):
            os.write(2, f"{_LINE}open {os.path.basename(args[0])}\n".encode())
        elif event == "os.mkdir" and ".tmp-" in str(args[0]):
            os.write(2, f"{_LINE}save {os.path.basename(args[0])}\n".encode())

    sys.addaudithook(hook)


# --- a signal at a moment


def _stopped(shop: Shop, number: int, when: str) -> Trial:
    """One signal at a random moment of a phase; then the same command again."""
    folder, settings = shop.place()
    child = shop.bench.start(["train", *tasks.words(settings)], before=announce, args=[str(folder.parent)])
    delay = _wait(shop.bench, child, when)
    child.send(number)
    done = child.finish(60)
    what = f"{signal.Signals(number).name} {delay * 1000:.0f} ms into: {when}"
    problem = _judged(done, folder / "run", number) or outcome.left_over(folder)
    counts = {"left an evaluation": _left_evaluation(folder / "run", settings)}
    return Trial(what, problem or _goes_on(shop, settings), counts)


def _left_evaluation(run: Path, settings: dict[str, Any]) -> int:
    """Whether the newest checkpoint lacks the evaluation that is due after its step."""
    saved = max((int(p.name[11:]) for p in run.glob("checkpoint-*")), default=0)
    if not saved or "eval_steps" not in settings:
        return 0
    history = outcome.state(run / f"checkpoint-{saved}")["log_history"]
    return int(not any(entry["step"] == saved and "eval_loss" in entry for entry in history))


def _wait(bench: Bench, child: Child, when: str) -> float:
    """Wait until a phase has begun, and a random moment more, which is returned (seconds)."""
    until, nth, longest = {
        "start": (f"{_LINE}open", bench.random.randint(1, 3), 0.01),
        "tokens": (f"{_LINE}save .", 1, 0.03),
        "load": ("  ", 1, 0.2),
        "train": ("training from step", 1, 0.3),
        "save": (f"{_LINE}save .checkpoint", bench.random.randint(1, 3), 0.015),
        "result": (f"{_LINE}save .result", 1, 0.03),
        "step": ("step 1/", 1, 0.0),
    }[when]
    for line in child.lines():
        nth -= line.startswith(until)
        if nth == 0:
            break
    delay = bench.random.uniform(0, longest)
    child.wait(delay)
    return delay


def _judged(done: Done, run: Path, number: int) -> str:
    """The exit code, and that no step is lost. A process may have come to its end before the signal."""
    complete = "done: loss" in done.err
    if problem := outcome.ended(done, 128 + number, *([0] if complete else [])):
        return problem
    name = signal.Signals(number).name
    if done.code and f"stopped by {name}" not in done.err:
        return f"does not say that {name} stopped it: {done.err[-300:]}"
    if "training from step" not in done.err:
        return f"{run} was left behind" if run.exists() else ""
    if complete:
        return ""
    steps = [entry["current_steps"] for entry in outcome.log(run)]
    saved = max((int(p.name[11:]) for p in run.glob("checkpoint-*")), default=0)
    return "" if saved == max(steps) else f"steps {steps} were done, but only {saved} was saved"


def _goes_on(shop: Shop, settings: dict[str, Any]) -> str:
    again = shop.bench.luthier(["train", *tasks.words(settings)])
    run = Path(settings["output_dir"])
    return outcome.ended(again, 0) or outcome.differs(run, shop.clean) or outcome.left_over(run.parent)


def _twice(shop: Shop, first: int, second: int) -> Trial:
    """A second signal while the step of the first is still in progress."""
    _, settings = shop.place()
    child = shop.bench.start(["train", *tasks.words(settings)])
    _wait(shop.bench, child, "step")
    child.send(first)
    for line in child.lines():
        if "a second signal stops at once" in line:
            break
    child.send(second)
    done = child.finish(60)
    names = [signal.Signals(number).name for number in (first, second)]
    problem = outcome.ended(done, 128 + second)
    if not problem and f"stopped by {names[1]} at once" not in done.err:
        problem = f"it did not stop at once: {done.err[-300:]}"
    return Trial(" and then ".join(names), problem or _goes_on(shop, settings))


def _hung_up_twice(shop: Shop) -> Trial:
    """A shell whose terminal closes passes SIGHUP on, and the system sends it again: still saved."""
    folder, settings = shop.place()
    child = shop.bench.start(["train", *tasks.words(settings)])
    _wait(shop.bench, child, "step")
    child.send(signal.SIGHUP)
    child.send(signal.SIGHUP)
    child.wait(0.01)
    child.send(signal.SIGHUP)
    problem = _judged(child.finish(60), folder / "run", signal.SIGHUP)
    return Trial("SIGHUP three times", problem or _goes_on(shop, settings))


def ignore_hangup() -> None:
    """Called in the process: as nohup starts it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _ignored(shop: Shop) -> Trial:
    _, settings = shop.place()
    child = shop.bench.start(["train", *tasks.words(settings)], before=ignore_hangup)
    _wait(shop.bench, child, "train")
    child.send(signal.SIGHUP)
    problem = outcome.ended(child.finish(), 0)
    problem = problem or outcome.differs(Path(settings["output_dir"]), shop.clean)
    return Trial("SIGHUP under nohup", problem)


# --- nobody to read what is printed


def silence(how: str) -> None:
    """Called in the process: make its stdout and stderr useless."""
    if how == "closed":
        for number in (0, 1, 2):
            os.close(number)
        return
    if how == "a terminal that has gone":
        end, ours = pty.openpty()
    elif how == "a pipe without a reader":
        end, ours = os.pipe()
    else:
        end, ours = os.open("/dev/null", os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)
    os.dup2(ours, 1)
    os.dup2(ours, 2)
    os.close(ours)
    os.close(end)


MUTES = ("closed", "a terminal that has gone", "a pipe without a reader", "a full disk")


def _mute(shop: Shop, how: str) -> Trial:
    """Training goes on to its end, whoever reads what it prints."""
    folder, settings = shop.place()
    words = ["train", *tasks.words({**settings, "disable_tqdm": how == "closed"})]
    done = shop.bench.luthier(words, before=silence, args=[how])
    problem = outcome.ended(done, 0) or outcome.differs(folder / "run", shop.clean)
    return Trial(f"stdout and stderr are {how}", problem or outcome.left_over(folder))


def on_terminal(run: str) -> None:
    """Called in the process: give it a terminal of its own, which goes away while checkpoint 3 is written."""
    far, near = pty.openpty()
    fcntl.ioctl(near, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(near, number)
    os.close(near)
    there = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal there
        if event == "os.mkdir" and os.path.basename(str(args[0])).startswith(".checkpoint-3.tmp") and there:
            there = False
            os.close(far)

    sys.addaudithook(hook)


def _terminal_gone(shop: Shop) -> Trial:
    """A closed ssh session: the system sends SIGHUP, and what is printed from then on is an I/O error."""
    folder, settings = shop.place()
    words = ["train", *tasks.words({**settings, "disable_tqdm": False})]
    done = shop.bench.luthier(words, before=on_terminal, args=[str(folder / "run")])
    problem = outcome.ended(done, 129)
    if not problem and not (folder / "run" / "checkpoint-3").is_dir():
        problem = "checkpoint-3 was not saved"
    return Trial("the terminal closes during a save", problem or _goes_on(shop, settings))


# --- several ranks


def _launch(bench: Bench, settings: dict[str, Any], world: int) -> list[Child]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        bench.start(
            ["train", *tasks.words(settings)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"},
        )
        for rank in range(world)
    ]


def _ranks(shop: Shop, number: int, both: bool) -> Trial:
    """A signal that reaches one rank only, or both in different steps: they stop after the same one."""
    folder, settings = shop.place()
    children = _launch(shop.bench, settings, 2)
    _wait(shop.bench, children[0], "train")
    children[1].send(number)
    if both:
        children[0].wait(shop.bench.random.uniform(0, 0.05))
        children[0].send(number)
    done = [child.finish(60) for child in children]
    which = "both of two ranks, one after the other" if both else "one of two ranks"
    problem = outcome.ended(done[1], 128 + number)
    problem = problem or _judged(done[0], folder / "run", number)
    if not problem:
        again = [child.finish(60) for child in _launch(shop.bench, settings, 2)]
        problem = outcome.ended(again[0], 0) or outcome.ended(again[1], 0)
        problem = problem or outcome.differs(folder / "run", shop.clean)
    return Trial(f"{signal.Signals(number).name} to {which}", problem)
