"""Tokens on disk: written once, memory-mapped afterwards, whole or absent.

A store is a directory of flat arrays. An example is a trunk and its branches; the pieces of all
examples lie one behind the other in `ids.bin`, so that a million examples cost two open files and
no Python objects. Learning weights are few distinct numbers, so a byte per token points into a
table of them; that keeps fractions such as 0.1 exact.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.runs import atomic, seal
from luthier.types import Rendered, Tokens

VERSION = 1
COLUMNS = ("pieces", "first", "verdicts", "file", "row")
_NO_VERDICT = -1


class Damaged(DataError):
    """A store is not what was written; it can be made again from the data."""


class Writer:
    """Appends rendered examples to a directory that the caller makes whole (see `write`)."""

    def __init__(self, directory: Path, vocabulary: int) -> None:
        self.directory = directory
        self.dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
        self._ids: IO[bytes] = open(directory / "ids.bin", "wb")  # noqa: SIM115 (closed in __exit__)
        self._mask: IO[bytes] = open(directory / "mask.bin", "wb")  # noqa: SIM115
        self._pieces, self._first = array("q", [0]), array("q", [0])
        self._verdicts, self._file, self._row = array("b"), array("l"), array("q")
        self._weights: dict[float, int] = {0.0: 0, 1.0: 1}
        self._files: dict[str, int] = {}
        self.tokens, self.trained = 0, 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ids.close()
        self._mask.close()

    def _piece(self, tokens: Tokens, starts_sequence: bool) -> None:
        mask = tokens.mask
        if starts_sequence and len(tokens) and mask[0]:
            mask = mask.copy()
            mask[0] = 0.0  # nothing stands before the first token that could predict it
        learnt = mask == 1.0
        plain = np.count_nonzero(learnt) == np.count_nonzero(mask)
        codes = learnt.view(np.uint8) if plain else self._coded(mask)
        self._ids.write(tokens.ids.astype(self.dtype).tobytes())
        self._mask.write(codes.tobytes())
        self.tokens += len(tokens)
        self.trained += int(np.count_nonzero(codes))
        self._pieces.append(self._pieces[-1] + len(tokens))

    def _coded(self, mask: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Codes of weights other than 0 and 1."""
        codes = np.zeros(len(mask), dtype=np.uint8)
        for weight in np.unique(mask):
            code = self._weights.setdefault(float(weight), len(self._weights))
            if code > 255:
                raise DataError("more than 256 different message weights in one data set: round them")
            codes[mask == weight] = code
        return codes

    def add(self, rendered: Rendered) -> None:
        self._piece(rendered.trunk, True)
        for branch in rendered.branches:
            self._piece(branch, len(rendered.trunk) == 0)
        self._first.append(len(self._pieces) - 1)
        self._verdicts.append(_NO_VERDICT if rendered.verdict is None else int(rendered.verdict))
        name, _, row = rendered.source.rpartition(":")
        if not row.isdigit():
            name, row = rendered.source, "0"
        self._file.append(self._files.setdefault(name, len(self._files)))
        self._row.append(int(row))

    def finish(self, extra: dict[str, Any]) -> None:
        self._ids.flush()
        self._mask.flush()
        columns: dict[str, npt.NDArray[Any]] = {
            "pieces": np.frombuffer(self._pieces, np.int64),
            "first": np.frombuffer(self._first, np.int64),
            "verdicts": np.array(self._verdicts, np.int8),
            "file": np.array(self._file, np.int32),
            "row": np.array(self._row, np.int64),
        }
        for name, column in columns.items():
            _save(self.directory / f"{name}.npy", column)
        index = {
            "version": VERSION,
            "examples": len(self._verdicts),
            "tokens": self.tokens,
            "trained": self.trained,
            "dtype": self.dtype.name,
            "weights": sorted(self._weights, key=self._weights.__getitem__),
            "files": list(self._files),
            **extra,
        }
        (self.directory / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
        seal.seal(self.directory)


def _save(path: Path, column: npt.NDArray[Any]) -> None:
    """Write a .npy file. NumPy's own writer says nothing of a disk that is full when it closes the file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(column))
    with open(path, "wb") as file:
        file.write(header.getvalue())
        file.write(column.tobytes())


def write(
    path: Path, examples: Iterable[Rendered], vocabulary: int, extra: dict[str, Any] | None = None
) -> Store:
    """Write `examples` to `path`; the directory appears whole, or not at all."""
    with atomic.directory(path) as temporary, Writer(temporary, vocabulary) as writer:
        for rendered in examples:
            writer.add(rendered)
        writer.finish(extra or {})
    return Store.read(path)


@dataclass(frozen=True, eq=False)
class Store:
    """Read side of a store: arrays are mapped, nothing is loaded until it is looked at."""

    path: Path
    index: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Store:
        """A store that was written earlier: every file is held against its sha256 first. Raises Damaged."""
        problems = seal.verify(path)
        if problems:
            raise Damaged(f"{path}: the token store is damaged: {'; '.join(problems)}")
        store = cls.read(path)
        try:
            for name in COLUMNS:
                store._load(name)
        except ValueError as error:  # not an array of numbers, which only somebody else could have sealed
            raise Damaged(f"{path}: the token store is damaged: {error}") from error
        return store

    @classmethod
    def read(cls, path: Path) -> Store:
        """A store that this process has just written, or that `open` has checked."""
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
        if index["version"] != VERSION:
            raise Damaged(f"{path}: token store of version {index['version']}, expected {VERSION}")
        return cls(path, index)

    def _load(self, name: str) -> npt.NDArray[Any]:
        column: npt.NDArray[Any] = np.load(self.path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return column

    def _map(self, name: str, dtype: str) -> npt.NDArray[Any]:
        if self.index["tokens"] == 0:
            return np.zeros(0, dtype)
        return np.memmap(self.path / name, dtype=np.dtype(dtype), mode="r")

    @cached_property
    def _ids(self) -> npt.NDArray[Any]:
        return self._map("ids.bin", self.index["dtype"])

    @cached_property
    def _mask(self) -> npt.NDArray[np.uint8]:
        return self._map("mask.bin", "uint8")

    @cached_property
    def _pieces(self) -> npt.NDArray[np.int64]:
        return self._load("pieces")

    @cached_property
    def _first(self) -> npt.NDArray[np.int64]:
        return self._load("first")

    @cached_property
    def _weights(self) -> npt.NDArray[np.float32]:
        return np.array(self.index["weights"], np.float32)

    def __len__(self) -> int:
        return int(self.index["examples"])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each example, trunk counted once. Shape [n]."""
        bounds = np.asarray(self._pieces)[np.asarray(self._first)]
        return np.diff(bounds)

    def _tokens(self, piece: int) -> Tokens:
        a, b = int(self._pieces[piece]), int(self._pieces[piece + 1])
        return Tokens(np.asarray(self._ids[a:b], np.int32), self._weights[self._mask[a:b]])

    def __getitem__(self, i: int) -> Rendered:
        first, end = int(self._first[i]), int(self._first[i + 1])
        verdict = int(self._small["verdicts"][i])
        return Rendered(
            trunk=self._tokens(first),
            branches=tuple(self._tokens(p) for p in range(first + 1, end)),
            verdict=None if verdict == _NO_VERDICT else bool(verdict),
            source=self.source(i),
        )

    @cached_property
    def _small(self) -> dict[str, npt.NDArray[Any]]:
        return {name: self._load(name) for name in ("verdicts", "file", "row")}

    def source(self, i: int) -> str:
        """Where example i comes from: "file:row"."""
        name, row = self.index["files"][self._small["file"][i]], int(self._small["row"][i])
        return f"{name}:{row}" if row else str(name)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Several stores seen as one: `index[k] = (store, example)`, int64 of shape [n, 2]."""

    stores: tuple[Store, ...]
    index: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.index.shape[0])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        out = np.zeros(len(self), np.int64)
        for k, store in enumerate(self.stores):
            here = self.index[:, 0] == k
            out[here] = store.lengths[self.index[here, 1]]
        return out

    def __getitem__(self, i: int) -> Rendered:
        store, example = self.index[i]
        return self.stores[int(store)][int(example)]

    def __iter__(self) -> Iterator[Rendered]:
        return (self[i] for i in range(len(self)))

    def source(self, i: int) -> str:
        store, example = self.index[i]
        return self.stores[int(store)].source(int(example))

    def take(self, rows: npt.NDArray[np.int64]) -> Corpus:
        return Corpus(self.stores, self.index[rows])
