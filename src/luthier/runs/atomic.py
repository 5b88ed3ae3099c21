"""Files and directories that are whole or absent, at whatever instant the process or the machine dies.

Everything is written beside its place as `.NAME.tmp-PID-…`, synced to the disk, renamed into place, and
then the directory that holds the name is synced too (a rename that is not synced can be lost in a power cut).
A rename cannot replace a directory that has files, so an older one is first moved to `.NAME.old-PID-…`; what
is to go is moved to `.NAME.gone-PID-…` before it is deleted, so that it is never there in part. `recover`
undoes or finishes what a killed process left at any point of that.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from luthier.errors import LuthierError, RunError
from luthier.runs import lock

Other = Literal["replaced", "kept", "refused"]
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old|gone)-(?P<pid>\d+)-[0-9a-f]{8}")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_BROKEN = {errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, getattr(errno, "ESTALE", errno.EIO)}
_NATIVE = re.compile(r"\(os error (\d+)\)")
"""How safetensors, tokenizers and other writers in Rust end the text of exceptions of their own kinds."""


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace the file at `path` by `data`. Raises RunError when the disk is full or refuses."""
    target = _target(path)
    temporary = _beside(target, "tmp")
    with explained(target):
        try:
            with open(temporary, "xb") as file:
                lock.mark(file.fileno())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(target.parent)


def write_text(path: str | Path, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8, line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Replace the file at `path` by `value` as indented JSON. Raises RunError on NaN or infinity."""
    write_bytes(path, encode_json(value, where=str(path), indent=2))


def encode_json(value: Any, *, where: str, indent: int | None = None) -> bytes:
    """`value` as UTF-8 JSON with a final newline.

    Numbers that are not finite raise RunError: JSON has no word for them and most readers stop at one.
    Lone surrogates (from damaged text) are written as escapes, which are valid JSON.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False, default=_plain)
    except ValueError as error:
        raise RunError(f"{where}: not written, because a number in it is not finite ({error})") from error
    return (text + "\n").encode("utf-8", "backslashreplace")


def read_json(path: str | Path) -> Any:
    """The value in the JSON file at `path`. Raises RunError when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such file") from error
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON ({error}); restore it from a copy or run again") from error


@contextmanager
def directory(path: str | Path, *, other: Other = "replaced") -> Iterator[Path]:
    """Fill a directory that appears at `path` whole, or not at all.

    Yields the temporary sibling to write into. When the body ends, every file is synced and the sibling is
    renamed to `path`. When the body raises, the sibling is removed and whatever was at `path` is untouched.
    other: what becomes of a directory that is at `path` by then. "kept": it has the same content, and another
    process may be reading it, so ours goes · "refused": a RunError, unless it is empty.
    """
    target = _target(path)
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target.parent, only=target.name)
        temporary = _beside(target, "tmp")
        temporary.mkdir()
    try:
        with _marked(temporary):
            with explained(target, only_disk=True):
                yield temporary
            with explained(target):
                _sync_tree(temporary)
                if other == "replaced":
                    _swap(temporary, target)
                else:
                    _arrive(temporary, target, keep=other == "kept")
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A folder beside `path` for as long as the body runs; `recover` clears it when the process is killed."""
    folder = _beside(path, "tmp")
    folder.mkdir()
    try:
        with _marked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _marked(folder: Path) -> Iterator[None]:
    if os.name == "nt":  # a folder cannot be opened there
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock.mark(descriptor)
        yield
    finally:
        os.close(descriptor)


def settle(file: Path, target: Path) -> None:
    """Move a finished file to its place on the same disk: synced first, so that the name never holds less."""
    _sync(file)
    os.replace(file, target)
    _sync(target.parent)


