"""Code that somebody hides in a model: it makes a folder, the canary, so that having run leaves a trace."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import tasks
from faults.bench import Bench, Done, Trial


class Bomb:
    """Unpickling it makes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.canary,)


def python(canary: Path) -> str:
    """A module that makes the canary when it is imported, and has every name that is asked of it."""
    lines = ("import os", f"os.path.isdir({str(canary)!r}) or os.mkdir({str(canary)!r})")
    return "\n".join([*lines, "def __getattr__(name): return lambda *args, **keys: None", ""])


FILES = ("configuration_x.py", "modeling_x.py", "tokenization_x.py", "evil.py", "custom_generate/generate.py")


@dataclass
class Scene:
    """Where a trial takes place. base: an honest model folder · run: an honest run with checkpoints ·
    canary: what the hidden code would make · settings: of the training that made the run.
    """

    bench: Bench
    base: Path
    run: Path
    settings: dict[str, object]
    folder: Path
    canary: Path

    def pickled(self) -> bytes:
        return pickle.dumps({"model.embed_tokens.weight": Bomb(self.canary)})

    def torch_zip(self) -> bytes:
        buffer = io.BytesIO()
        torch.save({"model.embed_tokens.weight": Bomb(self.canary)}, buffer)
        return buffer.getvalue()

    def zipped(self) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("__main__.py", python(self.canary))
            archive.writestr("archive/data.pkl", self.pickled())
        return buffer.getvalue()

    def model(self, name: str = "model", without: str = "") -> Path:
        """A copy of the honest base."""
        return Path(shutil.copytree(self.base, self.folder / name, ignore=shutil.ignore_patterns(without)))

    def adapter(self, name: str = "adapter") -> Path:
        """A copy of the adapter alone, as another program would hand it over."""
        folder = self.folder / name
        folder.mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(self.run / "checkpoint-2" / file, folder)
        return folder

    def copy_of_run(self) -> Path:
        return Path(shutil.copytree(self.run, self.folder / "run"))


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key away."""
    old = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    new = {key: value for key, value in {**old, **changes}.items() if value is not None}
    file.write_text(json.dumps(new), encoding="utf-8")


def plant(folder: Path, scene: Scene) -> None:
    """Python files under all the names that the hooks of this module use."""
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(python(scene.canary))
    (folder / "custom_generate" / "requirements.txt").write_text("evil-package-that-is-not-there\n")


@dataclass(frozen=True)
class Case:
    """make(scene) prepares a trap and gives the words of the command · said: words that standard error must
    have · works: the trap is harmless, so the command must succeed · before: what the process does first.
    """

    what: str
    make: Callable[[Scene], Sequence[str]]
    said: tuple[str, ...] = ()
    works: bool = False
    before: Callable[..., object] | str = ""


def trials(bench: Bench, count: int, cases: Sequence[Case]) -> Iterator[Trial]:
    """All of the cases; or, where fewer are asked for, that many of them, evenly spread."""
    place = bench.folder()
    settings = tasks.make(place, count=16, num_train_epochs=1.0)
    trained = bench.luthier(["train", *tasks.words(settings)])
    if trained.code:
        raise AssertionError(f"the honest run failed:\n{trained.err}")
    _armed(Scene(bench, place / "base", place / "run", settings, bench.folder(), bench.folder() / "canary"))
    step = max(1.0, len(cases) / count)
    chosen = [cases[int(k * step)] for k in range(min(count, len(cases)))] if count < len(cases) else cases
    for case in chosen:
        folder = bench.folder()
        scene = Scene(bench, place / "base", place / "run", settings, folder, folder / "canary")
        words = case.make(scene)
        done = bench.luthier(words, cwd=folder, before=case.before)
        yield Trial(case.what, judge(case, done, scene.canary))


def judge(case: Case, done: Done, canary: Path) -> str:
    """What is wrong with how the command ended; "" when nothing is."""
    if canary.exists():
        return f"the hidden code ran (exit code {done.code})"
    if "Traceback" in done.err:
        return f"a traceback: {done.err[-1500:]}"
    if case.works != (done.code == 0) or done.code not in (0, 1, 2):
        return f"exit code {done.code}: {done.err[-1000:]}"
    missing = [word for word in case.said if word not in done.err]
    return f"says nothing of {', '.join(missing)}: {done.err[-1000:]}" if missing else ""


def _armed(scene: Scene) -> None:
    """The payloads are real: opened carelessly, each of them makes the canary."""
    for name, payload in (("pickle", scene.pickled()), ("torch zip", scene.torch_zip())):
        (pickle.loads if name == "pickle" else _careless)(payload)
        if not scene.canary.exists():
            raise AssertionError(f"the {name} payload is harmless, so the experiment shows nothing")
        scene.canary.rmdir()
    exec(compile(python(scene.canary), "hidden.py", "exec"), {})
    if not scene.canary.exists():
        raise AssertionError("the Python payload is harmless, so the experiment shows nothing")
    scene.canary.rmdir()


def _careless(payload: bytes) -> None:
    torch.load(io.BytesIO(payload), weights_only=False)
