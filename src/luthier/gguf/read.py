"""The head of a GGUF file, read strictly: a file that is cut off or lies about its sizes is refused.

Every GGUF file is looked at here before llama.cpp opens it, which would end its process. Nothing is allocated
by a size that the file claims, and no more is read than a head can need; what cannot be is an error.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from luthier.errors import MissingPackage, ModelError

ALIGNMENT = 32
_MOST = 1 << 20  # fields, tensors, or characters of a name: more is no model
_VALUES = 1 << 23  # in all arrays together: the largest vocabularies have a million
_HEAD = 1 << 28  # bytes before the weights: the largest vocabularies take 20 MB
_PART = 1 << 20  # bytes that are read at a time
_DEEP = 4  # arrays in arrays
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_SIZE = struct.Struct("<Q")


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
        with open(path, "rb", buffering=0) as file:
            return _Reader(file, path.stat().st_size, path).header()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Reader:
    """The bytes of the head as far as they were needed, and a place in them."""

    def __init__(self, file: Any, size: int, path: Path) -> None:
        self._file, self._size, self._path = file, size, path
        self._bytes, self._at, self._values = bytearray(), 0, 0

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
            key = self._name("a field's name")
            if key in metadata:
                raise self._wrong(f"says {key} twice")
            kind, begin = self._number("I", f"the type of {key}"), self._at
            metadata[key] = self._value(kind, key, 0)
            places[key] = begin, self._at
        found = [self._tensor() for _ in range(tensors)]
        if told := wrong(metadata):
            raise self._wrong(told)
        alignment = metadata.get("general.alignment", ALIGNMENT)
        start = -(-self._at // alignment) * alignment
        placed = tuple(self._placed(one, start, alignment) for one in found)
        self._apart(placed)
        return Header(version, metadata, placed, places)

    def _tensor(self) -> TensorInfo:
        name = self._name("a tensor's name")
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

    def _apart(self, placed: Sequence[TensorInfo]) -> None:
        if len({one.name for one in placed}) < len(placed):
            raise self._wrong("has two tensors of one name")
        inorder = sorted(placed, key=lambda one: one.offset)
        for one, after in pairwise(inorder):
            if one.offset + one.bytes > after.offset:
                raise self._wrong(f"{one.name} and {after.name} lie over each other")

    def _value(self, kind: int, key: str, depth: int) -> Any:
        if kind in _PLAIN:
            return self._number(_PLAIN[kind], key)
        if kind == _STRING:
            return self._texts(1, key)[0]
        if kind != _ARRAY or depth >= _DEEP:
            raise self._wrong(f"{key} has type {kind}, which does not exist")
        inner, count = self._number("I", key), self._number("Q", key)
        self._values += count
        if self._values > _VALUES:
            raise self._wrong(f"{key} claims {count} values")
        if inner == _STRING:
            return self._texts(count, key)
        if inner in _PLAIN:
            code = f"<{count}{_PLAIN[inner]}"
            return list(struct.unpack(code, self._take(struct.calcsize(code), key)))
        return [self._value(inner, key, depth + 1) for _ in range(count)]

    def _count(self, what: str) -> int:
        found: int = self._number("Q", what)
        if found > _MOST:
            raise self._wrong(f"{what} is {found}")
        return found

    def _name(self, what: str) -> str:
        found = self._texts(1, what)[0]
        if len(found) > _MOST:
            raise self._wrong(f"{what} has {len(found)} characters")
        return found

    def _texts(self, count: int, what: str) -> list[str]:
        """So many texts. Vocabularies have hundreds of thousands, so little is done for each."""
        found = []
        for _ in range(count):
            self._there(8, what)
            (size,) = _SIZE.unpack_from(self._bytes, self._at)
            self._at += 8
            self._there(size, what)
            end = self._at + size
            try:
                found.append(self._bytes[self._at : end].decode())
            except UnicodeDecodeError as error:
                raise self._wrong(f"{what} is no UTF-8") from error
            self._at = end
        return found

    def _number(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(code), what))[0]

    def _take(self, size: int, what: str) -> bytes:
        self._there(size, what)
        self._at += size
        return bytes(self._bytes[self._at - size : self._at])

    def _there(self, size: int, what: str) -> None:
        """Have the next `size` bytes in memory. Raises ModelError where they are not in the file."""
        end = self._at + size
        if end <= len(self._bytes):
            return
        if end > self._size:
            raise self._wrong(f"ends before {what} ({size} bytes wanted, {self._size - self._at} left)")
        if end > _HEAD:
            raise self._wrong(f"has {what} where weights should be")
        while len(self._bytes) < end:
            part = self._file.read(max(_PART, end - len(self._bytes)))
            if not part:
                raise self._wrong(f"ends before {what}: it has just become shorter")
            self._bytes += part

    def _wrong(self, what: str) -> ModelError:
        return ModelError(f"{self._path}: {what} (byte {self._at}) -> get or make the file again")


Check = Callable[[Any], bool]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _list(kind: type) -> Check:
    return lambda value: isinstance(value, list) and all(type(one) is kind for one in value)


def _is(kind: type) -> Check:
    return lambda value: isinstance(value, kind)


_FIELDS: Mapping[str, Check] = {
    "general.name": _is(str),
    "general.alignment": lambda value: _whole(value) and value > 0 and not value & (value - 1),
    "tokenizer.ggml.model": _is(str),
    "tokenizer.ggml.pre": _is(str),
    "tokenizer.ggml.tokens": _list(str),
    "tokenizer.ggml.token_type": _list(int),
    "tokenizer.ggml.scores": _list(float),
    "tokenizer.ggml.merges": _list(str),
    "tokenizer.ggml.add_bos_token": _is(bool),
    "tokenizer.ggml.add_eos_token": _is(bool),
    "tokenizer.ggml.add_space_prefix": _is(bool),
    "tokenizer.chat_template": _is(str),
}
"""Fields that are used here, where they are there, and what they must be."""


def wrong(metadata: Mapping[str, Any]) -> str | None:
    """What is wrong with the fields of a model's file, or None."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        return "does not name its architecture (general.architecture)"
    needed = {f"{name}.context_length": _whole, "tokenizer.ggml.tokens": _list(str)}
    for key in needed:
        if not metadata.get(key):
            return f"has no {key}: it is a part of a model, or made by a very old program"
    for key, right in {**_FIELDS, **needed}.items():
        if key in metadata and not right(metadata[key]):
            return f"{key} is {metadata[key]!r:.60}, which cannot be"
    tokens = len(metadata["tokenizer.ggml.tokens"])
    for key in ("token_type", "scores"):
        if len(metadata.get(f"tokenizer.ggml.{key}") or "x" * tokens) != tokens:
            return f"tokenizer.ggml.{key} has not one value for each of {tokens} tokens"
    for key, value in metadata.items():
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and type(value) is not int:
            return f"{key} is {value!r:.60}, which cannot be"
    return None


def _sizes() -> Mapping[int, tuple[int, int]]:
    """Type -> (values of a block, bytes of a block)."""
    try:
        import gguf
    except ImportError as error:
        raise MissingPackage("gguf", "reading GGUF files", "gguf") from error
    return {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
