"""What a system answers, kept as it is finished: an evaluation that was stopped goes on where it was.

A file holds one JSON object a line. Each line carries the fingerprint of what decides it (weights, prompts,
decoding), so an answer is taken over only where it would be given again.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.infer.engine import Generation, text_of
from luthier.infer.loading import Ready
from luthier.infer.questions import Say
from luthier.runs import atomic, hashing

Record = dict[str, Any]
_SCORED = 256  # prompts scored between two writings of the file
_SILENT = 10  # seconds between two lines of progress


@dataclass(frozen=True)
class Job:
    """Prompts [n] to answer (`options`), or to score each of a prompt's continuations.

    rows: what else is kept with each answer: source, input, reference · only: the one side asked, "" for
    every one.
    """

    name: str
    prompts: Sequence[Sequence[int]]
    rows: Sequence[Record]
    options: Generation | None = None
    continuations: Sequence[Sequence[Sequence[int]]] = field(default=())
    only: str = ""

    def fingerprint(self, identity: Mapping[str, Any]) -> str:
        """Of all that decides the answers of the system with this identity."""
        decoding: dict[str, Any] = dataclasses.asdict(self.options) if self.options else {}
        decoding["stop_ids"] = sorted(decoding.get("stop_ids", ()))
        prompts = [list(prompt) for prompt in self.prompts]
        continuations = [[list(ids) for ids in one] for one in self.continuations]
        return hashing.sha256_json([dict(identity), decoding, prompts, continuations])[:32]


class Kept:
    """The answers in one file, by job and row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[tuple[str, str, int], Record] = {}
        text = path.read_text("utf-8") if path.is_file() else ""
        for line in text.split("\n"):  # answers may hold the other signs that splitlines() ends a line at
            record = _parsed(line)
            if record is not None:
                self._records[_key(record)] = record
        if text and not text.endswith("\n"):  # it was killed while it wrote the last line
            self._write()

    def of(self, job: Job, fingerprint: str) -> dict[int, Record]:
        """row -> its answer, as far as it is known."""
        rows = range(len(job.prompts))
        return {i: r for i in rows if (r := self._records.get((job.name, fingerprint, i))) is not None}

    def add(self, records: Sequence[Record]) -> None:
        """Keep these, on the disk too."""
        self._records |= {_key(record): record for record in records}
        with atomic.explained(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(map(_line, records)))

    def settle(self, asked: Mapping[str, str]) -> None:
        """Write the file whole and in order, without older answers to the jobs that were asked now.

        asked: name of a job -> its fingerprint.
        """
        self._records = {
            key: record
            for key, record in sorted(self._records.items())
            if asked.get(key[0], key[1]) == key[1]
        }
        self._write()

    def _write(self) -> None:
        atomic.write_text(self.path, "".join(map(_line, self._records.values())))


def answer(job: Job, ready: Ready, kept: Kept, identity: Mapping[str, Any], say: Say) -> list[Record]:
    """The records of a job, in the order of its rows; only what is not kept is asked.

    Of an answer: answer (as written), tokens, cut (it ran into max_new_tokens); of a score: scores, the
    natural log probability of each continuation.
    """
    fingerprint = job.fingerprint(identity)
    known = kept.of(job, fingerprint)
    todo = [i for i in range(len(job.prompts)) if i not in known]
    if known and todo:
        say(f"{job.name}: {len(known)} of {len(job.prompts)} answers are there already")
    head = {"task": job.name, "fingerprint": fingerprint}
    progress = Progress(job.name, len(todo), say)
    make = _generated if job.options is not None else _scored
    for records in make(job, todo, ready, kept, head, progress):
        known |= {record["row"]: record for record in records}
    return [known[i] for i in range(len(job.prompts))]


def _generated(
    job: Job, todo: list[int], ready: Ready, kept: Kept, head: Record, progress: Progress
) -> Iterator[list[Record]]:
    assert job.options is not None, "a job that is generated"
    options, found = job.options, list[Record]()

    def finished(place: int, ids: list[int]) -> None:
        row = todo[place]
        room = min(options.budget(len(job.prompts[row])), ready.engine.context - len(job.prompts[row]))
        text = text_of(ready.tokenizer, ids, options, ready.config.skip_special_tokens)
        said = {"answer": text, "tokens": len(ids), "cut": len(ids) >= room}
        found.append({**head, "row": row, **job.rows[row], **said})
        kept.add(found[-1:])
        progress.advance(1)

    ready.engine.generate([job.prompts[i] for i in todo], options, finished)
    yield found


def _scored(
    job: Job, todo: list[int], ready: Ready, kept: Kept, head: Record, progress: Progress
) -> Iterator[list[Record]]:
    for start in range(0, len(todo), _SCORED):
        rows = todo[start : start + _SCORED]
        scores = ready.engine.score(  # type: ignore[attr-defined]
            [job.prompts[i] for i in rows], [job.continuations[i] for i in rows]
        )
        found = [{**head, "row": i, **job.rows[i], "scores": s} for i, s in zip(rows, scores, strict=True)]
        kept.add(found)
        progress.advance(len(found))
        yield found


class Progress:
    """A line every ten seconds."""

    def __init__(self, name: str, total: int, say: Say) -> None:
        self._name, self._total, self._say, self._done = name, total, say, 0
        self._began = self._said = time.perf_counter()

    def advance(self, count: int) -> None:
        self._done, now = self._done + count, time.perf_counter()
        if now - self._said > _SILENT:
            self._said = now
            left = (now - self._began) / self._done * (self._total - self._done)
            self._say(f"{self._name}: {self._done}/{self._total}  eta {left:.0f} s")


def _parsed(line: str) -> Record | None:
    """A record of a line; None for one that is not whole, which is then asked again."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and {"task", "fingerprint", "row"} <= set(record)
    return record if whole and ("answer" in record or "scores" in record) else None


def _key(record: Record) -> tuple[str, str, int]:
    return record["task"], record["fingerprint"], record["row"]


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