def recover(parent: str | Path, *, only: str | None = None, owned: bool = False) -> list[str]:
    """Clear what killed writers left in `parent`, or only what belongs to the name `only`.

    An interrupted replacement is undone when the new directory had not arrived. `owned` says that the caller
    holds the lock on `parent`, so that nothing there can be in use; otherwise what a living process, here or
    in another container, is writing is kept. Returns the names that were cleared.
    """
    parent = Path(parent)
    cleared = []
    for entry in sorted(parent.iterdir()) if parent.is_dir() else ():
        match = _LEFTOVER.fullmatch(entry.name)
        if match is None or (only is not None and match["name"] != _short(only)):
            continue
        if not owned and lock.marked(entry, int(match["pid"])):
            continue
        target = parent / (only or match["name"])
        if match["kind"] == "old" and not target.exists():
            os.rename(entry, target)
        else:
            remove(entry)
        cleared.append(entry.name)
    return cleared


def discard(path: Path) -> None:
    """Delete a file, or a directory of which at no instant only a part is to be seen; on the disk, too."""
    if path.is_symlink() or not path.is_dir():
        remove(path)
        _sync(path.parent)
        return
    gone = _beside(path, "gone")
    os.rename(path, gone)
    _sync(path.parent)
    remove(gone)


def remove(path: Path) -> None:
    """Delete a file, a link (never what it points to) or a whole directory."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _target(path: str | Path) -> Path:
    """The place itself: a rename onto a link would replace the link, not what it points to."""
    return Path(os.path.realpath(path))


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{_short(target.name)}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")


def _short(name: str) -> str:
    """A name with room for what `_beside` adds: file systems allow 255 bytes, often 143 when encrypted."""
    if len(os.fsencode(name)) <= 100:
        return name
    return f"{name[:20]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"


def _swap(temporary: Path, target: Path) -> None:
    old = _beside(target, "old") if target.exists() else None
    if old is not None:
        os.rename(target, old)
    try:
        os.rename(temporary, target)
    except BaseException:
        if old is not None:
            os.rename(old, target)
        raise
    _sync(target.parent)
    if old is not None:
        remove(old)


def _arrive(temporary: Path, target: Path, keep: bool) -> None:
    """Rename onto nothing or an empty directory: the system checks it, and no other process is faster."""
    try:
        os.rename(temporary, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not keep:
            raise RunError(f"{target}: another process uses it by now; give another directory") from error
        remove(temporary)
    else:
        _sync(target.parent)


def _sync_tree(top: Path) -> None:
    for folder, _, names in os.walk(top, onerror=_stop):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _stop(error: OSError) -> None:
    raise error  # os.walk would pass over what it cannot list


def _sync(path: Path) -> None:
    windows = os.name == "nt"
    if windows and path.is_dir():
        return  # Windows cannot open a directory; its renames are journalled
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(target: Path, *, only_disk: bool = False) -> Iterator[None]:
    """Turn the system's refusal to write `target` into a RunError that says what to do.

    only_disk: of the body's errors only those of a full or broken disk are about `target`; the others pass.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number is None or (only_disk and not of_disk(error)):
            raise
        reason = _full(target) if number in _FULL else str(error)
        if number in _BROKEN:
            reason += "; the disk fails or is not to be written: have it checked, or choose another directory"
        if isinstance(error, PermissionError):
            reason += "; choose a directory that you may write to"
        raise RunError(f"{target}: cannot be written: {reason}") from error


def of_disk(error: Exception) -> bool:
    """Whether it is a disk, full or broken, that the system complains of."""
    return _number(error) in _FULL | _BROKEN


def _number(error: Exception) -> int | None:
    """The system's number of an error, also where a native library has wrapped it; None for other errors."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = None if isinstance(error, LuthierError) else _NATIVE.search(str(error))
    return int(found[1]) if found else None


def _full(target: Path) -> str:
    parent = next((p for p in target.parents if p.is_dir()), Path())
    free = shutil.disk_usage(parent).free
    return f"the disk is full ({free / 1e6:.0f} MB free); free some space or choose another directory"


def _plain(value: Any) -> Any:
    """JSON's nearest word for paths, NumPy numbers and arrays, and sets."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
