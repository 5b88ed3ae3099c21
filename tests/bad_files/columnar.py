"""Parquet, Arrow and Feather files."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from bad_files.case import GOOD, ROWS, Case, asked, file, gpt, human, pair, say

TWO = [pair(1), pair(2)]
LONG = "x" * (1 << 20)


def table(rows: Any, name: str = "d.parquet", **options: Any) -> Callable[[Path], str]:
    """A writer of rows (or of an Arrow table) as Parquet."""

    def write(folder: Path) -> str:
        found = rows() if callable(rows) else rows
        found = found if isinstance(found, pa.Table) else pa.Table.from_pylist(found)
        pq.write_table(found, folder / name, **options)
        return name

    return write


def _answers(values: Any, kind: Any = None) -> Callable[[Path], str]:
    """A table with answers of a type that is not text."""

    def make() -> Any:
        questions = [f"q{n}" for n in range(len(values))]
        return pa.table({"instruction": questions, "output": pa.array(values, kind)})

    return table(make)


def _bytes(rows: Any = TWO, change: Callable[[bytes], bytes] = bytes) -> Callable[[Path], str]:
    """A writer of a Parquet file whose bytes were changed."""

    def write(folder: Path) -> str:
        memory = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), memory, compression="none")
        return file(change(memory.getvalue()), "d.parquet")(folder)

    return write


def _ipc(name: str, stream: bool = False, cut: int | None = None, compression: str | None = None) -> Any:
    def write(folder: Path) -> str:
        found, memory = pa.Table.from_pylist(TWO), io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression=compression)
        make = pa.ipc.new_stream if stream else pa.ipc.new_file
        with make(memory, found.schema, options=options) as writer:
            writer.write_table(found)
        return file(memory.getvalue()[:cut], name)(folder)

    return write


def _many_groups() -> Any:
    return pa.Table.from_pylist([pair(n) for n in range(1, 3001)])


def _doubled() -> Any:
    return pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], ["instruction", "output", "output"]
    )


def _long_words() -> Any:
    """One megabyte of text, 600 times: a file of one megabyte that is 600 in memory."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 600, pa.int32()), pa.array([LONG]))
    return pa.table({"instruction": [f"q{n}" for n in range(600)], "output": words})


def _dictionary() -> Any:
    return pa.table({"instruction": ["a", "b", "c"], "output": pa.array(["x", "y", "x"]).dictionary_encode()})


def _views() -> Any:
    return pa.table(
        {"instruction": pa.array(["a"], pa.string_view()), "output": pa.array(["b"], pa.large_string())}
    )


def _maps() -> Any:
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    turns = [[[("role", "user"), ("content", "a")], [("role", "assistant"), ("content", "b")]]]
    return pa.table({"messages": pa.array(turns, kind)})


