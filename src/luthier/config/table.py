"""The table of all names (keys, foreign keys, environment variables) as text, JSON or Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from luthier.config import compat
from luthier.config.schema import KEYS, OWN, SECTIONS, VERB_SECTIONS, Key

_SECTION_TITLES = {
    "model": "Model",
    "data": "Data",
    "method": "What is learnt",
    "train": "Training",
    "generate": "Writing answers",
    "export": "Export",
    "luthier": "Program",
}


@dataclass(frozen=True)
class Entry:
    """One name. status: own, same, translated, ignored or refused · text: what it does, or why not."""

    name: str
    status: str
    section: str
    default: Any
    choices: tuple[Any, ...]
    text: str
    instead: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = asdict(self)
        plain["default"] = list(self.default) if isinstance(self.default, tuple) else self.default
        return {**plain, "choices": list(self.choices)}


def entries() -> list[Entry]:
    """Every name once: the schema in its order, then foreign keys and variables by name."""
    own = [_own(key) for key in KEYS.values()]
    foreign = [_foreign(row, "other keys") for _, row in sorted(compat.keys().items())]
    return own + foreign + [_foreign(row, "environment") for _, row in sorted(compat.environment().items())]


def _own(key: Key) -> Entry:
    status = "own" if key.name in OWN else "same"
    return Entry(key.name, status, key.section, key.default, key.choices, key.help)


def _foreign(row: compat.Row, section: str) -> Entry:
    if row.status == "translated":
        values = ", ".join(f"{k} = {_shown(v)}" for k, v in row.values.items())
        text = f"means {row.to}" + (f" ({values})" if values else "")
        return Entry(row.name, row.status, section, None, (), text, row.to)
    return Entry(row.name, row.status, section, row.default, (), row.because, row.use)


def find(name: str) -> list[Entry]:
    """The entry of that name, or all whose name contains it."""
    known = entries()
    wanted = name.removeprefix("--").removeprefix("$").replace("-", "_").lower()
    exact = [e for e in known if e.name.lower() == wanted]
    return exact or [e for e in known if wanted in e.name.lower()]


def lines(found: Iterable[Entry], width: int) -> list[str]:
    """`name  status  default: what it does`, wrapped to `width` columns."""
    out = []
    for e in found:
        shown = "" if e.section in ("other keys", "environment") else f"[{_shown(e.default)}] "
        choices = f" One of: {', '.join(str(c) for c in e.choices)}." if e.choices else ""
        instead = f" Instead: {e.instead}." if e.instead and e.status == "refused" else ""
        head = f"{e.name:<34} {e.status:<11}"
        text = f"{shown}{e.text}{choices}{instead}"
        out += textwrap.wrap(text, max(width, 70), initial_indent=head, subsequent_indent=" " * 46)
    return out


def verb_help(verb: str, width: int) -> list[str]:
    """The keys that a verb reads, grouped."""
    out = []
    for section in VERB_SECTIONS[verb]:
        out += ["", f"{_SECTION_TITLES[section]}:"]
        for key in KEYS.values():
            if key.section == section:
                choices = f" ({'|'.join(str(c) for c in key.choices)})" if key.choices else ""
                text = f"{key.help}{choices} [{_shown(key.default)}]"
                head = f"  --{key.name} "
                out += textwrap.wrap(
                    text,
                    max(width, 70),
                    initial_indent=f"{head:<36}",
                    subsequent_indent=" " * 36,
                    break_on_hyphens=False,
                )
    return out


def markdown() -> str:
    """docs/keys.md."""
    known = entries()
    out = [_INTRODUCTION]
    for section in SECTIONS:
        out += [f"\n## {_SECTION_TITLES[section]}\n", "| key | default | what it does |", "|---|---|---|"]
        for e in (e for e in known if e.section == section):
            choices = " One of " + ", ".join(f"`{c}`" for c in e.choices) + "." if e.choices else ""
            name = f"`{e.name}`" + (" \\*" if e.status == "own" else "")
            out.append(f"| {name} | `{_shown(e.default)}` | {_cell(e.text)}{choices} |")
    for section, title in (("other keys", "Other names of keys"), ("environment", "Environment variables")):
        out += [f"\n## {title}\n", "| name | status | why, or what it means | use |", "|---|---|---|---|"]
        for e in (e for e in known if e.section == section):
            use = _cell(e.instead) if e.status == "refused" else ""
            out.append(f"| `{e.name}` | {e.status} | {_cell(e.text)} | {use} |")
    return "\n".join(out) + "\n"


_INTRODUCTION = """# Keys

Made by `luthier keys --markdown`; a test fails when it is not up to date.

Every key may be written in a YAML or JSON file, as `key=value`, `--key value` or `--key=value`, mixed; the
command line wins over files. Names, defaults and meanings are LLaMA-Factory's; keys with a \\* are Luthier's
own. `null` means that the program decides and says what it decided (`luthier check`).

Names that are no keys of their own have one of these statuses:

- **translated**: another name of a key, usually an older one;
- **ignored**: has no effect here, for the reason given; a note says so when it asks for something;
- **refused**: cannot be honoured; the run does not start, and the last column says what to write;
- **same** (environment): works as it does elsewhere."""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(v) for v in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
