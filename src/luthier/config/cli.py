"""`luthier check`, `luthier keys`, and the help of verbs that take keys."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from typing import Any

from luthier import redact
from luthier.config import table
from luthier.config.check import VERBS, check
from luthier.config.compat import nearest
from luthier.config.machine import Machine
from luthier.config.read import Loaded, read
from luthier.config.resolve import resolve
from luthier.config.schema import KEYS, Config
from luthier.errors import ConfigError, UsageError
from luthier.types import Problem

# Looked up by name: only `check` needs to know the machine, and asking it imports torch.
_DETECT = ("luthier.model.machine", "detect")


def main_check(args: list[str]) -> int:
    """`luthier check CONFIG [overrides] [--verb VERB] [--format text|json]`; 0 when it would run, else 2."""
    if "--help" in args or "-h" in args:
        print(main_check.__doc__)
        return 0
    args, verb = _take(args, "verb")
    loaded = read(args, os.environ)
    verb = verb or _likely_verb(loaded)
    if verb not in VERBS:
        raise UsageError(f"--verb: {verb} takes no configuration; one of {', '.join(VERBS)}")
    as_json = str(loaded.values.get("format", "text")) == "json"
    problems: tuple[Problem, ...] = ()
    config = None
    try:
        config = check(loaded, verb)
        config = _on_this_machine(config)
    except ConfigError as error:
        problems = error.problems
    notes = list(config.notes if config else loaded.notes)
    text = _json(problems, notes, config) if as_json else "\n".join(_report(problems, notes, config))
    print(redact.redact(text))
    return 2 if problems else 0


def main_keys(args: list[str]) -> int:
    """`luthier keys [NAME …] [--format text|json] [--markdown]`."""
    if "--help" in args or "-h" in args:
        print(main_keys.__doc__)
        return 0
    args, style = _take(args, "format")
    if "--markdown" in args:
        print(table.markdown(), end="")
        return 0
    found = [e for name in args for e in table.find(name)] if args else table.entries()
    if not found:
        near = nearest(args[0], [e.name for e in table.entries()])
        raise UsageError(f"no key is called {args[0]}" + (f"; did you mean {near}?" if near else ""))
    if style == "json":
        print(json.dumps([e.as_dict() for e in found], ensure_ascii=False, indent=2))
    else:
        print("\n".join(table.lines(found, shutil.get_terminal_size((110, 24)).columns)))
    return 0


def main_help(verb: str) -> int:
    """The keys that `verb` reads."""
    print("\n".join(table.verb_help(verb, shutil.get_terminal_size((110, 24)).columns)))
    return 0


def _take(args: list[str], name: str) -> tuple[list[str], str]:
    """Remove `--name VALUE`, `--name=VALUE` or `name=VALUE` from words: the rest, and VALUE or ""."""
    rest, value = [], ""
    words = list(args)
    while words:
        word = words.pop(0)
        if word == f"--{name}" and words:
            value = words.pop(0)
        elif word.startswith((f"--{name}=", f"{name}=")):
            value = word.split("=", 1)[1]
        else:
            rest.append(word)
    return rest, value


def _likely_verb(loaded: Loaded) -> str:
    """The verb that a configuration is for: what it names tells."""
    names = set(loaded.values)
    if "export_dir" in names:
        return "export"
    trains = {k for k, key in KEYS.items() if key.section in ("train", "method")} - {"finetuning_type"}
    if loaded.run or ("model_name_or_path" in names and not names & (trains | {"dataset"})):
        return "chat"
    return "train"


def _on_this_machine(config: Config) -> Config:
    module, function = _DETECT
    machine: Machine = getattr(importlib.import_module(module), function)()
    if machine.device == "cpu" and not config.use_cpu:
        note = f"no accelerator was found; it would run on the CPU ({machine.cores} cores)"
        config = config.replace(notes=(*config.notes, note))
    return resolve(config, machine)


def _json(problems: tuple[Problem, ...], notes: list[str], config: Config | None) -> str:
    found: dict[str, Any] = {
        "ok": not problems,
        "problems": [{"where": p.where, "what": p.what, "instead": p.instead} for p in problems],
        "notes": notes,
        "resolved": config.as_dict() if config else {},
        "derived": dict(config.derived) if config else {},
    }
    return json.dumps(found, ensure_ascii=False, indent=2)


def _report(problems: tuple[Problem, ...], notes: list[str], config: Config | None) -> list[str]:
    out = [f"problem  {p}" for p in problems] + [f"note     {n}" for n in notes]
    if config is None:
        return [*out, f"{len(problems)} problem{'s' * (len(problems) != 1)}"]
    given = [k for k in config.where if k not in config.derived and k != "format"]
    values = config.as_dict()
    out += [f"given    {k}: {json.dumps(values[k], ensure_ascii=False)}" for k in given]
    out += [f"derived  {k}: {json.dumps(values[k])} ({why})" for k, why in config.derived.items()]
    return [*out, f"ok: `luthier {config.verb}` would run"]
