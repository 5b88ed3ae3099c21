"""trainer_log.jsonl, in LLaMA-Factory's names, and samples.jsonl: a record a line, each with its checksum.

A line ends with `"crc32": "…"}`: the CRC-32 of the bytes before `, "crc32"`. It finds every change of up to
32 neighbouring bits, and a line that was cut.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import RunError
from luthier.runs import atomic

NAME = "trainer_log.jsonl"
SAMPLES = "samples.jsonl"
"""The replies of a model while it is trained."""
KEY = "crc32"
_STEP = {NAME: "current_steps", SAMPLES: "step"}
_LINE = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}')


@dataclass(frozen=True, slots=True)
class Log:
    """lines: number (from 1) -> record of each sound line · damaged: numbers of the others · rest: of an
    unfinished line."""

    lines: dict[int, dict[str, Any]]
    damaged: list[int]
    rest: bytes

    @property
    def records(self) -> list[dict[str, Any]]:
        return [*self.lines.values()]


def encode(record: Mapping[str, Any], name: str = NAME) -> bytes:
    """One line. Raises RunError on NaN or infinity."""
    body = atomic.encode_json(dict(record), where=name).rstrip(b"\n").removesuffix(b"}")
    return body + f', "{KEY}": "{zlib.crc32(body):08x}"}}\n'.encode()


def append(folder: Path, record: Mapping[str, Any], name: str = NAME) -> None:
    """Add a line, visible to readers at once; `sync` makes it lasting."""
    line = encode(record, name)
    with atomic.explained(folder / name), open(folder / name, "ab") as file:
        file.write(line)


def sync(folder: Path) -> None:
    """Bring what was logged to the disk."""
    for file in (folder / name for name in _STEP):
        if file.is_file():
            with atomic.explained(file), open(file, "rb+") as opened:
                os.fsync(opened.fileno())


def look(folder: Path, name: str = NAME) -> Log:
    """Everything in the log, sound or not; an empty one when there is none."""
    file = folder / name
    *lines, rest = file.read_bytes().split(b"\n") if file.is_file() else [b""]
    sound, damaged = {}, []
    for number, line in enumerate(lines, 1):
        record = _decode(line)
        if record is None:
            damaged.append(number)
        else:
            sound[number] = record
    return Log(sound, damaged, rest)


def read(folder: Path) -> list[dict[str, Any]]:
    """The records, without a line that a killed process left unfinished. RunError names damaged lines."""
    found = look(folder)
    if found.damaged:
        raise RunError(
            f"{_places(folder, found.damaged)}: not what was written (the checksum differs); the training "
            "itself is in the checkpoints, and continuing it mends the log"
        )
    return found.records


def damage(folder: Path) -> list[str]:
    """What to tell the user about a log that is to be continued; [] when it is sound."""
    found = look(folder).damaged
    if not found:
        return []
    return [f"{_places(folder, found)}: damaged and left out; the log as it is will be kept beside"]


def trim(folder: Path, step: int, lines: int | None = None, name: str = NAME) -> None:
    """Forget what was logged after `step`, so that continuing from there writes every step once.

    lines: how many the checkpoint knows of; what a killed process wrote after its last step goes, too.
    Damaged lines are left out too; the file as it was is then kept as trainer_log.damaged-N.jsonl.
    """
    found = look(folder, name)
    if found.damaged:
        names = (folder / f"{Path(name).stem}.damaged-{n}.jsonl" for n in itertools.count(1))
        atomic.write_bytes(next(other for other in names if not other.exists()), (folder / name).read_bytes())
    kept = [
        record
        for number, record in found.lines.items()
        if record.get(_STEP[name], 0) <= step and (lines is None or number <= lines)
    ]
    atomic.write_bytes(folder / name, b"".join(encode(record, name) for record in kept))


def _decode(line: bytes) -> dict[str, Any] | None:
    match = _LINE.fullmatch(line)
    if match is None or zlib.crc32(match[1]) != int(match[2], 16):
        return None
    try:
        record = json.loads(match[1] + b"}")
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _places(folder: Path, numbers: list[int]) -> str:
    shown = ", ".join(f"{folder / NAME}:{n}" for n in numbers[:5])
    return shown + (f" and {len(numbers) - 5} more lines" if len(numbers) > 5 else "")
