"""What was written can be told from what has been damaged since.

A sealed folder has a JSON file that lists the sha256 of every other file in it, and a digest of its own
content: `manifest.json` in a checkpoint, `checksums.json` beside a run's final weights. Such a file must also
be, byte for byte, the text that its content is written as, so that no bit of it can turn unnoticed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luthier import __version__
from luthier.errors import RunError
from luthier.runs import atomic, hashing

MANIFEST = "manifest.json"
CHECKSUMS = "checksums.json"
MARKER = "luthier.json"
FORMAT = 1
"""Of run directories; raise it when an older luthier could misunderstand or harm what a newer one wrote."""
_DIGEST = "seal"


class Newer(RunError):
    """Written by a newer luthier than this one; it is neither used nor changed."""


def seal(folder: Path, **facts: Any) -> None:
    """Write manifest.json with the sha256 of every file below `folder`: the mark of a whole checkpoint."""
    files = hashing.sha256_tree(folder, leave_out=[MANIFEST])
    write(folder / MANIFEST, {**facts, "files": files})


def seal_result(folder: Path, names: Iterable[str]) -> None:
    """Write checksums.json over some files of a run: its final weights and what goes with them."""
    write(folder / CHECKSUMS, {"files": {name: hashing.sha256_file(folder / name) for name in sorted(names)}})


def verify(folder: Path, name: str = MANIFEST) -> list[str]:
    """What is wrong with a sealed folder, in words; [] when it is what was written. Raises Newer."""
    if not (folder / name).is_file():
        return [f"it has no {name}"]
    try:
        files = read(folder / name)["files"]
    except Newer:
        raise
    except RunError as error:
        return [str(error)]
    return hashing.verify(folder, files)


def check(folder: Path) -> None:
    """Raise RunError when weights that luthier wrote to `folder` are damaged or not all there.

    Folders that luthier has not written (a base, another program's adapter) pass: nothing is known of them.
    """
    if (folder / CHECKSUMS).is_file():
        name, instead = CHECKSUMS, f"use a checkpoint in it, or train again (luthier runs resume {folder})"
    elif (folder / MARKER).is_file():
        if any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
            raise RunError(f"{folder}: not used, because {_unfinished(folder)}")
        return
    elif folder.name.startswith("checkpoint-") and (folder / MANIFEST).is_file():
        name, instead = MANIFEST, "use an older checkpoint"
    else:
        return
    stamps = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file()]
    problems = _verified(folder, name, tuple(sorted(stamps)))
    if problems:
        raise RunError(f"{folder}: not used, because {'; '.join(problems)}; {instead}")


def _unfinished(folder: Path) -> str:
    """Why final weights without checksums are not used, and what to do: the run was stopped while it wrote
    them, or it is older than checksums are, which its unsealed marker tells."""
    if f'"{_DIGEST}":' not in (folder / MARKER).read_text("utf-8", errors="replace"):
        return (
            f"it is a run of an older luthier, which kept no {CHECKSUMS}: nobody can tell whether its "
            "weights are whole; train it again (with overwrite_output_dir: true)"
        )
    return (
        f"its final weights are not all there (it has no {CHECKSUMS}); "
        f"finish it (luthier runs resume {folder}), or use a checkpoint in it"
    )


@functools.lru_cache(maxsize=64)
def _verified(folder: Path, name: str, stamps: tuple[Any, ...]) -> list[str]:
    """`verify`, once for files that have not been written to since (a model is asked for several times)."""
    return verify(folder, name)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON with the version that wrote it and a digest of it all."""
    atomic.write_bytes(path, _text({"luthier": __version__, "format": FORMAT, **content}, path))


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote. Raises RunError when it is missing or damaged, Newer when it is not for us."""
    try:
        data = path.read_bytes()
        found = json.loads(data)
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path.name} is damaged ({error})") from error
    if not isinstance(found, dict):
        raise RunError(f"{path.name} is damaged (no object)")
    content = {key: value for key, value in found.items() if key != _DIGEST}
    if data != _text(content, path):
        refuse_newer(path.parent, found)
        raise RunError(f"{path.name} is not what was written (its digest differs)")
    refuse_newer(path.parent, found)
    return content


def refuse_newer(folder: Path, content: Mapping[str, Any]) -> None:
    """Raise Newer when `content` was written by a luthier whose format this one does not know."""
    found = content.get("format", 0)
    if isinstance(found, int) and found > FORMAT:
        raise Newer(
            f"{folder}: written by luthier {content.get('luthier')} (format {found}); this is luthier "
            f"{__version__} (format {FORMAT}). It was left as it is: pip install -U luthier, or give another "
            "directory"
        )


def _text(content: Mapping[str, Any], path: Path) -> bytes:
    digest = hashing.sha256_json(content)
    return atomic.encode_json({**content, _DIGEST: digest}, where=str(path), indent=2)