CHAT = [{"messages": [say("user", "a"), say("assistant", "b")]}]
CALLS = [
    {
        "messages": [
            {"role": "user", "content": "a", "tool_calls": None},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}],
            },
            {"role": "tool", "content": "b", "tool_calls": None},
            {"role": "assistant", "content": "c", "tool_calls": None},
        ]
    }
]
CASES: dict[str, Case] = {
    "text": Case(table(ROWS), GOOD),
    "messages as list<struct>": Case(table(CHAT), [("a", "b")]),
    "sharegpt as list<struct>": Case(table([{"conversations": [human("a"), gpt("b")]}]), [("a", "b")]),
    "messages with tool calls, nulls elsewhere": Case(
        table(CALLS), [("a", 'call: f {"x": 1}', "tool: b", "c")]
    ),
    "messages as maps": Case(table(_maps), [("a", "b")]),
    "messages as JSON text": Case(
        table([{"messages": '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'}]),
        [("a", "b")],
    ),
    "a struct for an answer": Case(_answers([{"a": 1}]), (), [(1, "output", "is an object, not text")]),
    "a list for an answer": Case(_answers([["a"]]), (), [(1, "output", "is a list, not text")]),
    "dictionary-encoded text": Case(table(_dictionary), [("a", "x"), ("b", "y"), ("c", "x")]),
    "string views and large strings": Case(table(_views), [("a", "b")]),
    "decimals": Case(
        _answers([Decimal("1.10"), Decimal("-2.00")]),
        [("q0", "1.10"), ("q1", "-2.00")],
        notes=['"output": decimal'],
    ),
    "timestamps": Case(
        _answers([datetime(2024, 5, 1, 9, 30), None]),
        [("q0", "2024-05-01 09:30:00")],
        [(2, "output", "empty answer")],
        ['"output": timestamp'],
    ),
    "dates": Case(_answers([date(2024, 5, 1)]), [("q0", "2024-05-01")], notes=['"output": date32']),
    "durations": Case(_answers([timedelta(hours=1)]), [("q0", "1:00:00")], notes=['"output": duration']),
    "half floats": Case(_answers([1.5], pa.float16()), [("q0", "1.5")]),
    "integers": Case(_answers([7, None]), [("q0", "7")], [(2, "output", "empty answer")]),
    "not a number": Case(
        _answers([float("nan"), 1.5]), [("q1", "1.5")], [(1, "output", "is a number: nan, not text")]
    ),
    "true and false": Case(_answers([True]), (), [(1, "output", "is true or false: True, not text")]),
    "text stored as binary": Case(
        _answers(["好".encode(), b"b"], pa.binary()), [("q0", "好"), ("q1", "b")], notes=['"output": binary']
    ),
    "binary that is no text": Case(
        _answers([b"\x89PNG\xff", b"b"], pa.binary()),
        [("q1", "b")],
        [(1, "output", "bytes that are not UTF-8 (0x89)")],
        ['"output": binary'],
    ),
    "nulls": Case(
        table([{"instruction": "a", "output": None}, *TWO]), asked(1, 2), [(1, "output", "empty answer")]
    ),
    "a column of nulls": Case(
        _answers([None, None], pa.null()), (), [(1, "output", "empty answer"), (2, "output", "empty answer")]
    ),
    "a column named twice": Case(table(_doubled), refused="names a column twice: output"),
    "no rows": Case(table(lambda: pa.Table.from_pylist(TWO).slice(0, 0)), refused="holds no rows"),
    "many row groups": Case(table(_many_groups, row_group_size=100), asked(*range(1, 3001))),
    "one long text many times": Case(table(_long_words), [(f"q{n}", LONG) for n in range(600)]),
    "zstd": Case(table(TWO, compression="zstd"), asked(1, 2)),
    "cut in the middle": Case(
        _bytes(change=lambda content: content[: len(content) // 2]), refused="not a sound Parquet"
    ),
    "without its beginning": Case(_bytes(change=lambda content: content[64:]), refused="not a sound Parquet"),
    "text that is not UTF-8": Case(
        _bytes(change=lambda content: content.replace(b"answer 1", b"answer\xff\xff")),
        refused="not a sound Parquet",
    ),
    "encrypted": Case(_bytes(change=lambda content: content[:-4] + b"PARE"), refused="not a sound Parquet"),
    "named .json": Case(table(TWO, "d.json"), refused="is a Parquet file -> name it .parquet"),
    "named .arrow": Case(table(TWO, "d.arrow"), refused="is a Parquet file -> name it .parquet"),
    "JSON named .parquet": Case(
        file(b'[{"instruction": "a", "output": "b"}]', "d.parquet"), refused="not a sound Parquet"
    ),
    "an Arrow file": Case(_ipc("d.arrow"), asked(1, 2)),
    "an Arrow stream": Case(_ipc("d.arrow", stream=True), asked(1, 2)),
    "an Arrow stream named .feather": Case(_ipc("d.feather", stream=True), asked(1, 2)),
    "compressed buffers": Case(_ipc("d.feather", compression="zstd"), asked(1, 2)),
    "an Arrow file cut": Case(_ipc("d.arrow", cut=400), refused="not a sound Parquet or Arrow file"),
    "an Arrow stream cut": Case(
        _ipc("d.arrow", stream=True, cut=400), refused="not a sound Parquet or Arrow file"
    ),
    "an Arrow stream without its end mark": Case(_ipc("d.arrow", stream=True, cut=-8), asked(1, 2)),
    "an Arrow file named .parquet": Case(_ipc("d.parquet"), refused="is an Arrow file"),
    "an Arrow stream named .parquet": Case(_ipc("d.parquet", stream=True), refused="not a sound Parquet"),
    "an empty .parquet": Case(file(b"", "d.parquet"), refused="the file is empty"),
}
