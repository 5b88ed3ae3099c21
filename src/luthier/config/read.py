"""Config files and command-line words -> values, each with the place where it was written.

OmegaConf decides what a value means (`1e-4` is a float, `${...}` refers to other keys and to the
environment); this file adds what it does not keep: lines, all duplicate keys, and `--key value`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.config import compat
from luthier.config.schema import KEYS
from luthier.types import Problem

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
MARKER = "luthier.json"
_PAIR = re.compile(r"([A-Za-z_][\w.\-]*)=(.*)", re.DOTALL)
_BOOLEANS = {"true", "false", "yes", "no", "on", "off", "1", "0"}


@dataclass
class Loaded:
    """What was asked for, as far as it could be read.

    values: key -> value as written · where: key -> "train.yaml:12", "--lora_rank", "$WANDB_PROJECT" ·
    raw: the word as typed, for keys from the command line · run: the run directory that was given, if any ·
    unread: a file could not be read, so that nobody knows what is missing.
    """

    values: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    run: Path | None = None
    unread: bool = False

    def set(self, key: str, value: Any, where: str) -> None:
        """Give `key` a value unless it has one already."""
        if key not in self.values:
            self.values[key], self.where[key] = value, where

    def add(self, where: str, what: str, instead: str) -> None:
        """Remember one problem."""
        self.problems.append(Problem(where, what, instead))


@dataclass(frozen=True)
class _Pair:
    key: str
    text: str
    shown: str


def read(args: Sequence[str] | Mapping[str, Any], env: Mapping[str, str]) -> Loaded:
    """Read config files, a run directory and `key=value`, `--key value`, `--key=value`, `--flag`, mixed.

    Later files win over earlier ones, the command line wins over files, and the environment comes last.
    Nothing is raised for a wrong request: problems are collected in the result.
    """
    from omegaconf import OmegaConf

    loaded = Loaded()
    merged = OmegaConf.create({})
    if isinstance(args, Mapping):
        merged = OmegaConf.create(dict(args))
        loaded.where.update(dict.fromkeys(args, "argument"))
    else:
        files, pairs = split(args, loaded)
        for file in files:
            values = _file(file, loaded)
            merged.merge_with(OmegaConf.create(values))
        for pair in pairs:
            _set(merged, pair, loaded)
    _resolve(merged, loaded)
    _environment(env, loaded)
    return loaded


def split(args: Sequence[str], loaded: Loaded) -> tuple[list[Path], list[_Pair]]:
    """Words -> config files and key-value pairs; what is neither becomes a problem."""
    files: list[Path] = []
    pairs: list[_Pair] = []
    words = list(args)
    while words:
        word = words.pop(0)
        match = _PAIR.fullmatch(word.removeprefix("--"))
        if match:
            key = match[1].replace("-", "_")
            pairs.append(_Pair(key, match[2], f"--{key}" if word.startswith("--") else key))
        elif word.startswith("--") and len(word) > 2:
            pairs.append(_option(word[2:].replace("-", "_"), words, loaded))
        else:
            _positional(word, files, loaded)
    return files, [p for p in pairs if p.key]


def _option(key: str, words: list[str], loaded: Loaded) -> _Pair:
    """`--key` and, unless it is a flag that stands alone, the word after it (taken from `words`)."""
    if key.startswith("no_") and not compat.is_flag(key) and compat.is_flag(key[3:]):
        return _Pair(key[3:], "false", f"--{key}")
    following = words[0] if words else None
    alone = following is None or (following.startswith("--") and len(following) > 2)
    if not alone and compat.is_flag(key):
        alone = str(following).lower() not in _BOOLEANS
    if not alone:
        return _Pair(key, words.pop(0), f"--{key}")
    if compat.is_flag(key) or key not in KEYS:
        return _Pair(key, "true", f"--{key}")
    loaded.add(f"--{key}", "has no value", f"--{key} VALUE")
    return _Pair("", "", "")


def _positional(word: str, files: list[Path], loaded: Loaded) -> None:
    path = Path(word).expanduser()
    if path.suffix.lower() in CONFIG_SUFFIXES and not path.is_dir() and path.name != MARKER:
        files.append(path)
    elif path.is_dir() and (path / MARKER).is_file():
        loaded.run = path
    elif path.name == MARKER and path.is_file():
        loaded.run = path.parent
    elif (path / "adapter_config.json").is_file():
        loaded.set("adapter_name_or_path", word, word)
    elif (path / "config.json").is_file():
        loaded.set("model_name_or_path", word, word)
    elif path.is_dir():
        loaded.add(
            word, f"is a directory without {MARKER}, config.json or adapter_config.json", "a run directory"
        )
    elif path.exists():
        loaded.add(word, "is no configuration", "a .yaml, .yml or .json file, or key=value")
    else:
        loaded.add(
            word, "no such file or directory", "a config file, a run directory, key=value or --key value"
        )


# --- files ------------------------------------------------------------


def _file(path: Path, loaded: Loaded) -> dict[str, Any]:
    """The top-level mapping of a config file; lines go to `loaded.where`."""
    before = len(loaded.problems)
    values, lines = _parsed(path, loaded)
    if isinstance(values, dict):
        loaded.where.update({k: f"{path}:{lines[k]}" for k in values if k in lines})
        return {str(k): v for k, v in values.items()}
    if len(loaded.problems) == before:
        loaded.add(f"{path}:1", "is not made of `key: value` lines", "key: value")
    loaded.unread = True
    return {}


def _parsed(path: Path, loaded: Loaded) -> tuple[Any, dict[str, int]]:
    """(value, key -> line) of a config file; what cannot be read is a problem, and no mapping."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        loaded.add(str(path), f"cannot be read: {error.strerror}", "the path of a config file")
        return None, {}
    except UnicodeDecodeError as error:
        loaded.add(str(path), f"is not UTF-8 ({error.reason} at byte {error.start})", "save it as UTF-8")
        return None, {}
    return (_json if path.suffix.lower() == ".json" else _yaml)(path, text, loaded)


