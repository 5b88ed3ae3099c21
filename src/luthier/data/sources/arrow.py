"""Parquet, Arrow IPC and Feather files -> rows, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from luthier.data.sources.encoding import note, seekable
from luthier.errors import DataError

BATCH = 64  # rows turned into Python objects at a time; one text stored once may stand in each of them


def read_parquet(path: Path, notes: list[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Rows of a Parquet file; a null is None."""
    import pyarrow.parquet as pq

    yield from _numbered(path, notes, lambda file: pq.ParquetFile(file).iter_batches(batch_size=BATCH))


def read_arrow(path: Path, notes: list[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Rows of an Arrow IPC file or stream, or of a Feather (version 2) file."""
    yield from _numbered(path, notes, _ipc_batches)


def _ipc_batches(file: IO[bytes]) -> Iterator[Any]:
    """Record batches; the file format is tried first, then the stream format (which `datasets` writes)."""
    import pyarrow as pa

    try:
        opened = pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        yield from pa.ipc.open_stream(file)
        return
    for index in range(opened.num_record_batches):
        yield opened.get_batch(index)


def _numbered(path: Path, notes: list[str] | None, batches: Any) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa

    number, odd = 0, None
    try:
        with ExitStack() as stack:
            for batch in batches(seekable(path, stack)):
                if odd is None:
                    odd = _odd_columns(path, batch.schema, notes)
                batch.validate(full=True)  # offsets that lie would read outside of the file's memory
                for start in range(0, batch.num_rows, BATCH):
                    for row in batch.slice(start, BATCH).to_pylist():
                        number += 1
                        yield number, row | {name: _plain(row[name]) for name in odd} if odd else row
    except (pa.ArrowException, OSError, EOFError, ValueError, MemoryError) as error:
        raise DataError(
            f"{path}: not a sound Parquet or Arrow file ({error}) -> copy or download it again"
        ) from error


def _odd_columns(path: Path, schema: Any, notes: list[str] | None) -> list[str]:
    """Columns with values that JSON does not have; a note on those that are read as text. Raises DataError
    for a column that is named twice."""
    double = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if double:
        raise DataError(f"{path}: the file names a column twice: {', '.join(double)} -> rename one of them")
    kinds = {field.name: _leaves(field.type) for field in schema}
    for name, found in kinds.items():
        for kind in found:
            if _is_text_here(kind):
                note(notes, f'{path.name}: column "{name}": {kind} is read as text')
    return [
        name
        for name, found in kinds.items()
        if any(map(_is_text_here, found)) or "map<" in str(schema.field(name).type)
    ]


def _leaves(kind: Any) -> list[Any]:
    """The types that a type is made of, without lists, structs, maps and dictionaries around them."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _leaves(kind.value_type)
    if not kind.num_fields:
        return [kind]
    return [leaf for place in range(kind.num_fields) for leaf in _leaves(kind.field(place).type)]


def _is_text_here(kind: Any) -> bool:
    import pyarrow as pa

    found = pa.types
    tests = (found.is_decimal, found.is_temporal, found.is_binary, found.is_large_binary)
    return any(test(kind) for test in (*tests, found.is_fixed_size_binary, found.is_binary_view))


def _plain(value: Any) -> Any:
    """A value as JSON would have it: decimals and moments as they are written, maps as objects, bytes as the
    text that they are (what is not UTF-8 in them is refused later, see encoding.chunks)."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, Decimal | timedelta):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):  # a map
            return {str(_plain(key)): _plain(item) for key, item in value}
        return [_plain(item) for item in value]
    return value
