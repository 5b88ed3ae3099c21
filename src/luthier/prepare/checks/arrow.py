"""What a file's values become in the tables of the `datasets` library that LLaMA-Factory reads files with.

Learnt by giving datasets 4.0.0 such files: a column has one type for all rows, a key that any row has is in
every row (null where it was not), CSV cells are numbers and nulls where they look like it, and so are dates
in JSON lines. That library looks at blocks of a file (10,000 rows of CSV, 10 MB of JSON lines) one by one;
here a file is one block.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from luthier.data import registry
from luthier.data.spec import DatasetSpec

READ = dict(
    zip(
        (".arrow", ".csv", ".json", ".jsonl", ".parquet", ".txt"),
        "arrow csv json json parquet text".split(),
        strict=True,
    )
)
"""Types by extension: extras/constants.py, FILEEXT2TYPE."""
_NULLS = "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"
NULLS = frozenset(_NULLS.split("|"))
"""Cells that pandas' read_csv reads as missing."""
DEEPEST = 24
"""Levels of a value that are looked at."""
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*|[+-]?inf(inity)?", re.IGNORECASE)
_TRUTHS = frozenset(("True", "TRUE", "true", "False", "FALSE", "false"))
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d)?)?Z?)?")
_WRAPPED = re.compile(rb'\s*\{\s*"([^"\\]{1,64})"\s*:\s*\[\s*\{')
_COMMA = re.compile(rb"\}\s*,\s*\]\s*\Z|\}[ \t]*,\s*\n\s*\{[^\n]*\}[ \t]*,?\s*\Z")
_DAY = datetime(1970, 1, 1)
Shape = Literal["cells", "list", "lines", "typed"]
Kind = Literal["text", "number", "truth", "list", "object"]


@dataclass
class Columns:
    """What is known of a file's columns once all its rows were taken in.

    shape: "cells" of CSV, a JSON "list", JSON "lines", or "typed" (Parquet, Arrow, text) · names: columns of
    any row · mixed: path -> sources of rows whose value has another type than those before · objects: how
    many stand at a path · keys: how many of them have each key.
    """

    shape: Shape
    names: dict[str, None] = field(default_factory=dict)
    mixed: dict[str, list[str]] = field(default_factory=dict)
    objects: Counter[str] = field(default_factory=Counter)
    keys: dict[str, Counter[str]] = field(default_factory=dict)
    _first: dict[str, Kind] = field(default_factory=dict)
    _looks: dict[str, set[str]] = field(default_factory=dict)

    def take(self, row: Mapping[str, Any], source: str) -> None:
        """Take in a row as it stands in the file."""
        self.names |= dict.fromkeys(row)
        for name, value in row.items():
            if self.shape == "cells":
                if isinstance(value, str) and value not in NULLS:
                    self._looks.setdefault(name, set()).add(_look(value))
                continue
            if self.shape == "lines" and isinstance(value, str):
                date = self._looks.get(name) != {"text"} and _DATE.fullmatch(value)
                self._looks.setdefault(name, set()).add("date" if date else "text")
            self._walk(value, name, source, 0)

    def _walk(self, value: Any, path: str, source: str, depth: int) -> None:
        kind = self._kind(value)
        if kind is None or self.shape == "typed" or depth > DEEPEST:
            return
        if self._first.setdefault(path, kind) != kind:
            rows = self.mixed.setdefault(path, [])
            if not rows or rows[-1] != source:
                rows.append(source)
        elif isinstance(value, list):
            for one in value:
                self._walk(one, path + "[]", source, depth + 1)
        elif isinstance(value, Mapping):
            self.objects[path] += 1
            self.keys.setdefault(path, Counter()).update(value.keys())
            for key, one in value.items():
                self._walk(one, f"{path}.{key}", source, depth + 1)

    def _kind(self, value: Any) -> Kind | None:
        """The type of a value; None for null, which goes with every type."""
        if value is None or (self.shape == "list" and isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, bool):
            return "truth"
        if isinstance(value, (int, float)):
            return "number"
        return "text" if isinstance(value, str) else "list" if isinstance(value, Sequence) else "object"

    def as_read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row as LLaMA-Factory gets it."""
        return {name: self._value(name, row.get(name)) for name in self.names}

    def _value(self, name: str, value: Any) -> Any:
        looks = self._looks.get(name)
        if self.shape == "cells" and isinstance(value, str):
            if value in NULLS:
                return None
            return 1.0 if looks == {"number"} else True if looks == {"truth"} else value
        if looks == {"date"} and isinstance(value, str):
            return _DAY
        return None if self._kind(value) is None and self.shape != "typed" else value

    def filled(self, path: str) -> bool:
        """Whether the objects at a path have different keys, and so get each other's."""
        return any(count < self.objects[path] for count in self.keys.get(path, {}).values())


