"""A GGUF file, written tensor by tensor beside its place and moved there when it is whole."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from luthier.errors import ExportError
from luthier.gguf.read import ALIGNMENT
from luthier.gguf.tensors import Tensor, encode
from luthier.runs import atomic, space

Say = Callable[[str], None]
BYTES = {"f32": 4, "f16": 2, "bf16": 2}
FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32}
"""`general.file_type`: llama.cpp's LLAMA_FTYPE of a file that is mostly of this kind."""
_TYPES = {"f32": 0, "f16": 1, "bf16": 30}
"""`ggml_type` of a tensor."""
_PLAIN = {int: (4, "I"), float: (6, "f"), bool: (7, "?"), str: (8, "s")}
_ELEMENTS = {**_PLAIN, int: (5, "i")}
_ARRAY = 9
_SILENT = 5.0  # seconds between two lines of progress


def write(
    out: Path, architecture: str, fields: Mapping[str, Any], tensors: Sequence[Tensor], say: Say
) -> None:
    """Write `out` whole or not at all. fields: metadata, full key -> value (lists become arrays).

    Raises RunError before the first byte where the disk has too little room, ExportError where a value does
    not fit into its number format.
    """
    head = _head(architecture, fields, tensors)
    size = len(head) + sum(map(_bytes, tensors))
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.recover(out.parent, only=out.name)
    space.require(size, out.parent, f"writing {out.name}", "free some, or give another place")
    with atomic.explained(out), atomic.scratch(out) as folder:
        made = folder / out.name
        with open(made, "xb", buffering=0) as file:
            _whole(file, memoryview(head))
            _bodies(file, tensors, size, lambda text: say(f"{out.name}: {text}"))
        atomic.settle(made, out)


def _head(architecture: str, fields: Mapping[str, Any], tensors: Sequence[Tensor]) -> bytes:
    """All but the weights, in GGUF's third version: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""
    named = {"general.architecture": architecture, **fields}
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(named))]
    parts += [_text(key) + _value(value) for key, value in named.items()]
    offset = 0
    for tensor in tensors:
        size = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape[::-1])
        parts.append(_text(tensor.name) + size + struct.pack("<IQ", _TYPES[tensor.kind], offset))
        offset += _bytes(tensor)
    head = b"".join(parts)
    return head.ljust(_padded(len(head)), b"\0")


def _value(value: Any) -> bytes:
    """A field's type and value, as it is in Python: int is uint32, lists of int are int32."""
    if isinstance(value, (list, tuple)):
        kind, code = _ELEMENTS[type(value[0]) if value else int]
        start = struct.pack("<IIQ", _ARRAY, kind, len(value))
        return start + (
            b"".join(map(_text, value)) if code == "s" else struct.pack(f"<{len(value)}{code}", *value)
        )
    kind, code = _PLAIN[type(value)]
    return struct.pack("<I", kind) + (_text(value) if code == "s" else struct.pack(f"<{code}", value))


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return len(data).to_bytes(8, "little") + data


def _bytes(tensor: Tensor) -> int:
    """What it takes in the file."""
    return _padded(math.prod(tensor.shape) * BYTES[tensor.kind])


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _bodies(file: IO[bytes], tensors: Sequence[Tensor], size: int, say: Say) -> None:
    began = told = time.monotonic()
    done = 0
    for tensor in tensors:
        wrote = 0
        try:
            for part in tensor.make():
                value = encode(part, tensor.kind).reshape(-1).view("B").data
                wrote += _whole(file, value)
        except ExportError as error:
            raise ExportError(f"{tensor.name}: {error}") from error
        if wrote != math.prod(tensor.shape) * BYTES[tensor.kind]:
            raise ExportError(f"{tensor.name}: has {wrote} bytes, which is not the shape {tensor.shape}")
        done += _whole(file, memoryview(bytes(_padded(wrote) - wrote))) + wrote
        now = time.monotonic()
        if now - told > _SILENT:
            told = now
            left = (now - began) / done * (size - done)
            say(f"{done / max(size, 1):.0%} of {space.shown(size)}, eta {left:.0f} s")


def _whole(file: IO[bytes], value: memoryview) -> int:
    """Write all of it: the system may take less at a time."""
    done = 0
    while done < len(value):
        done += file.write(value[done:])
    return done
