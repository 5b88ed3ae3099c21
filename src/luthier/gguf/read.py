"""The head of a GGUF file, read strictly: a file that is cut off or lies about its sizes is refused.

Every GGUF file is looked at here before llama.cpp opens it, which would end its process. Nothing is allocated
by a size that the file claims; what cannot lie in the bytes that are there is an error.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import MissingPackage, ModelError

ALIGNMENT = 32
_MOST = 1 << 20  # fields, tensors, or characters of a name: more is no model
_DEEP = 4  # arrays in arrays
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class TensorInfo:
    """shape: as torch has it (GGUF writes it backwards) · type: a number of ggml · offset: in the file."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says before its weights. places: where each field's value begins and ends."""

    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    places: Mapping[str, tuple[int, int]]

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])


def header(path: str | Path) -> Header:
    """The head of a file. Raises ModelError, with the place in the file, for anything that cannot be."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _Reader(file, path.stat().st_size, path).header()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Reader:
    def __init__(self, file: Any, size: int, path: Path) -> None:
        self._file, self._size, self._path = file, size, path

    def header(self) -> Header:
        if self._take(4, "the magic number") != b"GGUF":
            raise self._wrong("is no GGUF file")
        version = self._number("I", "the version")
        if version not in (2, 3):
            raise self._wrong(f"is GGUF of version {version}; 2 and 3 can be read")
        tensors, fields = self._count("the number of tensors"), self._count("the number of fields")
        metadata: dict[str, Any] = {}
        places: dict[str, tuple[int, int]] = {}
        for _ in range(fields):
            key = self._text("a field's name")
            kind, begin = self._number("I", f"the type of {key}"), self._file.tell()
            metadata[key] = self._value(kind, key, 0)
            places[key] = begin, self._file.tell()
        found = [self._tensor() for _ in range(tensors)]
        self._known(metadata)
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._wrong(f"general.alignment is {alignment!r}, not a power of two")
        start = -(-self._file.tell() // alignment) * alignment
        placed = tuple(self._placed(one, start, alignment) for one in found)
        return Header(version, metadata, placed, places)

    def _known(self, metadata: Mapping[str, Any]) -> None:
        name = metadata.get("general.architecture")
        if not isinstance(name, str):
            raise self._wrong("does not name its architecture (general.architecture)")
        for key, kind in ((f"{name}.context_length", int), ("tokenizer.ggml.tokens", list)):
            if not isinstance(metadata.get(key), kind):
                raise self._wrong(f"has no {key}: it is a part of a model, or made by a very old program")

    def _tensor(self) -> TensorInfo:
        name = self._text("a tensor's name")
        count = self._number("I", f"the dimensions of {name}")
        if not 1 <= count <= 4:
            raise self._wrong(f"{name} has {count} dimensions")
        shape = tuple(self._number("Q", f"the shape of {name}") for _ in range(count))[::-1]
        kind, offset = self._number("I", f"the type of {name}"), self._number("Q", f"the place of {name}")
        sizes = _sizes().get(kind)
        if sizes is None:
            raise self._wrong(f"{name} has type {kind}, which this version does not know")
        block, size = sizes
        if 0 in shape or shape[-1] % block:
            raise self._wrong(f"{name} has shape {list(shape)}, whose rows are no blocks of {block}")
        return TensorInfo(name, shape, kind, offset, math.prod(shape) // block * size)

    def _placed(self, one: TensorInfo, start: int, alignment: int) -> TensorInfo:
        begin = start + one.offset
        if one.offset % alignment or begin + one.bytes > self._size:
            raise self._wrong(f"{one.name} should lie at {begin} to {begin + one.bytes}: the file is cut off")
        return TensorInfo(one.name, one.shape, one.type, begin, one.bytes)

    def _value(self, kind: int, key: str, depth: int) -> Any:
        if kind in _PLAIN:
            return self._number(_PLAIN[kind], key)
        if kind == _STRING:
            return self._text(key, long=True)
        if kind != _ARRAY or depth >= _DEEP:
            raise self._wrong(f"{key} has type {kind}, which does not exist")
        inner = self._number("I", key)
        count = self._number("Q", key)
        if inner in _PLAIN:
            code = _PLAIN[inner]
            body = self._take(count * struct.calcsize(code), key)
            return list(struct.unpack(f"<{count}{code}", body))
        if count > self._size:
            raise self._wrong(f"{key} claims {count} values")
        return [self._value(inner, key, depth + 1) for _ in range(count)]

    def _count(self, what: str) -> int:
        found: int = self._number("Q", what)
        if found > _MOST:
            raise self._wrong(f"{what} is {found}")
        return found

    def _text(self, what: str, long: bool = False) -> str:
        size = self._number("Q", what)
        if not long and size > _MOST:
            raise self._wrong(f"{what} has {size} bytes")
        try:
            return self._take(size, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._wrong(f"{what} is no UTF-8") from error

    def _number(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(code), what))[0]

    def _take(self, size: int, what: str) -> bytes:
        left = self._size - self._file.tell()
        if size > left:
            raise self._wrong(f"ends before {what} ({size} bytes wanted, {left} left)")
        found: bytes = self._file.read(size)
        return found

    def _wrong(self, what: str) -> ModelError:
        return ModelError(f"{self._path}: {what} (byte {self._file.tell()}) -> get or make the file again")


def _sizes() -> Mapping[int, tuple[int, int]]:
    """Type -> (values of a block, bytes of a block)."""
    try:
        import gguf
    except ImportError as error:
        raise MissingPackage("gguf", "reading GGUF files", "gguf") from error
    return {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
