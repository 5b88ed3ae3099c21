"""Values as written -> a checked Config, or every problem at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from luthier import redact
from luthier.config import compat, files, from_run, packages, rules
from luthier.config.coerce import coerce
from luthier.config.read import Loaded, read
from luthier.config.schema import KEYS, Config
from luthier.errors import ConfigError
from luthier.types import Problem

VERBS = tuple(rules.NEEDS)


def load(args: Sequence[str] | Mapping[str, Any], verb: str, env: Mapping[str, str] | None = None) -> Config:
    """Read and check a request of `verb`: command-line words, or a mapping of keys. Raises ConfigError."""
    return check(read(args, os.environ if env is None else env), verb)


def check(loaded: Loaded, verb: str) -> Config:
    """The Config that was asked for, with notes on what is translated or ignored.

    Raises ConfigError with all problems: unknown, refused and contradictory keys, wrong types and choices,
    what the verb needs and does not get, and files that are not there. Imports no torch.
    """
    if loaded.run is not None and verb == "train":
        from_run.repeat(loaded, loaded.run)
    written = _written(loaded)
    _translate(loaded)
    run = from_run.fill(loaded, verb)
    if run is not None:
        _translate(loaded)
    values = _coerced(loaded)
    config = Config(
        **{k: v for k, v in values.items() if k in KEYS},
        verb=verb,
        run=str(run) if run else None,
        written=written,
        where={k: loaded.where.get(k, k) for k in values},
        notes=tuple(loaded.notes),
    )
    # What a file that cannot be read would have said is not known, so nothing is called missing.
    asked = [] if loaded.unread else [*_needs(config, loaded), *_rules(config)]
    problems = [*loaded.problems, *asked, *files.problems(config)]
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return config.replace(notes=(*config.notes, *_package_notes(config)))


def _written(loaded: Loaded) -> dict[str, Any]:
    """The values as written, so that a file made of them asks for the same: "007" stays text, as does `${`.

    Secrets that have no effect here (other programs' keys) are left out.
    """
    texts = {k: raw for k, raw in loaded.raw.items() if k in KEYS and KEYS[k].kind == "str"}
    kept = {k: v for k, v in loaded.values.items() if k in KEYS or not redact.secret_name(k)}
    return {k: escaped(texts.get(k, v)) if v is not None else v for k, v in kept.items()}


def escaped(value: Any) -> Any:
    """A value whose texts are read back as they are: nothing in them refers to anything any more."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, dict):
        return {key: escaped(one) for key, one in value.items()}
    return [escaped(one) for one in value] if isinstance(value, list) else value


def _translate(loaded: Loaded) -> None:
    """Replace foreign keys by what they mean here; leaves only keys of the schema in `loaded.values`."""
    for name in [n for n in loaded.values if n not in KEYS]:
        value, where = loaded.values.pop(name), loaded.where.pop(name, name)
        raw = loaded.raw.pop(name, None)
        row = compat.keys().get(name)
        if row is None:
            near = compat.nearest(name, [*KEYS, *compat.keys()])
            instead = f"did you mean `{near}`?" if near else "`luthier keys` lists all keys"
            loaded.add(where, f"unknown key `{name}`", instead)
        elif row.asks_nothing(value):
            continue
        elif row.status == "refused":
            loaded.add(where, f"`{name}` is refused, because {row.because}", row.use)
        elif row.status == "ignored":
            loaded.notes.append(f"{where}: `{name}` is ignored, because {row.because}")
        else:
            _rename(loaded, row, value, where, raw)


def _rename(loaded: Loaded, row: compat.Row, value: Any, where: str, raw: str | list[str] | None) -> None:
    if row.values:
        meant = row.values.get(str(value).lower())
        if meant is None:
            return
        value, raw = meant, None
    loaded.notes.append(f"{where}: `{row.name}` is called `{row.to}` here")
    old = loaded.values.get(row.to)
    if old is not None and KEYS[row.to].kind == "strs":
        value, raw = [*(old if isinstance(old, list) else str(old).split(",")), value], None
        value = [v for v in value if v != "none"]
    elif old is not None and str(old).lower() != str(value).lower():
        loaded.add(
            where, f"`{row.name}` and `{row.to}` are the same key with two values", f"`{row.to}` alone"
        )
        return
    loaded.values[row.to], loaded.where[row.to] = value, where
    loaded.raw.pop(row.to, None)
    if raw is not None:
        loaded.raw[row.to] = raw


def _coerced(loaded: Loaded) -> dict[str, Any]:
    values = {}
    for name, value in loaded.values.items():
        try:
            values[name] = coerce(KEYS[name], value, loaded.raw.get(name))
        except ValueError as error:
            loaded.add(loaded.where.get(name, name), f"`{name}` {error}", f"see `luthier keys {name}`")
    return values


def _needs(config: Config, loaded: Loaded) -> list[Problem]:
    needed = [*rules.NEEDS[config.verb]]
    if config.verb == "predict" and not config.eval_dataset:
        needed.append(("dataset", "--dataset NAME or a file"))
    wrong = {p.what.split("`")[1] for p in loaded.problems if "`" in p.what}
    return [
        Problem(name, "is missing", instead)
        for name, instead in needed
        if not getattr(config, name) and name not in wrong
    ]


def _rules(config: Config) -> list[Problem]:
    table = rules.ANYWHERE + (rules.TRAIN if config.verb == "train" else ())
    return [Problem(config.place(r.key), r.what, r.instead) for r in table if r.broken(config)]


def _package_notes(config: Config) -> list[str]:
    return [
        f'{config.place(need.key)}: {need.value} needs {need.module}: pip install "luthier[{need.extra}]"'
        for need in packages.missing(config)
    ]
