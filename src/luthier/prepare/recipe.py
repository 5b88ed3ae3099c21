"""What is asked of `luthier data clean`: steps and their options, from words and YAML, as a list of Calls.

Everything wrong is said at once. A pipeline file may come from anywhere, so it is read as plain values, and a
function of somebody's own (a classifier) can be named on the command line only: naming one in a file would
let the file run code.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.config import plain
from luthier.errors import ConfigError, LuthierError
from luthier.prepare import leaves, normal
from luthier.prepare.pipeline import Call
from luthier.prepare.steps import STEPS, load, nearest
from luthier.types import BadRow, Problem

USUAL = "usual"
PROBE = "A <b>probe</b>，軟體 cafe\u0301"
"""A text that each step is tried on before the work begins: finds unusable options and missing packages."""
# How an option's annotation begins -> what a file may hold for it, and how it is called.
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "Collection": ((list,), "a list"),
    "Iterable": ((list,), "a list"),
    "str | Mapping": ((str, dict), "text or a table"),
    "str": ((str,), "text"),
}
FUNCTION = "package.module:function"


@dataclass
class Asked:
    """Settings of one step, each with the place where it was written."""

    step: str
    where: str
    options: dict[str, Any] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)


def calls(options: Mapping[str, str], settings: Iterable[str]) -> list[Call]:
    """The steps to run, in order. Raises ConfigError with all problems at once.

    options: steps, skip, pipeline, roles, not-in, as words of the command line · settings: STEP.OPTION=VALUE.
    """
    problems: list[Problem] = []
    found, roles = _listed(options, problems)
    _leave_out(found, options.get("skip", ""), problems)
    if "not-in" in options and all(one.step != "leakage" for one in found):
        place = next((i for i, one in enumerate(found) if one.step == "deduplication"), 0)
        found.insert(place, Asked("leakage", "--not-in"))
    for one in found:
        if one.step == "leakage" and "not-in" in options:
            one.options["not_in"] = options["not-in"]
    _set(found, settings, problems)
    made = [call for one in found if (call := _call(one, roles, problems)) is not None]
    if not problems:
        problems += _tried(made)
    if problems:
        raise ConfigError(problems)
    return made


def described(step: str) -> str:
    """The step's docstring and options, for a person. Raises UsageError for a step that is not there."""
    text = inspect.cleandoc(load(step).__doc__ or "")
    lines = [f"{step}: {STEPS[step].what}", "", text, "", "options:"]
    for name, (kind, default) in parameters(step).items():
        lines.append(f"  {step}.{name}={_default(default)}   ({_words(kind)})")
    lines += [f"  roles: {', '.join(leaves.ROLES)}"] if STEPS[step].takes == "text" else []
    return "\n".join(lines if lines[-1] != "options:" else [*lines, "  none"])


