"""The process in which llama.cpp quantizes (`python -m luthier.export.quantize_child`), as ordered on stdin.

It calls `ggml_quantize_chunk` of the library inside xllamacpp, which ends its process on what it does not
expect. The new file has the old one's fields, bit for bit, but for `general.file_type`.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from luthier.gguf import read
from luthier.gguf.read import ALIGNMENT, Header, TensorInfo

_PLAIN = {0: np.float32, 1: np.float16, 30: np.uint16}
_CHUNK = 1 << 24  # values that are quantized at a time


def main() -> int:
    """Quantize as ordered; 0 when the file is written."""
    order: dict[str, Any] = json.loads(sys.stdin.read())
    source = Path(order["source"])
    head = read.header(source)
    importance = _importance(order["importance"])
    with open(source, "rb") as old, open(order["out"], "wb") as new:
        _write(old, new, head, order, importance)
    return 0


def _write(
    old: IO[bytes],
    new: IO[bytes],
    head: Header,
    order: Mapping[str, Any],
    importance: Mapping[str, npt.NDArray[np.float32]],
) -> None:
    import gguf

    formats = {name: gguf.GGMLQuantizationType[kind.upper()] for name, kind in order["plan"].items()}
    old.seek(0)
    fields = bytearray(old.read(max(end for _, end in head.places.values())))
    begin, _ = head.places["general.file_type"]
    fields[begin : begin + 4] = struct.pack("<I", order["kind"])
    new.write(fields)
    offset = 0
    for tensor in head.tensors:
        kind = formats[tensor.name]
        name = tensor.name.encode()
        shape = tensor.shape[::-1]
        new.write(struct.pack("<Q", len(name)) + name)
        new.write(struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, int(kind), offset))
        offset += _padded(_size(tensor, kind))
    new.write(b"\0" * (-new.tell() % ALIGNMENT))
    library = _library()
    for tensor in head.tensors:
        kind = formats[tensor.name]
        for block in _blocks(old, tensor):
            new.write(_quantized(library, block, kind, tensor, importance.get(tensor.name)))
        new.write(b"\0" * (-_size(tensor, kind) % ALIGNMENT))


def _blocks(old: IO[bytes], tensor: TensorInfo) -> Iterator[npt.NDArray[np.float32]]:
    """The values of a tensor as float32 [rows, columns], some rows at a time; never across two experts."""
    columns = tensor.shape[-1]
    rows = tensor.shape[-2] if len(tensor.shape) > 1 else 1
    count = int(np.prod(tensor.shape)) // columns // rows
    kind = np.dtype(_PLAIN[tensor.type])
    step = max(1, _CHUNK // columns)
    old.seek(tensor.offset)
    for _ in range(count):
        for first in range(0, rows, step):
            here = min(step, rows - first)
            raw = np.frombuffer(old.read(here * columns * kind.itemsize), kind).reshape(here, columns)
            if tensor.type == 30:  # bfloat16 is the upper half of a float32
                raw = (raw.astype(np.uint32) << 16).view(np.float32)
            yield np.ascontiguousarray(raw, np.float32)


def _quantized(
    library: ctypes.CDLL,
    values: npt.NDArray[np.float32],
    kind: Any,
    tensor: TensorInfo,
    importance: npt.NDArray[np.float32] | None,
) -> bytes:
    if kind.name == "F32":
        return values.tobytes()
    if kind.name == "F16":
        return values.astype(np.float16).tobytes()
    if not np.isfinite(values).all():
        raise SystemExit(f"{tensor.name}: holds a value that is no number")
    rows, columns = values.shape
    weights = None
    if importance is not None and importance.shape == (columns,):
        weights = importance.ctypes.data_as(ctypes.c_void_p)
    elif library.ggml_quantize_requires_imatrix(int(kind)):
        raise SystemExit(f"{tensor.name}: {kind.name} needs importances of its {columns} inputs")
    made = np.empty(_bytes(rows * columns, kind), np.uint8)
    library.ggml_quantize_chunk(
        int(kind),
        values.ctypes.data_as(ctypes.c_void_p),
        made.ctypes.data_as(ctypes.c_void_p),
        0,
        rows,
        columns,
        weights,
    )
    return made.tobytes()


def _library() -> ctypes.CDLL:
    import xllamacpp.xllamacpp as extension

    found = ctypes.CDLL(extension.__file__)
    found.ggml_quantize_chunk.restype = ctypes.c_size_t
    found.ggml_quantize_chunk.argtypes = (
        ctypes.c_int,
        *(ctypes.c_void_p,) * 2,
        *(ctypes.c_int64,) * 3,
        ctypes.c_void_p,
    )
    found.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    return found


def _importance(path: str | None) -> dict[str, npt.NDArray[np.float32]]:
    if path is None:
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: np.ascontiguousarray(file[name], np.float32) for name in file.files}


def _size(tensor: TensorInfo, kind: Any) -> int:
    return _bytes(int(np.prod(tensor.shape)), kind)


def _bytes(values: int, kind: Any) -> int:
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    return values // block * size


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


if __name__ == "__main__":
    sys.exit(main())
