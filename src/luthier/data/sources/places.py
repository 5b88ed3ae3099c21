"""Paths -> the files that are there to be read; what is there and cannot be read is said, never skipped."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from luthier.data.sources import packed
from luthier.errors import DataError

NONE = "no such file or folder"
NOWHERE = "is a link that leads nowhere"
RIGHTS = "ask for the right to read it, or read a copy"


def trouble(path: Path) -> str:
    """Why a path cannot be followed; "" when something is there."""
    try:
        path.stat()
    except OSError as error:
        return _why(path, error)
    except ValueError:  # a NUL in it
        return NONE
    return ""


def _why(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return NOWHERE if os.path.islink(path) else NONE
    return f"cannot be read: {error.strerror or error}"


def remedy(why: str) -> str:
    """What to do about a `trouble`."""
    if why == NOWHERE:
        return "mend the link, or delete it"
    return RIGHTS if why.endswith(os.strerror(errno.EACCES)) else "check the path"


def check(path: Path) -> None:
    """Raise DataError, with advice, for what is no file that can be read."""
    why = trouble(path)
    if why:
        raise DataError(f"{path}: {why} -> {remedy(why)}")
    packed.check_file(path)


def listing(folder: Path) -> list[Path]:
    """What lies in a folder, sorted. Raises DataError."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        why = _why(folder, error)
        raise DataError(f"{folder}: {why} -> {remedy(why)}") from error


def below(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders; links to folders are not followed. Raises DataError."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror} -> {RIGHTS}") from error

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(place) / name for name in names)


def unchanged(path: Path) -> Callable[[], None]:
    """A check that the file is still the same; it raises DataError when what was read may be a mixture."""
    before = _state(path)

    def check_again() -> None:
        after = _state(path)
        if after != before:
            what = "changed" if after else "vanished"
            raise DataError(
                f"{path}: {what} while it was being read -> wait until it is written, and read it again"
            )

    return check_again


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