def _default(value: Any) -> str:
    """A default as it would be written; "..." where nothing is given, or a function of ours."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list) and value:
        return ",".join(map(str, value))
    return str(value) if isinstance(value, str | int | float) and value != "" else "..."


def parameters(step: str) -> dict[str, tuple[str, Any]]:
    """option -> (its annotation, its default)."""
    found: dict[str, tuple[str, Any]] = {}
    fixed = 2 if STEPS[step].takes == "all" else 1
    for parameter in list(inspect.signature(load(step)).parameters.values())[fixed:]:
        if parameter.kind is parameter.VAR_KEYWORD:  # classes of characters are rows of a table
            found |= {name: ("bool", on) for name, on in normal.CLASSES.items()}
        else:
            found[parameter.name] = (str(parameter.annotation), parameter.default)
    return found


def _listed(options: Mapping[str, str], problems: list[Problem]) -> tuple[list[Asked], frozenset[str] | None]:
    """The steps that --pipeline or --steps name, or the usual ones; and the roles for all of them."""
    roles = _roles(options["roles"].split(","), "--roles", problems) if "roles" in options else None
    if "pipeline" in options and "steps" in options:
        problems.append(Problem("--steps", "stands beside --pipeline", "one of the two"))
    if "pipeline" in options:
        found, own = _from_file(options["pipeline"], problems)
        return found, roles or own
    names: list[str] = []
    for name in options.get("steps", USUAL).split(","):
        bare = name.strip().replace("-", "_")
        names += [step for step, row in STEPS.items() if row.on] if bare == USUAL else [bare]
    return [Asked(name, "--steps") for name in names if _known(name, "--steps", problems)], roles


def _known(name: str, where: str, problems: list[Problem]) -> bool:
    if name not in STEPS:
        problems.append(Problem(where, f"no cleaning step {name!r}", nearest(name, [*STEPS, USUAL])))
    return name in STEPS


def _from_file(file: str, problems: list[Problem]) -> tuple[list[Asked], frozenset[str] | None]:
    """The steps of a pipeline file: `steps: [name, {name: {option: value}}]`, and its `roles`."""
    try:
        parsed = plain.from_yaml(plain.read_text(Path(file)))
    except plain.Unreadable as error:
        place = f"{file}:{error.line}" if error.line else file
        problems.append(Problem(place, error.what, error.instead))
        return [], None
    value = parsed.value
    if not isinstance(value, dict) or not isinstance(value.get("steps"), list) or not value["steps"]:
        problems.append(
            Problem(file, "names no steps", "steps: [missing_text, {quality_filter: {longest: 9}}]")
        )
        return [], None
    problems += [
        Problem(f"{file}:{line}", f"{key!r} is given twice", "keep one") for key, line in parsed.doubles
    ]
    for key in value.keys() - {"steps", "roles"}:
        problems.append(Problem(f"{file}: {key}", "no such key", nearest(str(key), ["steps", "roles"])))
    found = []
    for i, entry in enumerate(value["steps"], 1):
        if (one := _entry(entry, f"{file}: step {i}", problems)) is not None:
            found.append(one)
    roles = value.get("roles")
    return found, None if roles is None else _roles(roles, f"{file}: roles", problems)


def _entry(entry: Any, where: str, problems: list[Problem]) -> Asked | None:
    single = isinstance(entry, dict) and len(entry) == 1
    name, given = next(iter(entry.items())) if single else (entry, {})
    if not isinstance(name, str) or not isinstance(given or {}, dict):
        problems.append(Problem(where, "is no step", "a name, or a name: {option: value}"))
        return None
    if not _known(name, where, problems):
        return None
    options = {str(key): value for key, value in (given or {}).items()}
    return Asked(name, f"{where}: {name}", options)


def _leave_out(found: list[Asked], names: str, problems: list[Problem]) -> None:
    for name in filter(None, names.split(",")):
        if not any(one.step == name for one in found):
            known = [one.step for one in found]
            problems.append(Problem("--skip", f"{name!r} is not among the steps", nearest(name, known)))
        found[:] = [one for one in found if one.step != name]


def _set(found: list[Asked], settings: Iterable[str], problems: list[Problem]) -> None:
    """Settings of the command line, which are text, on the steps that they name."""
    for setting in settings:
        name, _, text = setting.partition("=")
        step, _, option = name.partition(".")
        if not _known(step, name, problems):
            continue
        those = [one for one in found if one.step == step]
        if not those:
            problems.append(Problem(name, f"{step} is not among the steps", f"--steps {USUAL},{step}"))
        for one in those:
            one.options[option], one.said[option] = text, text


def _call(one: Asked, roles: frozenset[str] | None, problems: list[Problem]) -> Call | None:
    """The step with its options in their types; None when there are problems."""
    known, before, bound = parameters(one.step), len(problems), {}
    call = Call(one.step, given=roles)
    for option, value in one.options.items():
        where = f"{one.where}.{option}" if option not in one.said else f"{one.step}.{option}"
        if option == "roles" and STEPS[one.step].takes == "text":
            listed = value.split(",") if isinstance(value, str) else value
            call = replace(call, given=_roles(listed, where, problems))
        elif option not in known:
            hint = nearest(option, [*known, "roles"]) if known else f"{one.step} has no options"
            problems.append(Problem(where, "no such option", hint))
        elif option in one.said:
            bound[option] = _of_text(value, known[option][0], where, problems)
        else:
            bound[option] = _of_file(value, known[option][0], where, problems)
    return replace(call, options=bound) if len(problems) == before else None


def _kind(annotation: str) -> tuple[tuple[type, ...], str] | None:
    return next((kind for begin, kind in KINDS.items() if annotation.startswith(begin)), None)


def _words(annotation: str) -> str:
    kind = _kind(annotation)
    return kind[1] if kind else f"a function, {FUNCTION}; on the command line only"


def _of_file(value: Any, annotation: str, where: str, problems: list[Problem]) -> Any:
    kind = _kind(annotation)
    if kind is None:
        problems.append(
            Problem(where, "a file may not name a function to run", f"--set STEP.OPTION={FUNCTION}")
        )
    elif not isinstance(value, kind[0]) or (isinstance(value, bool) and bool not in kind[0]):
        problems.append(Problem(where, f"{value!r} is not {kind[1]}", f"write {kind[1]}"))
    return tuple(value) if isinstance(value, list) else value


def _of_text(text: str, annotation: str, where: str, problems: list[Problem]) -> Any:
    """The value that a word of the command line stands for."""
    kind = _kind(annotation)
    if kind is None:
        return _function(text, where, problems)
    if list in kind[0]:
        return tuple(part.strip() for part in text.strip("[] ").split(",") if part.strip())
    if str in kind[0] and not (dict in kind[0] and text.startswith("{")):
        return text
    try:
        return _of_file(plain.from_yaml(text).value, annotation, where, problems)
    except plain.Unreadable as error:
        problems.append(Problem(where, error.what, error.instead))
        return None


def _function(text: str, where: str, problems: list[Problem]) -> Callable[..., Any] | None:
    """A function that the user names, such as a classifier; an installed module, or one on PYTHONPATH."""
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        problems.append(Problem(where, f"{text!r} cannot be imported ({error})", FUNCTION))
        return None
    if not callable(found):
        problems.append(Problem(where, f"{text!r} is no function", FUNCTION))
        return None
    made: Callable[..., Any] = found
    return made


def _roles(given: Any, where: str, problems: list[Problem]) -> frozenset[str]:
    """Roles by name; "all" is every one, columns that training does not read included."""
    names = [str(name).strip() for name in (given if isinstance(given, list) else [given])]
    for name in names:
        if name not in (*leaves.ROLES, "all"):
            problems.append(Problem(where, f"no role {name!r}", nearest(name, [*leaves.ROLES, "all"])))
    return frozenset(leaves.ROLES) if "all" in names else frozenset(names)


def _tried(made: Sequence[Call]) -> list[Problem]:
    """What the steps say to a harmless text or row: options of the right type that make no sense, packages
    that are not installed."""
    problems = []
    for call in made:
        try:
            if STEPS[call.step].takes == "text":
                call.function(PROBE)
            elif STEPS[call.step].takes == "row":
                call.function(BadRow("probe:0", "", ""))
            elif call.step == "leakage" and not call.options.get("not_in"):
                problems.append(Problem("leakage", "is not said what to compare with", "--not-in FILE"))
        except LuthierError as error:
            what, _, instead = str(error).partition(" -> ")
            problems.append(Problem(call.step, what.removeprefix(f"{call.step}: "), instead))
    return problems
