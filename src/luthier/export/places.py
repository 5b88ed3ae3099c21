"""Where other programs look for a model, the commands that start them, and putting a file there.

LM Studio: ~/.lmstudio/models/PUBLISHER/MODEL/FILE.gguf (https://lmstudio.ai/docs/basics/import-model).
Jan: DATA/llamacpp/models/ID/model.yml, which names a file in DATA (https://jan.ai/docs/desktop/data-folder).
llama-server and vLLM take a path.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from luthier.errors import ExportError
from luthier.runs import atomic, space

PUBLISHER = "luthier"
"""The folder of LM Studio's under which our models lie."""
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)


def install(where: str, file: Path, name: str) -> Path:
    """Put a GGUF file where a program (of `PLACES`) looks; returns its place there.

    A hard link where the disk is the same, so it takes no room; else a copy. Nothing is ever overwritten.
    Raises ExportError where the program has no folder here, or has such a model already.
    """
    return PLACES[where](file, re.sub(r"[^\w.-]", "-", name, flags=re.ASCII).strip(".-") or "model")


def serve(file: Path, context: int) -> list[str]:
    """Commands for programs that take a path."""
    quoted = shlex.quote(str(file))
    return [
        f"llama-server -m {quoted} --jinja -c {context} --host 127.0.0.1 --port 8080",
        f"lms import {quoted} --user-repo {PUBLISHER}/{shlex.quote(file.stem)} --copy",
    ]


def vllm(folder: Path, context: int, name: str) -> str:
    """The command that serves a merged directory, with the chat template of training."""
    words = ["vllm", "serve", str(folder), "--served-model-name", name, "--max-model-len", str(context)]
    template = folder / "chat_template.jinja"
    words += ["--chat-template", str(template)] if template.is_file() else []
    return shlex.join([*words, "--host", "127.0.0.1"])


def _lmstudio(file: Path, name: str) -> Path:
    home = lmstudio_home()
    models = _told(home / "settings.json", "downloadsFolder") or home / "models"
    target = models / PUBLISHER / name / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    _put(file, target)
    return target


def lmstudio_home() -> Path:
    """Its own folder, which a pointer file or its old place may name. Raises ExportError."""
    pointer = Path.home() / ".lmstudio-home-pointer"
    named = [Path(pointer.read_text("utf-8").strip())] if pointer.is_file() else []
    return _first("LM Studio", [*named, Path.home() / ".cache/lm-studio", Path.home() / ".lmstudio"])


def _jan(file: Path, name: str) -> Path:
    data = jan_data()
    target = data / "llamacpp" / "models" / name
    if target.exists():
        raise ExportError(
            f"{target}: Jan has a model of this name already -> remove it there, or rename the run"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic.directory(target, other="refused") as folder:
        _put(file, folder / "model.gguf")
        size = file.stat().st_size
        about = {
            "model_path": f"llamacpp/models/{name}/model.gguf",
            "name": name,
            "size_bytes": size,
            "model_size_bytes": size,
            "embedding": False,
        }
        (folder / "model.yml").write_text(yaml.safe_dump(about, sort_keys=False), "utf-8")
    return target / "model.gguf"


def jan_data() -> Path:
    """Jan's data folder: the one that its settings name, else the usual one. Raises ExportError."""
    home = Path.home()
    if sys.platform == "darwin":
        usual = [home / "Library/Application Support/Jan"]
    elif os.name == "nt":
        usual = [Path(os.environ.get("APPDATA", home / "AppData/Roaming")) / "Jan"]
    else:
        share = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        usual = [share / "Jan", settings / "Jan"]
    named = [found for folder in usual if (found := _told(folder / "settings.json", "data_folder"))]
    return _first("Jan", [*named, *(folder / "data" for folder in usual)])


PLACES: dict[str, Callable[[Path, str], Path]] = {"lmstudio": _lmstudio, "jan": _jan}
"""Name of a program -> what puts a file where it looks."""


def _first(program: str, folders: list[Path]) -> Path:
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        looked = ", ".join(map(str, folders))
        raise ExportError(f"{program} is not here (looked for {looked}) -> install it and start it once")
    return found


def _told(settings: Path, key: str) -> Path | None:
    """A folder that a program's settings name."""
    if not settings.is_file():
        return None
    try:
        told: Any = json.loads(settings.read_text("utf-8"))
    except ValueError:
        return None  # the program's own affair; its usual folder is looked for
    value = told.get(key) if isinstance(told, dict) else None
    return Path(value) if isinstance(value, str) and value else None


def _put(file: Path, target: Path) -> None:
    """The whole file or nothing at `target`, where nothing may be yet. Raises ExportError, RunError."""
    with atomic.explained(target):
        try:
            if not _linked(file, target):
                _copied(file, target)
        except FileExistsError as error:
            raise ExportError(
                f"{target}: is there already, and is not overwritten -> remove it first"
            ) from error


def _linked(file: Path, target: Path) -> bool:
    """Give the file a second name, which replaces nothing; False where the disk, or two of them, cannot."""
    try:
        os.link(file, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _copied(file: Path, target: Path) -> None:
    space.require(file.stat().st_size, target.parent, f"copying {file.name}", "free some")
    with atomic.scratch(target) as folder:
        shutil.copyfile(file, folder / file.name)
        atomic.settle(folder / file.name, folder / "whole")
        if not _linked(folder / "whole", target):
            if target.exists():
                raise FileExistsError(errno.EEXIST, "is there", str(target))
            atomic.settle(folder / "whole", target)
