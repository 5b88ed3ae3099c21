"""Reading the files of a model or adapter that somebody else made: JSON and safetensors, never a pickle.

What a file is called says nothing about what it is: a pickle named model.safetensors is found by its bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier.errors import ModelError

LARGEST_JSON = 64 << 20
"""Bytes. The index of a model of a thousand shards has one or two million."""
DEEPEST_JSON = 64
"""Levels. Real ones have five or six; libraries that walk such a tree recurse, and fail without a message."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_KINDS = {
    b"\x80": "a Python pickle, which can run code",
    b"PK\x03\x04": "a zip archive, as torch.save writes it, which can hold pickles",
    b"\x1f\x8b": "a gzip archive",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}
AGAIN = "Copy it again from where the model comes from"


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError, naming the file, when it is anything else."""
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ModelError(
                f"{file}: has more than {LARGEST_JSON >> 20} MB, so it is no settings file. {AGAIN}"
            )
        found = json.loads(file.read_bytes())
        depth = _depth(found)
    except RecursionError as error:
        raise ModelError(f"{file}: is nested without end, so it is not read. {AGAIN}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: {_really(file) or 'is not JSON'} ({error}). {AGAIN}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file}: holds a {type(found).__name__} where a JSON object is expected. {AGAIN}")
    if depth > DEEPEST_JSON:
        raise ModelError(f"{file}: is nested {depth} levels deep, so it is not read. {AGAIN}")
    return found


def _depth(value: Any) -> int:
    """How deep lists and objects are nested in each other; without recursion."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, (dict, list)):
            deepest = max(deepest, level)
            waiting += [(v, level + 1) for v in (item.values() if isinstance(item, dict) else item)]
    return deepest


def header(file: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """(notes, shapes by tensor name) of a safetensors file, whose header is checked against its size.

    Raises ModelError: the library's check finds offsets that overlap, leave gaps, or lie outside of the file,
    and types and shapes that do not give the number of bytes.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
            return dict(opened.metadata() or {}), shapes
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        what = _really(file) or "is damaged, or not safetensors"
        raise ModelError(f"{file}: {what} ({error}). {AGAIN}") from error


def weights(folder: Path, named: object = None) -> list[Path]:
    """The files from which transformers would take a model's weights, each of them checked.

    named: what config.json has as `transformers_weights`, which goes before the usual names.
    Raises ModelError when there are none, one is not safetensors, or the index leads out of the folder.
    """
    first = _plain_name(named, folder / "config.json", "transformers_weights") if named is not None else None
    chosen = next(
        (folder / name for name in (first, WEIGHTS, INDEX) if name and (folder / name).is_file()), None
    )
    if chosen is None:
        raise ModelError(_none(folder))
    found = _shards(chosen) if chosen.name.endswith(".json") else [chosen]
    for file in found:
        header(file)
    return found


def _shards(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index}: has no weight_map, which says what is in which file. {AGAIN}")
    names = list(
        dict.fromkeys(_plain_name(value, index, f"weight_map: {key}") for key, value in table.items())
    )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"{index}: names {', '.join(missing[:3])}{more}, which {index.parent} does not have. Copy the "
            "model again, whole"
        )
    return [index.parent / name for name in names]


def _plain_name(name: object, file: Path, key: str) -> str:
    """A name of a file beside `file`, and of a format that is read."""
    plain = isinstance(name, str) and Path(name).name == name and "\\" not in name and "\0" not in name
    if isinstance(name, str) and plain and name.endswith((".safetensors", ".safetensors.index.json")):
        return name
    why = "is not safetensors" if plain else "leads out of the folder"
    raise ModelError(f"{file}: {key}: {str(name)[:200]!r} {why}, so it is not read. {AGAIN}")


def _none(folder: Path) -> str:
    pickled = sorted(
        p.name for end in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl") for p in folder.glob(end)
    )
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    if others:
        what = f"no {WEIGHTS} and no {INDEX} (but {', '.join(others[:3])}{', …' if len(others) > 3 else ''})"
    elif pickled:
        what = f"only {pickled[0]}, a pickle, which can run code and is not read"
    else:
        what = "no weights"
    return (
        f"{folder}: holds {what}. Give a directory with *.safetensors, or write train_from_scratch: true "
        "to start from random weights"
    )


def refuse_disguised(file: Path) -> None:
    """Raises ModelError when a file that other libraries will parse is really something else."""
    what = _really(file)
    if what:
        raise ModelError(f"{file}: {what}, so it is not read. {AGAIN}")


def _really(file: Path) -> str:
    """What the first bytes say that a file is, whatever it is called; "" where they say nothing."""
    try:
        with file.open("rb") as opened:
            start = opened.read(32)
    except OSError:
        return ""  # the error at hand says why it cannot be read
    return next((f"is {what}" for sign, what in _KINDS.items() if start.startswith(sign)), "")
