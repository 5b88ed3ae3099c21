"""What a run has come to, as far as two runs of the same configuration must agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from faults.bench import Done
from luthier.runs.hashing import sha256_file
from luthier.runs.seal import CHECKSUMS, verify

_CLOCKS = ("runtime", "per_second", "time", "throughput", "train_seconds", "crc32", "peak_memory")
_ACKNOWLEDGED = re.compile(r"checkpoint (\d+) durable")
_CONTINUING = re.compile(r"continuing from .*? \(step (\d+)\)", re.DOTALL)


def weights(folder: Path) -> dict[str, str]:
    """sha256 of the weights, and moments, in a run or a checkpoint."""
    return {file.name: sha256_file(file) for file in sorted(folder.glob("*.safetensors"))}


def timeless(value: Any) -> Any:
    """Without what a clock, or what else the process has done, decides."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not k.endswith(_CLOCKS)}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def state(folder: Path) -> Any:
    """What a run or a checkpoint reports of every step."""
    return timeless(json.loads((folder / "trainer_state.json").read_bytes()))


def log(run: Path) -> list[Any]:
    return [timeless(json.loads(line)) for line in (run / "trainer_log.jsonl").read_bytes().splitlines()]


def replies(run: Path) -> bytes:
    """What the model answered while it was trained, b"" where nothing was asked."""
    file = run / "samples.jsonl"
    return file.read_bytes() if file.is_file() else b""


def results(run: Path) -> Any:
    return timeless(json.loads((run / "all_results.json").read_bytes()))


def differs(run: Path, clean: Path) -> str:
    """In what the finished `run` differs from the one that nobody disturbed; "" for nothing."""
    for what, found in (
        ("the final weights", weights), ("trainer_state.json", state), ("trainer_log.jsonl", log),
        ("all_results.json", results), ("samples.jsonl", replies),
    ):  # fmt: skip
        mine, other = found(run), found(clean)
        if mine != other:
            return f"{what} differ: {_first(mine, other)}"
    wrong = verify(run, CHECKSUMS)
    return f"the final weights are not whole: {'; '.join(wrong)}" if wrong else ""


def _first(mine: Any, other: Any) -> str:
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(mine, dict) and isinstance(other, dict):
        pairs = [(mine.get(k), other.get(k)) for k in sorted({*mine, *other})]
    elif isinstance(mine, list) and isinstance(other, list):
        pairs = [*zip(mine, other, strict=False), (len(mine), len(other))]
    else:
        return f"{mine!r:.300} instead of {other!r:.300}"
    return next((_first(a, b) for a, b in pairs if a != b), "")


def left_over(*folders: Path) -> str:
    """Hidden files and folders (temporary ones, locks) that nobody has cleared, "" for none."""
    found = [str(path) for folder in folders for path in folder.rglob(".*")]
    return f"left behind: {', '.join(found)}" if found else ""


def acknowledged(err: str) -> list[int]:
    """Steps whose checkpoint was announced as durable."""
    return [int(step) for step in _ACKNOWLEDGED.findall(err)]


def continued(err: str) -> int:
    """The step from which a run went on, 0 when it began."""
    found = _CONTINUING.search(err)
    return int(found[1]) if found else 0


def ended(done: Done, *codes: int) -> str:
    """What is wrong with the end of a process that should have ended with one of `codes`."""
    if "Traceback" in done.err:
        return f"a traceback: …{done.err[-1500:]}"
    return "" if done.code in codes else f"ended with {done.code}, not {codes}: …{done.err[-800:]}"
