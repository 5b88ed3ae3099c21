"""A run: one directory that every verb writes into and every surface reads.

luthier.json (the marker) · config.yaml · config.resolved.json · manifest.json · template.jinja ·
ledger.json · rejected.jsonl · trainer_log.jsonl · samples.jsonl · checkpoint-N/ (whole when it has a
manifest.json, and then with a copy of what the run is made of in run.json) · the final model (whole when it
has a checksums.json)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from luthier.errors import RunError
from luthier.redact import redact
from luthier.runs import atomic, lock, log, refuse, seal
from luthier.runs.seal import CHECKSUMS, MANIFEST, MARKER, verify

CONFIG = "config.yaml"
RESOLVED = "config.resolved.json"
TEMPLATE = "template.jinja"
MADE_OF = "run.json"
"""In a checkpoint: the configuration, as written and as resolved, and the manifest, sealed with it."""

# A failed run that holds nothing else holds nothing that anybody could want.
_BARE = {*refuse.OURS, lock.NAME}


class Run:
    """An open run directory; writable only when it came from `create` or `join`.

    As a context manager it records how the work ended: complete, interrupted (Ctrl-C) or failed.
    resume_from: the whole checkpoint to continue from, or None · lines, samples: how many of the log and of
    the replies it knows of, None for all · notes: what to tell the user aloud.
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
        self.lines: int | None = None
        self.samples: int | None = None
        self._made_of: dict[str, Any] | None = None

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
        marker = run._marker_if_any()
        if overwrite:
            refuse.inputs(run.path, [*inputs, *([] if isinstance(resume, bool) else [resume])])
        broken_off = marker is not None and marker.get("status", "complete") != "complete"
        continues = bool(run.checkpoints()) or (broken_off and not (run.path / CHECKSUMS).exists())
        refuse.others(run.path, overwrite, continues)
        with run._entered():
            if overwrite:
                run._wipe()
            run.resume_from = run._resume_point(resume)
            run._before = run._marker_if_any() if run.resume_from else None
            run.write_marker(verb="train", status="running", error=None)
        run._records = True
        return run

    @classmethod
    def join(cls, path: str | Path) -> Run:
        """Take `path` for writing results (predictions, scores) beside whatever is there.

        The marker, and with it the status of a training run, stays as it is.
        """
        run = cls(Path(path))
        run._marker_if_any()
        with run._entered():
            return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a run that exists. Raises RunError when there is none at `path`, or a newer luthier's."""
        path = Path(path)
        if cls.is_run(path):
            run = cls(path)
            run._marker_if_any()
            return run
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
            return
        with contextlib.suppress(RunError, OSError):  # of a failing disk, show the first error
            self._end_early("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed", error)

    def _end_early(self, status: str, error: BaseException | None) -> None:
        try:
            if self._before is not None and self._trim is not None:
                seal.write(self.path / MARKER, self._before)
                self._records = False
            elif self._made and {entry.name for entry in self.path.iterdir()} <= _BARE:
                self._abandon()
            self.close(status, None if status == "interrupted" else str(error))
        finally:
            self.close()

    def close(self, status: str | None = None, error: str | None = None) -> None:
        """Record how a training run ended and let go of the lock."""
        try:
            if self._records and status is not None:
                self.write_marker(status=status, error=error and redact(error))
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

    def describe(self, written: str, resolved: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Keep what the run is made of, and put it into every checkpoint.

        written: the configuration as the user wrote it · resolved: with every value that was used.
        """
        self.write_text(CONFIG, written)
        self.write_json(RESOLVED, dict(resolved))
        self.write_json(MANIFEST, manifest)
        self._made_of = {"written": written, "config": dict(resolved), "manifest": dict(manifest)}

    def made_of(self) -> dict[str, Any]:
        """What the checkpoint to continue from is made of: `written`, `config`, `manifest` of `describe`."""
        return dict(atomic.read_json(Path(str(self.resume_from)) / MADE_OF))

    def write_marker(self, **fields: Any) -> None:
        """Add or change fields of luthier.json; None takes a field away.

        verb, stage, finetuning_type, base, adapter (bool), template (name), system, status: from the caller;
        luthier and format (its version), started and updated: from here.
        """
        now = lock.now()
        old = self._marker_if_any()
        if old is None and self.is_run(self.path):
            self.notes.append(f"{self.path / MARKER} was damaged and is written anew")
        old = old or {"started": now}
        old = {key: value for key, value in old.items() if key not in ("luthier", "format")}
        new = {**old, **fields, "updated": now}
        seal.write(self.path / MARKER, {key: value for key, value in new.items() if value is not None})

    @property
    def marker(self) -> dict[str, Any]:
        """luthier.json. Raises RunError when it is damaged."""
        try:
            return seal.read(self.path / MARKER)
        except seal.Newer:
            raise
        except RunError as error:
            raise RunError(
                f"{self.path}: {error}; continuing the run writes it anew (luthier runs resume {self.path})"
            ) from error

    def _marker_if_any(self) -> dict[str, Any] | None:
        """None when there is none, or a damaged one. Raises Newer."""
        if not self.is_run(self.path):
            return None
        try:
            return seal.read(self.path / MARKER)
        except seal.Newer:
            raise
        except RunError:
            return None

    @property
    def status(self) -> str:
        """running, complete, interrupted or failed; a run whose process is gone was interrupted."""
        status = str(self.marker.get("status", "complete"))
        return "interrupted" if status == "running" and lock.holder(self.path) is None else status

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Add one line to trainer_log.jsonl, visible to readers at once."""
        self._forget_later_steps()
        log.append(self.path, record)

    def append_sample(self, record: Mapping[str, Any]) -> None:
        """Add a reply of the model in training to samples.jsonl, visible to readers at once."""
        self._forget_later_steps()
        log.append(self.path, record, log.SAMPLES)

    def _forget_later_steps(self) -> None:
        """Once, before the first line of a run that is continued."""
        if self._trim is None:
            return
        log.trim(self.path, self._trim, self.lines)
        if (self.path / log.SAMPLES).is_file():
            log.trim(self.path, self._trim, self.samples, log.SAMPLES)
        self._trim = None

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of trainer_log.jsonl. Raises RunError that names damaged ones."""
        return log.read(self.path)

    # --- checkpoints -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Fill checkpoint-`step`: it appears whole, with the sha256 of each of its files, or not at all."""
        with atomic.directory(self.path / f"checkpoint-{step}") as folder:
            yield folder
            if self._made_of is not None:
                data = atomic.encode_json(self._made_of, where=str(folder / MADE_OF))
                (folder / MADE_OF).write_bytes(data)
            seal.seal(folder, step=step)
            log.sync(self.path)

    @contextlib.contextmanager
    def result(self) -> Iterator[Path]:
        """Fill a folder whose files then take their places at the top of the run, each of them whole.

        checksums.json goes first and comes last: while it is missing, the files are not all of one model.
        """
        with atomic.explained(self.path), atomic.scratch(self.path / "result") as folder:
            yield folder
            files = sorted(folder.iterdir())
            atomic.discard(self.path / CHECKSUMS)
            for file in files:
                atomic.settle(file, self.path / file.name)
            kept = [TEMPLATE] if (self.path / TEMPLATE).is_file() else []
            seal.seal_result(self.path, [*kept, *(file.name for file in files)])

    def checkpoints(self) -> list[Path]:
        """The whole checkpoints, oldest first."""
        found = {}
        for entry in self.path.iterdir() if self.path.is_dir() else ():
            match = refuse.CHECKPOINT.fullmatch(entry.name)
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
        ours = refuse.OURS if self.is_run(self.path) else ()
        # The marker last: a wipe that is killed can be repeated.
        for pattern in (*refuse.RESULTS, *reversed(ours)):
            for entry in self.path.glob(pattern):
                atomic.discard(entry)

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
        step = int(seal.read(folder / MANIFEST)["step"])
        self.notes.append(f"continuing from {folder} (step {step})")
        self.notes += log.damage(self.path)
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