def _look(cell: str) -> str:
    if cell in _TRUTHS:
        return "truth"
    return "number" if _NUMBER.fullmatch(cell) else "text"


def shape_of(paths: Sequence[Path]) -> Shape:
    """How the values of these files come into a table, told by the first of them."""
    kind = READ.get(paths[0].suffix.lower()) if paths else None
    if kind == "csv" or (paths and paths[0].suffix.lower() == ".tsv"):
        return "cells"
    if kind != "json":
        return "typed"
    return "list" if _first_bytes(paths[0]).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[" else "lines"


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096)


def trouble(spec: DatasetSpec, names: Sequence[str]) -> Iterator[str]:
    """Names of the rules about a data set's files that keep LLaMA-Factory from starting.

    names: the columns that luthier found. Hub data sets are not looked at: their files are another's.
    """
    if spec.where != "file":
        return
    folder = Path(spec.location)
    paths = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    kinds = {READ.get(path.suffix) for path in paths}
    if None in kinds or len(kinds) != 1:
        yield "file_type"
        return
    kind = kinds.pop()
    if kind in ("csv", "json", "text") and not all(map(_is_utf8, paths)):
        yield "encoding"
        return
    starts = {path: _first_bytes(path) for path in paths}
    if shape_of(paths) == "list" and any(start.startswith(codecs.BOM_UTF8) for start in starts.values()):
        yield "byte_order_mark"
    if kind == "json" and any(map(_is_loose, paths)):
        yield "loose_json"
    outer = _WRAPPED.match(starts[paths[0]]) if kind == "json" else None
    if outer and outer[1].decode() not in names:
        yield "wrapped"
    if kind == "csv" and not all(_has_commas(start, names) for start in starts.values()):
        yield "separator"


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _is_loose(path: Path) -> bool:
    """Whether a comma stands where no more follows: behind a list's last row, or behind a line's object."""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - 4096, 0))
        return _COMMA.search(file.read()) is not None


def _has_commas(start: bytes, names: Sequence[str]) -> bool:
    """Whether the header, cut at commas, gives the columns."""
    line = start.decode("utf-8-sig", "replace").lstrip("\r\n").splitlines()[:1]
    cells = next(csv.reader(line), [])
    return {cell.strip() for cell in cells} >= set(names)


def entry(spec: DatasetSpec, columns: Columns) -> str:
    """The entry of dataset_info.json by which LLaMA-Factory reads a file as luthier does."""
    name = Path(spec.location).stem
    there = {key: named for key, named in spec.columns.items() if named in columns.names}
    made: dict[str, Any] = {"file_name": Path(spec.location).name}
    if spec.formatting not in ("alpaca", "text"):
        made |= {"formatting": "sharegpt"}
    made |= {"ranking": True} if spec.ranking else {}
    made |= {"columns": there}
    if "formatting" in made:
        made |= {"tags": {key: named for key, named in spec.tags.items() if named}}
    return json.dumps({name: made}, ensure_ascii=False)


def is_listed(spec: DatasetSpec) -> bool:
    """Whether dataset_info.json names the data set; a bare path is not known to LLaMA-Factory."""
    return (
        spec.where != "file" or registry.specs([spec.name], spec.base, look=False)[0].formatting is not None
    )