def _json(path: Path, text: str, loaded: Loaded) -> tuple[Any, dict[str, int]]:
    lines: dict[str, int] = {}

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = [k for k, _ in items]
        for key in sorted({k for k in seen if seen.count(k) > 1}):
            loaded.add(f"{path}:{_line(text, key, last=True)}", f"`{key}` is given twice", "one of the two")
        return dict(items)

    try:
        values = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        what = f"is not valid JSON: {error.msg} (column {error.colno})"
        loaded.add(f"{path}:{error.lineno}", what, "mend it there, or write YAML")
        return None, {}
    if isinstance(values, dict):
        lines = {k: _line(text, k) for k in values}
    return values, lines


def _line(text: str, key: str, last: bool = False) -> int:
    found = [m.start() for m in re.finditer(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text)]
    return text.count("\n", 0, found[-1 if last else 0]) + 1 if found else 1


def _yaml(path: Path, text: str, loaded: Loaded) -> tuple[Any, dict[str, int]]:
    import yaml
    from omegaconf import OmegaConf

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        loaded.add(f"{path}:{mark.line + 1 if mark else 1}", f"is not valid YAML: {what}", "key: value")
        return None, {}
    if root is None:
        return {}, {}
    if not isinstance(root, yaml.MappingNode):
        return None, {}
    lines = {k.value: k.start_mark.line + 1 for k, _ in root.value}
    duplicates = list(_duplicates(root))
    for key, line in duplicates:
        loaded.add(f"{path}:{line}", f"`{key}` is given twice", "one of the two")
    if duplicates:
        text = yaml.serialize(root)  # the first of each, to find what else is wrong
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False), lines


def _duplicates(node: Any) -> Sequence[tuple[str, int]]:
    """(key, line) of every key that its mapping had before, at any depth; they are taken out of it."""
    import yaml

    found: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, Any] = {}
        for key, value in node.value:
            if key.value in seen:
                found.append((key.value, key.start_mark.line + 1))
            seen.setdefault(key.value, (key, value))
            found += _duplicates(value)
        node.value = list(seen.values())
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            found += _duplicates(child)
    return found


# --- command line, interpolation, environment ------------------------------------------------------------


def _set(merged: DictConfig, pair: _Pair, loaded: Loaded) -> None:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    top = pair.key.split(".")[0]
    try:
        parsed = OmegaConf.from_dotlist([f"value={pair.text}"])
        value = OmegaConf.to_container(parsed, resolve=False)["value"]  # type: ignore[call-overload, index]
    except (yaml.YAMLError, OmegaConfBaseException):
        value = pair.text  # free text that is not YAML: `--system "a: b: c"`
    try:
        OmegaConf.update(merged, pair.key, value, merge=True)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        loaded.add(pair.shown, f"cannot be set: {str(error).splitlines()[0]}", "key=value")
        return
    loaded.where[top] = pair.shown
    loaded.raw.pop(top, None)
    if top == pair.key:
        loaded.raw[top] = pair.text


def _resolve(merged: DictConfig, loaded: Loaded) -> None:
    """Interpolate key by key, so that each failure is named with its own place."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for key in list(merged):
        name = str(key)
        try:
            value = merged[key]
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException as error:
            loaded.add(
                loaded.where.get(name, name), f"`{name}`: {str(error).splitlines()[0]}", "a key that is there"
            )
            continue
        loaded.values[name] = value
        if "${" in loaded.raw.get(name, ""):
            del loaded.raw[name]


def _environment(env: Mapping[str, str], loaded: Loaded) -> None:
    """Apply the variables that mean a key, and speak about those that mean nothing here."""
    ignored: dict[str, list[str]] = {}
    for name, row in compat.environment().items():
        text = env.get(name, "")
        if not text or text.lower() in ("0", "false", "no") or row.status == "same":
            continue
        if row.status == "refused":
            loaded.add(f"${name}", f"is refused, because {row.because}", row.use)
        elif row.status == "translated":
            value = row.values.get(text.lower()) if row.values else text
            if value is not None:
                loaded.set(row.to, value, f"${name}")
        elif name not in ("HOSTNAME", "COMPUTERNAME"):
            ignored.setdefault(row.because, []).append(f"${name}")
    loaded.notes += [f"{', '.join(names)}: ignored, because {because}" for because, names in ignored.items()]
