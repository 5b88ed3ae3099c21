"""Entries of dataset_info.json for files that we write: under which names they read as their source did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.config import plain
from luthier.data.sources import extension
from luthier.data.spec import COLUMNS, INFO, TAGS, DatasetSpec
from luthier.errors import DataError, UsageError
from luthier.runs import atomic

Entries = Mapping[str, Mapping[str, Any]]


def entry(spec: DatasetSpec, file_name: str) -> dict[str, Any]:
    """The entry of a file with rows like those of `spec`, for LLaMA-Factory and for us.

    Where names are LLaMA-Factory's defaults they are left out. Its `openai` has no defaults that work, so
    there they are written. Plain text is what it calls alpaca with a prompt and no response.
    """
    found: dict[str, Any] = {"file_name": file_name}
    if spec.formatting not in (None, "alpaca", "text"):
        found["formatting"] = spec.formatting
    if spec.ranking:
        found["ranking"] = True
    for key, names, defaults in (("columns", spec.columns, COLUMNS), ("tags", spec.tags, TAGS)):
        if dict(names) != defaults:
            found[key] = {what: name for what, name in names.items() if name is not None}
    return found


def stem(spec: DatasetSpec) -> str:
    """A name for files made of a data set: its own, without folders and extensions."""
    return bare(Path(spec.name)) if spec.name == spec.location else Path(spec.name).name


def bare(path: Path) -> str:
    """A data file's name without its extension, .gz looked through."""
    kind = extension(path)
    return path.name[: path.name.lower().rindex(kind)] if kind else path.name


def beside(spec: DatasetSpec) -> Path:
    """The folder for files made of a data set: where its file or folder is; here for a hub's."""
    return Path(spec.location).parent if spec.where == "file" else Path()


def snippet(entries: Entries) -> str:
    """The entries as they stand in dataset_info.json, to be pasted between its braces."""
    return json.dumps(entries, ensure_ascii=False, indent=2)[2:-2]


def check(folder: Path, entries: Entries, overwrite: bool = False) -> None:
    """Raise UsageError when `register` would replace an entry, DataError for a file that cannot be read."""
    known = _known(folder)
    taken = [name for name, one in entries.items() if known.get(name, one) != one]
    if taken and not overwrite:
        raise UsageError(
            f"{folder / INFO}: already has {', '.join(taken)}, with other values -> give another name,"
            " or --overwrite to replace"
        )


def register(folder: Path, entries: Entries, overwrite: bool = False) -> Path:
    """Add the entries to the folder's dataset_info.json (made if there is none); all others stay.

    Raises as `check` does, and RunError when the disk refuses.
    """
    check(folder, entries, overwrite)
    atomic.write_json(folder / INFO, {**_known(folder), **entries})
    return folder / INFO


def _known(folder: Path) -> dict[str, Any]:
    path = folder / INFO
    if not path.exists():
        return {}
    try:
        parsed = plain.from_json(plain.read_text(path, plain.LONGEST_JSON))
    except plain.Unreadable as error:
        raise DataError(f"{path}: {error.what} -> {error.instead}") from error
    if parsed.doubles or not isinstance(parsed.value, dict):
        what = f'"{parsed.doubles[0][0]}" is given twice' if parsed.doubles else "is no table of data sets"
        raise DataError(f"{path}: {what} -> mend it before an entry is added")
    return parsed.value
