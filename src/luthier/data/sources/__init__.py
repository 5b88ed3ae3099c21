"""Files and hubs -> rows, each with its "file:row". Streaming: memory does not grow with the data.

A row's number counts from 1; for files of lines (JSON Lines, text) it is the line, as editors show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from luthier.data.sources import packed, places
from luthier.data.sources.encoding import blocks, note
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError
from luthier.streams import legible
from luthier.types import BadRow, Row

_JSON, _TABLES, _BOOK, _ARROW = (
    "luthier.data.sources." + name for name in ("json_rows", "tables", "workbook", "arrow")
)
# file name extension -> dotted path of a function (path, notes) -> iterator of (row number, value or BadRow)
READERS: dict[str, str] = {
    ".json": _JSON + ":read_json",
    ".jsonl": _JSON + ":read_jsonl",
    ".ndjson": _JSON + ":read_jsonl",
    ".csv": _TABLES + ":read_csv",
    ".tsv": _TABLES + ":read_csv",
    ".txt": _TABLES + ":read_text",
    ".xlsx": _BOOK + ":read_xlsx",
    ".xlsm": _BOOK + ":read_xlsx",
    ".parquet": _ARROW + ":read_parquet",
    ".arrow": _ARROW + ":read_arrow",
    ".feather": _ARROW + ":read_arrow",
}
ADVICE = {
    ".xls": "open it and save it as .xlsx or as CSV in UTF-8",
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), packed.UNPACK),
    ".zst": "unpack it (zstd -d), or pack it with gzip",
    ".xz": "unpack it (xz -d), or pack it with gzip",
    ".bz2": "unpack it (bzip2 -d), or pack it with gzip",
    ".md": "turn documents into rows first, or rename it to .txt to read one row per line",
    ".pdf": "turn documents into rows first",
    ".docx": "turn documents into rows first",
}
PACKED_OR_OLD = ADVICE.keys() - {".md", ".pdf", ".docx"}
LEDGER = ".ledger.jsonl"
# Files that lie beside data and are not data.
BESIDE = {
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "readme.txt",
    "license.txt",
}


def extension(path: Path | str) -> str:
    """The lower-case extension that decides the reader; ".gz" is looked through."""
    name = Path(path).name.lower()
    return Path(name.removesuffix(".gz")).suffix


def is_data(path: Path) -> bool:
    """Whether a file in a folder is one that we read. The ledger of a cleaned file lies beside it."""
    name = path.name.lower()
    beside = name.startswith((".", "_")) or name in BESIDE or name.endswith(LEDGER)
    return extension(path) in READERS and not beside


def read(
    spec: DatasetSpec, notes: list[str] | None = None, *, limit: int | None = None
) -> Iterator[Row | BadRow]:
    """The data set's rows in file order; a row that cannot be read comes as a BadRow in its place.

    notes: receives what the user should hear (an encoding recognised, a sheet not read), each once.
    limit: stop after so many. Raises DataError for a missing, empty, undecodable or unknown file.
    """
    rows = (row for path in files(spec, notes) for row in _read_file(path, _shown(path, spec), notes))
    return rows if limit is None else islice(rows, limit)


def files(spec: DatasetSpec, notes: list[str] | None = None) -> list[Path]:
    """The data set's files, sorted; hub data sets are downloaded (or found in the cache) first."""
    if spec.where != "file":
        from luthier.data.sources import hub

        return hub.fetch(spec, notes)
    path = Path(spec.location)
    why = places.trouble(path)
    if why:
        raise DataError(f"{path}: {why} -> {places.remedy(why)}, or file_name in dataset_info.json")
    return _folder(path, spec, notes) if path.is_dir() else [path]


def _folder(path: Path, spec: DatasetSpec, notes: list[str] | None) -> list[Path]:
    """A folder's own data files; if it has none, those of its subfolders that belong to the split."""
    from luthier.data.sources import hub

    entries = places.listing(path)
    found = [entry for entry in entries if is_data(entry) and not entry.is_dir()]
    if found:
        _say_left_out(path, entries, notes)
    else:
        found = hub.select(path, spec, notes)
    if not found:
        raise DataError(
            f"{path}: no data files in this folder -> it may hold {', '.join(sorted(READERS))} (also .gz)"
        )
    for file in found:
        places.check(file)
    if len(found) > 1:
        shown = ", ".join(file.relative_to(path).as_posix() for file in found[:8]) + (
            " ..." if len(found) > 8 else ""
        )
        note(notes, f"{path.name}: {len(found)} files are read as one data set: {shown}")
    for file in found:
        if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
            note(notes, f"{path.name}: {file.name} is a link to {file.resolve()}")
    return found


def _say_left_out(path: Path, entries: list[Path], notes: list[str] | None) -> None:
    """A note on what lies beside the data files and looks as if it should be read too."""
    left = []
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            if is_data(entry) or any(map(is_data, places.listing(entry))):
                left.append(f"{entry.name} (a folder)")
        elif extension(entry) in PACKED_OR_OLD:
            left.append(entry.name)
    if left:
        note(notes, f"{path.name}: not read: {', '.join(left)}")


def _shown(path: Path, spec: DatasetSpec) -> str:
    """How a file is named in a row's source: relative to the data set's directory where it lies in it."""
    for base in (spec.base, str(Path(spec.location).parent) if spec.where == "file" else ""):
        if base and path.is_relative_to(base):
            return legible(path.relative_to(base).as_posix())
    return legible(path.name)


def check_extension(path: Path) -> str:
    """The dotted path of the file's reader. Raises DataError, with advice, for a kind that is not read."""
    target = READERS.get(extension(path))
    if target is None:
        advice = ADVICE.get(extension(path), f"use one of {', '.join(sorted(READERS))} (also packed as .gz)")
        raise DataError(
            f"{path}: files of this kind ({extension(path) or 'no extension'}) are not read -> {advice}"
        )
    return target


def _reader(path: Path) -> Callable[[Path, list[str] | None], Iterator[tuple[int, Any]]]:
    module, _, function = check_extension(path).partition(":")
    reader: Callable[[Path, list[str] | None], Iterator[tuple[int, Any]]] = getattr(
        import_module(module), function
    )
    return reader


def _read_file(path: Path, shown: str, notes: list[str] | None) -> Iterator[Row | BadRow]:
    reader, empty = _reader(path), True
    packed.check_file(path)
    check_again = places.unchanged(path)
    head = next(blocks(path, packed.HEAD), b"")
    if not head:
        raise DataError(f"{path}: the file is empty -> write at least one row, or leave it out")
    packed.check_head(path, head, extension(path))
    for number, value in reader(path, notes):
        empty = False
        yield _wrap(value, f"{shown}:{number}")
    check_again()
    if empty:
        raise DataError(f"{path}: the file holds no rows -> write at least one row, or leave it out")


def _wrap(value: Any, source: str) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(value, source)
    if isinstance(value, BadRow):
        return BadRow(source, value.field, value.reason, value.data)
    if isinstance(value, str):  # a list of texts, for pre-training
        return Row({"text": value}, source)
    return BadRow(source, "", f"the row is {kind(value)}, not an object with named fields", value)


KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def kind(value: Any) -> str:
    """A value's type in words; a number with itself ("a number: 5")."""
    found = float if isinstance(value, float) else type(value)
    words = KINDS.get(found, f"of type {found.__name__}")
    return f"{words}: {value}" if isinstance(value, int | float) else words
