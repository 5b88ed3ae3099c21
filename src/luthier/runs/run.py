"""A run: one directory that every verb writes into and every surface reads.

luthier.json (the marker) · config.yaml · config.resolved.json · manifest.json · template.jinja ·
ledger.json · rejected.jsonl · trainer_log.jsonl · checkpoint-N/ (whole when it has a manifest.json) ·
the final model
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from luthier import __version__
from luthier.errors import RunError
from luthier.runs import atomic, hashing, lock

MARKER = "luthier.json"
CONFIG = "config.yaml"
RESOLVED = "config.resolved.json"
MANIFEST = "manifest.json"
LOG = "trainer_log.jsonl"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# What a run of luthier's, or of LLaMA-Factory, leaves at the top: `overwrite` deletes these and nothing else.
_RESULTS = (
    LOG, "trainer_state.json", "*_results.json", "generated_predictions.jsonl", "training_*.png",
    "adapter_config.json", "*.safetensors", "*.safetensors.index.json", "checkpoint-*",
)  # fmt: skip
_OURS = (MARKER, CONFIG, RESOLVED, MANIFEST, "template.jinja", "ledger.json", "rejected.jsonl")
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
# Hidden files and the redirected output of a job do not make a directory occupied.
_UNSEEN = re.compile(r"\..*|.*\.(log|out|err)")
# A failed run that holds nothing else holds nothing that anybody could want.
_BARE = {*_OURS, lock.NAME}


class Run:
    """An open run directory; writable only when it came from `create` or `join`.

    As a context manager it records how the work ended: complete, interrupted (Ctrl-C) or failed.
    resume_from: the whole checkpoint to continue from, or None · notes: what to tell the user aloud.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.resume_from: Path | None = None
        self.notes: list[str] = []
        self._lock: lock.Lock | None = None
        self._made: list[Path] = []
        self._records = False
        # A changed configuration may still be refused, so continuing changes nothing of the earlier run until
        # the first line is logged; until then: its marker, and the step after which its log is forgotten.
        self._before: dict[str, Any] | None = None
        self._trim: int | None = None

    # --- opening ---------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        overwrite: bool = False,
        resume: bool | str | Path = True,
        inputs: Iterable[str | Path] = (),
    ) -> Run:
        """Take `path` for a new training run, or to continue the one that is there.

        An absent or empty directory, or a run that ended before its first checkpoint, is started afresh.
        A run with whole checkpoints is continued from the newest (`resume=True`) or from the given one.
        `overwrite` deletes what the earlier run wrote, and nothing else; it may not hold any of `inputs`
        (base model, adapters, data). Anything else is a RunError before a single file is touched.
        """
        run = cls(Path(path))
        if overwrite:
            _refuse_inputs(run.path, [*inputs, *([] if isinstance(resume, bool) else [resume])])
        _refuse_others(run.path, overwrite)
        with run._entered():
            if overwrite:
                run._wipe()
            run.resume_from = run._resume_point(resume)
            run._before = run.marker if run.resume_from and cls.is_run(run.path) else None
            run.write_marker(verb="train", status="running", error=None)
        run._records = True
        return run

    @classmethod
    def join(cls, path: str | Path) -> Run:
        """Take `path` for writing results (predictions, scores) beside whatever is there.

        The marker, and with it the status of a training run, stays as it is.
        """
        run = cls(Path(path))
        with run._entered():
            return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a run that exists. Raises RunError when there is none at `path`."""
        path = Path(path)
        if cls.is_run(path):
            return cls(path)
        if not path.exists():
            raise RunError(f"{path}: no such directory; `luthier runs` lists the runs that there are")
        hint = f"use {path.parent}" if cls.is_run(path.parent) else "give one that luthier has written"
        raise RunError(f"{path}: not a run directory (it has no {MARKER}); {hint}")

    @staticmethod
    def is_run(path: str | Path) -> bool:
        return Path(path, MARKER).is_file()

    # --- ending ----------------------------------------------------------------------------------------

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        if kind is None:
            self.close("complete")
        elif self._before is not None and self._trim is not None:
            self.write_json(MARKER, self._before)
            self._records = False
            self.close()
        elif self._made and {entry.name for entry in self.path.iterdir()} <= _BARE:
            self._abandon()
        elif issubclass(kind, KeyboardInterrupt):
            self.close("interrupted")
        else:
            with contextlib.suppress(RunError):  # on a full disk the first error is the one to show
                self.close("failed", str(error))

    def close(self, status: str | None = None, error: str | None = None) -> None:
        """Record how a training run ended and let go of the lock."""
        try:
            if self._records and status is not None:
                self.write_marker(status=status, error=error)
        finally:
            self._records = False
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    # --- files -----------------------------------------------------------------------------------------

    def write_json(self, name: str, value: Any) -> None:
        atomic.write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        atomic.write_text(self.path / name, text)

    def read_json(self, name: str) -> Any:
        return atomic.read_json(self.path / name)

    def write_config(self, text_as_written: str, resolved: Mapping[str, Any]) -> None:
        """Keep the configuration twice: as the user wrote it and with every value that was used."""
        self.write_text(CONFIG, text_as_written)
        self.write_json(RESOLVED, dict(resolved))

    def write_marker(self, **fields: Any) -> None:
        """Add or change fields of luthier.json; None takes a field away.

        verb, stage, finetuning_type, base, adapter (bool), template (name), system, status: from the caller;
        luthier (the version), started and updated: from here.
        """
        now = lock.now()
        old = self.marker if self.is_run(self.path) else {"luthier": __version__, "started": now}
        new = {**old, **fields, "updated": now}
        self.write_json(MARKER, {key: value for key, value in new.items() if value is not None})

    @property
    def marker(self) -> dict[str, Any]:
        return dict(self.read_json(MARKER))

    @property
    def status(self) -> str:
        """running, complete, interrupted or failed; a run whose process is gone was interrupted."""
        status = str(self.marker.get("status", "complete"))
        return "interrupted" if status == "running" and lock.holder(self.path) is None else status

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Add one line to trainer_log.jsonl, visible to readers at once."""
        line = atomic.encode_json(dict(record), where=str(self.path / LOG))
        if self._trim is not None:
            self.trim_log(self._trim)
            self._trim = None
        with atomic.explained(self.path / LOG), open(self.path / LOG, "ab") as file:
            file.write(line)

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of trainer_log.jsonl; one that a killed process left unfinished is passed over."""
        if not (self.path / LOG).is_file():
            return []
        lines = (self.path / LOG).read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line.strip()]

    def trim_log(self, step: int) -> None:
        """Forget what was logged after `step`, so that continuing from there writes every step once."""
        kept = [r for r in self.read_log() if r.get("current_steps", 0) <= step]
        text = b"".join(atomic.encode_json(r, where=LOG) for r in kept)
        atomic.write_bytes(self.path / LOG, text)

    # --- checkpoints -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Fill checkpoint-`step`: it appears whole, with the sha256 of each of its files, or not at all."""
        with atomic.directory(self.path / f"checkpoint-{step}") as folder:
            yield folder
            seal(folder, step=step)

    @contextlib.contextmanager
    def result(self) -> Iterator[Path]:
        """Fill a folder whose files then take their places at the top of the run, each of them whole."""
        with (
            atomic.explained(self.path),
            tempfile.TemporaryDirectory(prefix=".result-", dir=self.path) as name,
        ):
            yield Path(name)
            for file in sorted(Path(name).iterdir()):
                atomic.settle(file, self.path / file.name)

    def checkpoints(self) -> list[Path]:
        """The whole checkpoints, oldest first."""
        found = {}
        for entry in self.path.iterdir() if self.path.is_dir() else ():
            match = _CHECKPOINT.fullmatch(entry.name)
            if match and (entry / MANIFEST).is_file():
                found[int(match[1])] = entry
        return [found[step] for step in sorted(found)]

    # --- inside ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """Make the directory and take its lock; leave no trace when the body raises."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"output_dir: {self.path} is a file; give a directory")
        with atomic.explained(self.path):
            try:
                self._made = _make(self.path)
                self._lock = lock.Lock.acquire(self.path)
                atomic.recover(self.path, owned=True)
                yield
            except BaseException:
                self._abandon()
                raise

    def _abandon(self) -> None:
        """Let go, and take away the directories that `_entered` made."""
        if self._made and self._lock is not None:
            for name in _BARE - {lock.NAME}:
                (self.path / name).unlink(missing_ok=True)
        self._records = False
        self.close()
        for folder in self._made:
            with contextlib.suppress(OSError):  # not empty: somebody else uses it by now
                os.rmdir(folder)

    def _wipe(self) -> None:
        ours = _OURS if self.is_run(self.path) else ()
        for pattern in (*_RESULTS, *reversed(ours)):  # the marker last: a wipe that is killed can be repeated
            for entry in self.path.glob(pattern):
                atomic.remove(entry)

    def _resume_point(self, resume: bool | str | Path) -> Path | None:
        whole = self.checkpoints()
        if isinstance(resume, bool):
            folder = self._newest(whole) if resume else None
        else:
            folder = _intact(Path(resume))
        if folder is None:
            if whole:
                raise RunError(
                    f"output_dir: {self.path} is not empty: it has checkpoints that are not to be continued; "
                    "set overwrite_output_dir: true to begin again, or give another"
                )
            self._wipe()  # of a run that ended before its first checkpoint
            return None
        step = int(atomic.read_json(folder / MANIFEST)["step"])
        self.notes.append(f"continuing from {folder} (step {step})")
        self.notes += [f"{c} is newer and will be replaced" for c in whole if _step(c) > step]
        self._trim = step
        return folder

    def _newest(self, whole: list[Path]) -> Path | None:
        for folder in reversed(whole):
            problems = verify(folder)
            if not problems:
                return folder
            self.notes.append(f"{folder} is damaged and passed over: {'; '.join(problems)}")
        if whole:
            self.notes.append(f"{self.path} has no whole checkpoint left; set overwrite_output_dir: true")
            raise RunError("\n".join(self.notes))
        return None


