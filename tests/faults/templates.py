"""Chat templates from strangers: none runs code, reads a file, or uses up time or memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

import tasks
from faults.bench import Bench, Done, Trial

CANARY = "CANARY"
ROOM = 400 << 20
"""Bytes of address space beyond what the process has when it starts; reading rows and model takes a third."""

_WRITTEN: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
_LONG, _WIDE = "x" * 500_000, "\U0001d400" * 60
ATTACKS = {
    **_WRITTEN["attacks"],
    "first line like ours, not closed": "{#- luthier {" + "[" * 100_000 + "} -#}\n{{ messages }}",
}
BOMBS = {
    **_WRITTEN["bombs"],
    "texts in the variables of macros": "{% macro m(q) %}"
    + "".join([f"{{% set a{k} = '{_WIDE}' + q %}}" for k in range(4_000)])
    + "{{ m(q) }}{% endmacro %}{{ m('x') }}",
    "doubling by caller": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 30
    + "0123456789"
    + "{% endcall %}" * 30,
    "parentheses": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "lists in lists": "{{ " + "[" * 20_000 + "1" + "]" * 20_000 + " }}",
    "ifs in ifs": "{% if 1 %}" * 3_000 + "{% endif %}" * 3_000,
    "a long difference": "{{ 1" + " - a" * 24_000 + " }}",
    "a number of a million digits": "{{ " + "1" * 900_000 + " }}",
    "too many words": "{{ messages }}" * 60_000,
    "too long a text": "x" * 1_000_001,
    "a long literal in a loop": "{% for a in range(99999) %}" + _LONG + "{% endfor %}",
    "a long literal in a set block": "{% set t %}{% for a in range(99999) %}"
    + _LONG
    + "{% endfor %}{% endset %}",
    "a long literal in a branch": "{% for a in range(99999) %}{% if a %}" + _LONG + "{% endif %}{% endfor %}",
}


def confined(folder: str) -> None:
    """Work in `folder`, with little more memory than there is now."""
    os.chdir(folder)
    with open("/proc/self/statm", encoding="ascii") as file:
        limit = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def attacks(bench: Bench, count: int) -> Iterator[Trial]:
    """A model folder or a file brings the template; a training and `data show` meet it."""
    yield from _trials(bench, count, ATTACKS)


def bombs(bench: Bench, count: int) -> Iterator[Trial]:
    """The same with templates that would not end, or would take all memory; there is little of it."""
    yield from _trials(bench, count, BOMBS)


def _trials(bench: Bench, count: int, templates: dict[str, str]) -> Iterator[Trial]:
    folder = bench.folder()
    settings = tasks.make(folder, 3, template="tokenizer")
    for k, name in enumerate(_spread(list(templates), count)):
        where, words = _PLACES[k % len(_PLACES)]
        place = where(folder, templates[name])
        done = bench.luthier(words(settings, place), before=confined, args=(str(folder),))
        problem = _problem(done, folder, place)
        yield Trial(f"{name} in {place.name}, {words.__name__.strip('_')}", problem, {"refused": not problem})


def _spread(names: list[str], count: int) -> list[str]:
    """`count` of the names, from all over the list; all of them if it asks for more."""
    return [names[k * len(names) // count] for k in range(count)] if count < len(names) else names


def _in_model(folder: Path, text: str) -> Path:
    (folder / "base" / "chat_template.jinja").write_text(text, encoding="utf-8")
    return folder / "base"


def _in_file(folder: Path, text: str) -> Path:
    file = folder / "stranger's.jinja"
    file.write_text(text, encoding="utf-8")
    return file


def _train(settings: dict[str, Any], place: Path) -> list[str]:
    return ["train", *tasks.words({**settings, "template": "tokenizer" if place.is_dir() else str(place)})]


def _show(settings: dict[str, Any], place: Path) -> list[str]:
    template = "tokenizer" if place.is_dir() else str(place)
    data = f"{settings['dataset_dir']}/intent.json"
    return ["data", "show", data, f"--model={settings['model_name_or_path']}", f"--template={template}"]


_Where = Callable[[Path, str], Path]
_Words = Callable[[dict[str, Any], Path], list[str]]
_PLACES: list[tuple[_Where, _Words]] = [
    (_in_model, _train), (_in_file, _show), (_in_model, _show), (_in_file, _train),
]  # fmt: skip


def _problem(done: Done, folder: Path, place: Path) -> str:
    """What is wrong with how the command ended; "" when it refused as it should."""
    said = done.out + done.err
    left = [file.name for file in folder.rglob("*") if file.name in (CANARY, "run")]
    checks = {
        f"ended with {done.code}": done.code not in (1, 2),
        f"left behind {left}": bool(left),
        "a traceback": "Traceback" in said,
        "an address of memory, or an escape sequence": " at 0x" in said or "\x1b" in said,
        "the template's place is not named": str(place) not in done.err,
        "memory was used up": "more memory than there is" in said or "MemoryError" in said,
        f"a report of {len(said)} characters": len(said) > 5_000,
    }
    wrong = [what for what, is_so in checks.items() if is_so]
    return "; ".join(wrong) + (f": {said[-600:]}" if wrong else "")
