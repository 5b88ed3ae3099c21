"""SHA-256 of files and folders, with a memory of large files that have not changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luthier.errors import RunError
from luthier.runs import atomic

_BLOCK = 1 << 20
_LARGE = 64 << 20


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


def sha256_json(value: Any) -> str:
    """Hash of the value, not of its layout: keys sorted, no spaces."""
    return sha256_text(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str))


def sha256_file(path: str | Path) -> str:
    """Hash of the whole file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(top: str | Path, *, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """Hash of every file below `top`, by its path from there with forward slashes, sorted."""
    top, skip = Path(top), set(leave_out)
    # os.walk and not rglob, which passes over folders that it cannot list: what is missing here is not sealed
    names = {
        Path(folder, name).relative_to(top).as_posix(): Path(folder, name)
        for folder, _, files in os.walk(top, onerror=_stop)
        for name in files
        if Path(folder, name).is_file()
    }
    return {name: sha256_file(names[name]) for name in sorted(names) if name not in skip}


def _stop(error: OSError) -> None:
    raise error


def verify(top: str | Path, expected: Mapping[str, str]) -> list[str]:
    """How the files below `top` differ from their expected hashes, in words; [] when they do not."""
    problems = []
    for name, digest in expected.items():
        path = Path(top, name)
        try:
            if not path.is_file():
                problems.append(f"{name} is missing")
            elif sha256_file(path) != digest:
                problems.append(f"{name} is not what was written (its sha256 differs)")
        except OSError as error:
            problems.append(f"{name} cannot be read ({error.strerror})")
    return problems


def cached(path: str | Path, *, memory: Path | None = None, at_least: int = _LARGE) -> str:
    """`sha256_file`; of files of `at_least` bytes remembered by path, size and modification time.

    The memory is one JSON file under the user's cache directory. Where that cannot be written, the file is
    simply hashed again next time.
    """
    real = Path(os.path.realpath(path))
    status = real.stat()
    if status.st_size < at_least:
        return sha256_file(real)
    stamp = [status.st_size, status.st_mtime_ns]
    if memory is None:
        home = cache_directory()
        if home is None:
            return sha256_file(real)
        memory = home / "sha256.json"
    entry = _recall(memory).get(str(real))
    if entry is not None and entry[:2] == stamp:
        return str(entry[2])
    digest = sha256_file(real)
    known = {**_recall(memory), str(real): [*stamp, digest]}
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(memory, known)
    except (OSError, RunError):
        return digest  # a read-only home costs time, never the run
    return digest


def cache_directory() -> Path | None:
    """Where luthier keeps what it can compute again: $XDG_CACHE_HOME/luthier or ~/.cache/luthier.

    None for a user without a home, as in containers that run under any user's number.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if base.startswith("~") else Path(base) / "luthier"


def _recall(memory: Path) -> dict[str, list[Any]]:
    try:
        known = atomic.read_json(memory)
    except (OSError, RunError):
        return {}  # none yet, or damaged: it holds nothing that cannot be computed again
    return known if isinstance(known, dict) else {}