def seal(folder: Path, **facts: Any) -> None:
    """Write manifest.json with the sha256 of every file below `folder`: the mark of a whole checkpoint."""
    files = hashing.sha256_tree(folder, leave_out=[MANIFEST])
    atomic.write_json(folder / MANIFEST, {"luthier": __version__, **facts, "files": files})


def verify(folder: Path) -> list[str]:
    """What is wrong with a checkpoint, in words; [] when it is what was written."""
    if not (folder / MANIFEST).is_file():
        return [f"it has no {MANIFEST}"]
    return hashing.verify(folder, atomic.read_json(folder / MANIFEST)["files"])


def _intact(folder: Path) -> Path:
    problems = verify(folder) if folder.is_dir() else ["it does not exist"]
    if problems:
        raise RunError(f"resume_from_checkpoint: {folder} cannot be continued: {'; '.join(problems)}")
    return folder


def _step(folder: Path) -> int:
    return int(folder.name.rsplit("-", 1)[1])


def _make(path: Path) -> list[Path]:
    """Make a directory; returns those that were not there before, the innermost first."""
    made = []
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            with contextlib.suppress(FileExistsError):  # another process was faster, so it is not ours
                folder.mkdir()
                made.append(folder)
    return made[::-1]


def _refuse_inputs(path: Path, inputs: Iterable[str | Path]) -> None:
    """Raise RunError when emptying `path` would delete what the run is to read."""
    for name in inputs:
        if Path(name).exists() and Path(name).resolve().is_relative_to(path.resolve()):
            raise RunError(
                f"overwrite_output_dir: would delete {name}, which this run reads, because it is in {path}; "
                "give another output_dir"
            )


def _refuse_others(path: Path, overwrite: bool) -> None:
    """Raise RunError when `path` holds something that a new run must not be written into."""
    entries = sorted(e.name for e in path.iterdir() if not _UNSEEN.fullmatch(e.name)) if path.is_dir() else []
    weights = any(any(path.glob(pattern)) for pattern in _WEIGHTS)
    trainer = LOG in entries or any(_CHECKPOINT.fullmatch(name) for name in entries)
    replace = "set overwrite_output_dir: true to replace it, or give another"
    if not entries:
        return
    if Run.is_run(path):
        if overwrite or not weights or Run(path).checkpoints():
            return
        what, instead = "a finished run without checkpoints", replace
    elif trainer:
        if overwrite:
            return
        what, instead = "the run of another program", replace
    elif weights:
        what, instead = "a model that is not a run of luthier's", "give another"
    else:
        ours = sorted({*entries} & {*_OURS})
        if overwrite and not ours:
            return
        what = f"files that are not a run ({', '.join((ours or entries)[:3])})"
        instead = "give an empty one" + (
            "" if ours else ", or set overwrite_output_dir: true to write beside them"
        )
    raise RunError(f"output_dir: {path} is not empty: it holds {what}; {instead}")
