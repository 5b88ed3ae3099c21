"""A GGUF file, written tensor by tensor beside its place and moved there when it is whole."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from luthier.errors import ExportError
from luthier.gguf.read import ALIGNMENT
from luthier.gguf.tensors import Tensor, encode
from luthier.runs import atomic, space

if TYPE_CHECKING:
    from gguf import GGUFWriter

Say = Callable[[str], None]
BYTES = {"f32": 4, "f16": 2, "bf16": 2}
FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32}
"""`general.file_type`: llama.cpp's LLAMA_FTYPE of a file that is mostly of this kind."""
_SILENT = 5.0  # seconds between two lines of progress
_HEAD = 64 << 20  # more than metadata and the vocabulary take


def write(
    out: Path, architecture: str, fields: Mapping[str, Any], tensors: Sequence[Tensor], say: Say
) -> None:
    """Write `out` whole or not at all. fields: metadata, full key -> value (lists become arrays).

    Raises RunError before the first byte where the disk has too little room, ExportError where a value does
    not fit into its number format.
    """
    size = sum(math.prod(tensor.shape) * BYTES[tensor.kind] for tensor in tensors)
    out.parent.mkdir(parents=True, exist_ok=True)
    space.require(size + _HEAD, out.parent, f"writing {out.name}", "free some, or give another place")
    with atomic.explained(out), atomic.scratch(out) as folder:
        made = folder / out.name
        _begin(made, architecture, fields, tensors)
        with open(made, "ab", buffering=0) as file:
            _bodies(file, tensors, size, lambda text: say(f"{out.name}: {text}"))
        atomic.settle(made, out)


def _begin(file: Path, architecture: str, fields: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """Write all but the tensors."""
    import gguf
    import numpy as np

    kinds = {"f32": (np.float32, "F32"), "f16": (np.float16, "F16"), "bf16": (np.uint16, "BF16")}
    writer = gguf.GGUFWriter(file, architecture)
    for key, value in fields.items():
        add(writer, key, value)
    for tensor in tensors:
        kind, name = kinds[tensor.kind]
        count = math.prod(tensor.shape)
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(kind),
            count * BYTES[tensor.kind],
            raw_dtype=gguf.GGMLQuantizationType[name],
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def add(writer: GGUFWriter, key: str, value: Any) -> None:
    """One field, of the type that its value has in Python; lists as arrays of what they hold."""
    from gguf import GGUFValueType as Type

    if isinstance(value, (list, tuple)):
        element = Type.get_type(value[0]) if value else Type.INT32
        writer.add_key_value(key, list(value), Type.ARRAY, sub_type=element)
        return
    plain = {bool: Type.BOOL, int: Type.UINT32, float: Type.FLOAT32, str: Type.STRING}
    writer.add_key_value(key, value, plain[type(value)])


def _bodies(file: IO[bytes], tensors: Sequence[Tensor], size: int, say: Say) -> None:
    began = told = time.monotonic()
    done = 0
    for tensor in tensors:
        file.write(bytes(-file.seek(0, 2) % ALIGNMENT))
        wrote = 0
        try:
            for part in tensor.make():
                value = encode(part, tensor.kind).reshape(-1).view("B").data
                wrote += _whole(file, value)
        except ExportError as error:
            raise ExportError(f"{tensor.name}: {error}") from error
        if wrote != math.prod(tensor.shape) * BYTES[tensor.kind]:
            raise ExportError(f"{tensor.name}: has {wrote} bytes, which is not the shape {tensor.shape}")
        done += wrote
        now = time.monotonic()
        if now - told > _SILENT:
            told = now
            left = (now - began) / done * (size - done)
            say(f"{done / max(size, 1):.0%} of {space.shown(size)}, eta {left:.0f} s")
    file.write(bytes(-file.seek(0, 2) % ALIGNMENT))


def _whole(file: IO[bytes], value: memoryview) -> int:
    """Write all of it: the system may take less at a time."""
    done = 0
    while done < len(value):
        done += file.write(value[done:])
    return done
