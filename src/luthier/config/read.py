"""Config files and command-line words -> values, each with the place where it was written.

A value means what it means to LLaMA-Factory (`1e-4` is a number, `007` is one, too); `plain` reads the files,
`interpolate` fills in what refers to other keys and to the environment. Lines and duplicate keys are kept.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier import redact
from luthier.config import compat, plain
from luthier.config.interpolate import Interpolation, Refused
from luthier.config.schema import KEYS
from luthier.types import Problem

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
MARKER = "luthier.json"
PATHS = {
    "output_dir", "dataset", "eval_dataset", "dataset_dir", "template", "tokenized_path", "cache_dir",
    "model_name_or_path", "adapter_name_or_path", "resume_from_checkpoint", "logging_dir", "export_dir",
}  # fmt: skip
_PAIR = re.compile(r"([A-Za-z_][\w.\-]*)=(.*)", re.DOTALL)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
MOST_KEYS = 2_000  # there are some hundreds, with those of other programs
DEEPEST_KEY = 8
_BOOLEANS = {"true", "false", "yes", "no", "on", "off", "1", "0"}


@dataclass
class Loaded:
    """What was asked for, as far as it could be read.

    values: key -> value as written · where: key -> "train.yaml:12", "--lora_rank", "$WANDB_PROJECT" ·
    raw: as typed on the command line, and numbers as written in a file · run: the run directory that was
    given, if any · unread: a file could not be read, so that nobody knows what is missing.
    """

    values: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    raw: dict[str, str | list[str]] = field(default_factory=dict)
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
    loaded = Loaded()
    merged: dict[str, Any] = {}
    if isinstance(args, Mapping):
        merged = {str(key): value for key, value in args.items()}
        loaded.where.update(dict.fromkeys(merged, "argument"))
    else:
        files, pairs = split(args, loaded)
        for file in files:
            _merge(merged, _file(file, loaded))
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
    word = os.path.expanduser(word)
    path = Path(word)
    if path.suffix.lower() in CONFIG_SUFFIXES and not path.is_dir() and path.name != MARKER:
        files.append(path)
    elif path.is_dir() and (path / MARKER).is_file():
        loaded.run = path
    elif path.name == MARKER and path.is_file():
        loaded.run = path.parent
    elif (path / "adapter_config.json").is_file():
        loaded.set("adapter_name_or_path", [word], word)
    elif (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file()):
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
    values, lines, texts = _parsed(path, loaded)
    if isinstance(values, dict) and _named(path, values, loaded):
        loaded.where.update({k: f"{path}:{lines[k]}" for k in values if k in lines})
        loaded.raw = {k: text for k, text in {**loaded.raw, **texts}.items() if k in texts or k not in values}
        return values
    if len(loaded.problems) == before:
        loaded.add(f"{path}:1", "is not made of `key: value` lines", "key: value")
    loaded.unread = True
    return {}


def _parsed(path: Path, loaded: Loaded) -> tuple[Any, dict[str, int], Mapping[str, str | list[str]]]:
    """(value, key -> line, key -> text) of a config file; what cannot be read is a problem, no mapping."""
    try:
        text = plain.read_text(path)
        found = (plain.from_json if path.suffix.lower() == ".json" else plain.from_yaml)(text)
    except plain.Unreadable as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        loaded.add(where, error.what, error.instead)
        return None, {}, {}
    for key, line in found.doubles:
        loaded.add(f"{path}:{line}", f"`{key}` is given twice", "one of the two")
    value = {} if found.value is None and path.suffix.lower() != ".json" else found.value
    return value, found.lines, found.texts


def _named(path: Path, values: dict[Any, Any], loaded: Loaded) -> bool:
    """Whether the keys of a file are names, and not too many to be those of a configuration."""
    odd = [key for key in values if not isinstance(key, str)]
    if odd:
        loaded.add(str(path), f"`{odd[0]}` is a number, not the name of a key", "names as keys")
    elif len(values) > MOST_KEYS:
        loaded.add(str(path), f"has {len(values):,} keys", f"a configuration: at most {MOST_KEYS:,} keys")
    else:
        return True
    return False


# --- command line, interpolation, environment ------------------------------------------------------------


def _merge(merged: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Put `new` over `merged`: mappings key by key, everything else as a whole."""
    for key, value in new.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        else:
            merged[key] = value


def _set(merged: dict[str, Any], pair: _Pair, loaded: Loaded) -> None:
    try:
        value = plain.from_yaml(pair.text).value
    except plain.Unreadable:
        value = pair.text  # free text that is not YAML: `--system "a: b: c"`
    *above, last = pair.key.split(".")
    top = above[0] if above else last
    inside: Any = merged
    for part in above:
        inside = inside.setdefault(part, {})
        if not isinstance(inside, dict) or len(above) > DEEPEST_KEY:
            loaded.add(pair.shown[:80], f"cannot be set: `{part}` is no mapping", f"{top}=VALUE")
            return
    _merge(inside, {last: value})
    loaded.where[top] = pair.shown
    loaded.raw.pop(top, None)
    if top == pair.key:
        loaded.raw[top] = pair.text


def _resolve(merged: dict[str, Any], loaded: Loaded) -> None:
    """Fill in references key by key, so that each failure is named with its own place."""
    filled = Interpolation(merged)
    for name in merged:
        where = loaded.where.get(name, name)
        try:
            value = filled.value(name)
        except Refused as error:
            what, _, instead = str(error).partition(" -> ")
            loaded.add(where, f"`{name}`: {what}", instead)
            continue
        wrong = _unfit(name, value)
        if wrong:
            loaded.add(where, *wrong)
            continue
        loaded.values[name] = _at_home(value) if name in PATHS else value
        if "${" in loaded.raw.get(name, "") or value != loaded.values[name]:
            loaded.raw.pop(name, None)


def _at_home(value: Any) -> Any:
    """A path that begins with `~`, as a shell writes it. Done here alone, so that `./~` is a name."""
    if isinstance(value, list):
        return [_at_home(one) for one in value]
    return os.path.expanduser(value) if isinstance(value, str) and value != "~" else value


def _unfit(name: str, value: Any) -> tuple[str, str] | None:
    """Why a key and its value may not go into a run: characters that no name or text has, or a secret."""
    shown = json.dumps(name) if _CONTROL.search(name) else f"`{name}`"
    for text in (name, *_texts(value)):
        found = _CONTROL.search(text)
        if found and "\udc80" <= found[0] <= "\udcff":  # how Python shows bytes of a name that are no text
            byte = ord(found[0]) - 0xDC00
            return f"{shown} holds the byte {byte:02X}, which is not UTF-8", "a name in UTF-8: rename it"
        if found:
            return f"{shown} holds the character U+{ord(found[0]):04X}", "text without control characters"
        secret = "" if redact.secret_name(name) else redact.found_in(text)
        if secret:
            return (
                f"{shown} holds {secret}, which would be kept with the run",
                "leave it in the environment, where what needs it reads it",
            )
    return None


def _texts(value: Any) -> list[str]:
    """All strings in a plain value, keys included."""
    if isinstance(value, str):
        return [value]
    below = [*map(str, value), *value.values()] if isinstance(value, dict) else value
    if not isinstance(below, list):
        return []
    return [text for one in below for text in _texts(one)]


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
