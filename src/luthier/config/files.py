"""Files that a request names: are they there, and what they should be? Asked before anything is loaded."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from luthier.config import plain
from luthier.config.compat import nearest
from luthier.config.schema import Config
from luthier.types import Problem

_DATA_SUFFIXES = (
    ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".xlsx", ".gz",
)  # fmt: skip
_READS_GGUF = ("chat", "predict")
_TEMPLATE_SUFFIXES = (".jinja", ".j2", ".txt")
# Looked up by name, because the table of templates belongs to a room above; it imports nothing heavy.
_TEMPLATES = ("luthier.data.named", "names")
_ONLINE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


def local(name: str) -> Path | None:
    """The path that `name` is; None for a name on the hub (one slash, nothing local is called so)."""
    path = Path(name)
    looks = path.is_absolute() or name.startswith((".", "~")) or "\\" in name or name.count("/") > 1
    return path if looks or name.endswith("/") or path.exists() else None


def problems(config: Config) -> list[Problem]:
    """Everything missing or unfit among models, adapters, templates and data sets."""
    found = [*_model(config), *_adapters(config), *_template(config)]
    if config.verb in ("train", "predict", "data"):
        found += _datasets(config)
    return found


def _model(config: Config) -> list[Problem]:
    name = config.model_name_or_path
    path = local(name) if name else None
    where = config.place("model_name_or_path")
    if path is None or not name:
        return []
    if path.suffix == ".gguf" and (config.verb not in _READS_GGUF or config.adapter_name_or_path):
        what = f"{name} is a GGUF file, which can be talked to, not tuned, merged or adapted"
        return [Problem(where, what, "the model in safetensors")]
    if path.suffix == ".gguf" and path.is_file():
        return []
    if not path.exists():
        return [
            Problem(
                where,
                f"the model {name} does not exist",
                "a directory with config.json, or a hub name OWNER/NAME",
            )
        ]
    if (path / "config.json").is_file():
        return []
    if (path / "adapter_config.json").is_file():
        return [
            Problem(
                where,
                f"{name} is an adapter, not a model",
                "adapter_name_or_path, and the base as model_name_or_path",
            )
        ]
    return [
        Problem(
            where, f"{name} has no config.json, so it is no model", "the directory that holds config.json"
        )
    ]


def _adapters(config: Config) -> list[Problem]:
    found = []
    where = config.place("adapter_name_or_path")
    for name in config.adapter_name_or_path:
        path = local(name)
        if path is not None and not path.exists():
            found.append(
                Problem(where, f"the adapter {name} does not exist", "a directory with adapter_config.json")
            )
        elif path is not None and not (path / "adapter_config.json").is_file():
            model = (path / "config.json").is_file()
            instead = "model_name_or_path, it is a whole model" if model else "the directory that holds it"
            found.append(Problem(where, f"{name} has no adapter_config.json, so it is no adapter", instead))
    return found


def _template(config: Config) -> list[Problem]:
    name, where = config.template, config.place("template")
    if not name or name == "tokenizer" or "{{" in name or "{%" in name:
        return []
    path = Path(name)
    if path.is_file() or name.endswith(_TEMPLATE_SUFFIXES):
        return _template_file(path, where)
    module, function = _TEMPLATES
    known = sorted(getattr(importlib.import_module(module), function)())
    if name in known:
        return []
    near = nearest(name, known)
    instead = f"did you mean {near}?" if near else f"a .jinja file, or one of {', '.join(known)}"
    return [Problem(where, f"the template {name} is unknown", instead)]


def _template_file(path: Path, where: str) -> list[Problem]:
    if not path.exists():
        return [Problem(where, f"{path} does not exist", "a .jinja file or a name")]
    try:
        plain.read_text(path)
    except plain.Unreadable as error:
        return [Problem(where, f"{path} {error.what}", "a .jinja file in UTF-8, or a name")]
    return []


def _datasets(config: Config) -> list[Problem]:
    wanted = [("eval_dataset", name) for name in config.eval_dataset]
    if config.verb in ("predict", "data") or config.do_train or not (config.do_eval or config.do_predict):
        wanted += [("dataset", name) for name in config.dataset]
    if not wanted or config.dataset_dir == "ONLINE" or config.dataset_dir.startswith("REMOTE:"):
        return []
    folder = Path(config.dataset_dir)
    info, wrong = _info(folder / "dataset_info.json")
    if wrong:
        return [wrong]
    found = []
    for key, name in wanted:
        problem = _dataset(name, folder, info, config.place(key))
        if problem is not None:
            found.append(problem)
    return found


def _info(file: Path) -> tuple[dict[str, Any] | None, Problem | None]:
    """The table of data sets, None where there is no such file."""
    if not os.path.lexists(file):
        return None, None
    try:
        found = plain.from_json(plain.read_text(file, plain.LONGEST_JSON))
    except plain.Unreadable as error:
        where = f"{file}:{error.line}" if error.line else str(file)
        return None, Problem(where, error.what, error.instead)
    if found.doubles:
        key, line = found.doubles[0]
        return None, Problem(f"{file}:{line}", f"`{key}` is given twice", "one of the two")
    if isinstance(found.value, dict):
        return found.value, None
    return None, Problem(str(file), "is not an object of data sets", '{"NAME": {"file_name": "FILE"}}')


def _dataset(name: str, folder: Path, info: dict[str, Any] | None, where: str) -> Problem | None:
    if info is not None and name in info:
        return _entry(name, folder, info[name], where)
    if Path(name).exists() or (folder / name).exists():
        return None
    if name.lower().endswith(_DATA_SUFFIXES) or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return Problem(
            where, f"the data file {name} does not exist", "an existing file, or a name in dataset_info.json"
        )
    if "/" in name:
        return None  # a name on the hub
    table = folder / "dataset_info.json"
    if info is None:
        return Problem(
            where,
            f"the data set {name} is unknown: {table} does not exist",
            "dataset_dir, or a data file as dataset",
        )
    near = nearest(name, info)
    known = near or ", ".join(sorted(info)[:8])
    return Problem(
        where,
        f"the data set {name} is not in {table}",
        f"did you mean {near}?" if near else f"one of {known}",
    )


def _entry(name: str, folder: Path, entry: Any, where: str) -> Problem | None:
    table = folder / "dataset_info.json"
    if not isinstance(entry, dict):
        return Problem(str(table), f"`{name}` is not an object", '{"file_name": "FILE"}')
    if any(key in entry for key in _ONLINE):
        return None
    file = entry.get("file_name")
    if not isinstance(file, str):
        return Problem(str(table), f"`{name}` names no file", '"file_name": "FILE"')
    if not (folder / file).exists():
        return Problem(
            str(table),
            f"`{name}` (asked for by {where}): {folder / file} does not exist",
            "the right file_name",
        )
    return None
