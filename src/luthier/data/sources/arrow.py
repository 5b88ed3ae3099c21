"""Parquet, Arrow IPC and Feather files -> rows, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from luthier.data.sources.encoding import seekable
from luthier.errors import DataError

BATCH = 1024  # rows turned into Python objects at a time


def read_parquet(path: Path, notes: list[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Rows of a Parquet file; a null is None."""
    import pyarrow.parquet as pq

    yield from _numbered(path, lambda file: pq.ParquetFile(file).iter_batches(batch_size=BATCH))


def read_arrow(path: Path, notes: list[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Rows of an Arrow IPC file or stream, or of a Feather (version 2) file."""
    yield from _numbered(path, _ipc_batches)


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


def _numbered(path: Path, batches: Any) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa

    number = 0
    try:
        with ExitStack() as stack:
            for batch in batches(seekable(path, stack)):
                batch.validate(full=True)  # offsets that lie would read outside of the file's memory
                for start in range(0, batch.num_rows, BATCH):
                    for row in batch.slice(start, BATCH).to_pylist():
                        number += 1
                        yield number, row
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, MemoryError) as error:
        raise DataError(
            f"{path}: not a sound Parquet or Arrow file ({error}) -> copy or download it again"
        ) from error
