"""Parquet, Arrow and Feather: columns of one type each.

A column whose rows agree in shape keeps it, lists and objects included. Where they do not (the parameters of
tools, texts among numbers), it is text, nested values as JSON: Arrow would give each object all keys of all
others, with null in them, and thereby change what a row says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from luthier.data.sources.json_values import WrittenFloat
from luthier.errors import DataError
from luthier.prepare.write import HALF, Put, Writer, encode, legible

BATCH = 1024
Shape = Any
"""None (only nulls so far), "bool", "int", "float", "text", MIXED, ["list", Shape] or {key: Shape}."""
MIXED = "mixed"


@contextmanager
def parquet_file(file: Path, writer: Writer) -> Iterator[Put]:
    """Parquet, compressed."""
    import pyarrow.parquet as pq

    with _spooled(file, writer) as (put, batches):
        yield put
        schema, tables = batches()
        with pq.ParquetWriter(file, schema, compression="zstd") as out:
            for table in tables:
                out.write_table(table)


@contextmanager
def arrow_file(file: Path, writer: Writer) -> Iterator[Put]:
    """The Arrow IPC file format, which is Feather's second version."""
    import pyarrow as pa

    with _spooled(file, writer) as (put, batches):
        yield put
        schema, tables = batches()
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
            for table in tables:
                out.write_table(table)


@contextmanager
def _spooled(file: Path, writer: Writer) -> Iterator[Any]:
    """(put, a function that gives the schema and the tables of all rows that were put)."""
    body, shapes, seen = file.with_name("body"), dict[str, Shape](), dict[str, int]()
    with body.open("wb") as out:

        def put(row: Mapping[str, Any]) -> None:
            for name, value in row.items():
                if HALF.search(name):
                    raise DataError(f"{writer.place}: a column's name is damaged ({name!r}) -> rename it")
                shapes[name] = joined(shapes.get(name), shape(value))
                seen[name] = seen.get(name, 0) + 1
            out.write(encode(row).encode("utf-8", "surrogatepass") + b"\n")

        def batches() -> tuple[Any, Iterator[Any]]:
            import pyarrow as pa

            out.flush()
            for name, count in seen.items():
                if count < writer.count:
                    writer.lost[f'"{name}": rows without it have null'] += writer.count - count
            schema = pa.schema([(name, _type(found)) for name, found in shapes.items()])
            return schema, _tables(body, schema, shapes, writer)

        yield put, batches


def _tables(body: Path, schema: Any, shapes: Mapping[str, Shape], writer: Writer) -> Iterator[Any]:
    import pyarrow as pa

    with body.open("rb") as rows:
        while chunk := [_loaded(line) for line in islice(rows, BATCH)]:
            columns = [
                pa.array(
                    [_cell(row.get(name), found, name, writer) for row in chunk], schema.field(name).type
                )
                for name, found in shapes.items()
            ]
            yield pa.Table.from_arrays(columns, schema=schema)


def _loaded(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line.decode("utf-8", "surrogatepass"), parse_float=WrittenFloat)
    return row


def _cell(value: Any, found: Shape, name: str, writer: Writer) -> Any:
    """A value as its column keeps it."""
    if isinstance(value, str):
        return legible(value, name, writer)
    if value is None:
        return None
    if found == MIXED:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        kind = "numbers are text" if plain else "values of other kinds are JSON text"
        writer.lost[f'"{name}": {kind}, since not all rows are alike'] += 1
        return legible(str(value) if plain else encode(value), name, writer)
    if isinstance(value, list):
        return [_cell(item, found[1], name, writer) for item in value]
    if isinstance(value, dict):
        return {key: _cell(item, found[key], name, writer) for key, item in value.items()}
    if isinstance(value, WrittenFloat) and value.written != float.__repr__(value):
        writer.lost[f'"{name}": how a number was written is not kept (1.10 is 1.1)'] += 1
    return float(value) if isinstance(value, float) else value


def shape(value: Any) -> Shape:
    """What a value is made of; MIXED where one Arrow type cannot hold it as it is."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(1 << 63) <= value < 1 << 63 else MIXED
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        inner: Shape = None
        for item in value:
            inner = joined(inner, shape(item))
        return MIXED if inner == MIXED else ["list", inner]
    found = {key: shape(item) for key, item in value.items()}
    damaged = any(map(HALF.search, found))
    return MIXED if not found or damaged or MIXED in found.values() else found


def joined(first: Shape, second: Shape) -> Shape:
    """The shape of values of both; MIXED where they have none in common."""
    if first == second or second is None:
        return first
    if first is None:
        return second
    if isinstance(first, list) and isinstance(second, list):
        inner = joined(first[1], second[1])
        return MIXED if inner == MIXED else ["list", inner]
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        both = {key: joined(first[key], second[key]) for key in first}
        return MIXED if MIXED in both.values() else both
    return MIXED


def _type(found: Shape) -> Any:
    import pyarrow as pa

    if isinstance(found, list):
        return pa.list_(_type(found[1]))
    if isinstance(found, dict):
        return pa.struct([(key, _type(item)) for key, item in found.items()])
    return {None: pa.null(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}.get(
        found, pa.string()
    )
