"""`${key}` and `${oc.env:NAME}` in values.

The two kinds of OmegaConf's interpolation that configurations use: another key's value (`${seed}`, `${a.b}`,
`${a[0]}`), and an environment variable with an optional default (`${oc.env:NAME,default}`). A string that is
nothing but a reference to a key gets that key's value, whatever its type; `\\${` is a literal `${`.
Everything else is refused by name: other resolvers run code or parse text, and a variable whose name or value
is a secret would be kept with the run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from luthier import redact

MOST = 100_000  # values looked at in one configuration, so that references of references stay small
DEEPEST = 50  # references that lead from one to the next
LONGEST = 1 << 20  # characters of one text
_REFERENCE = re.compile(
    r"\\(?P<literal>\$\{)"
    r"|\$\{\s*oc\.env:\s*(?P<variable>[A-Za-z_]\w*)\s*(?P<default>,[^${}]*)?\}"
    r"|\$\{\s*(?P<path>[A-Za-z_][\w-]*(?:\.[\w-]+|\[\d+\])*)\s*\}"
    r"|\$\{\s*(?P<other>[^}\n]{0,40})"
)


class Refused(Exception):
    """Why a value cannot be filled in, and (after " -> ") what to write instead."""


class Interpolation:
    """The values of a configuration with all references filled in, one top-level key at a time."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values, self._left = values, MOST
        self._working: list[str] = []

    def value(self, key: str) -> Any:
        """The value of `key`. Raises Refused."""
        del self._working[:]
        return self._at(key, [key])

    def _at(self, shown: str, path: list[str]) -> Any:
        if shown in self._working:
            circle = " -> ".join((*self._working[self._working.index(shown) :], shown)).replace(" -> ", ", ")
            raise Refused(f"refers to itself ({circle}) -> a value of its own")
        if len(self._working) == DEEPEST:
            raise Refused(f"more than {DEEPEST} references lead from one to the next -> fewer references")
        self._working.append(shown)
        found: Any = self._values
        for part in path:
            found = self._filled(found) if isinstance(found, str) else found
            if isinstance(found, dict | Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise Refused(
                    f"Interpolation key '{shown}' not found -> a key that is there, or \\${{ for the text"
                )
        found = self._filled(found)
        self._working.pop()
        return found

    def _filled(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Refused(f"references unfold to more than {MOST:,} values -> fewer references")
        if isinstance(value, dict):
            return {key: self._filled(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._filled(one) for one in value]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if value == "???":
            raise Refused("is ???, a value that must still be given -> a value")
        return self._text(value) if isinstance(value, str) and "${" in value else value

    def _text(self, text: str) -> Any:
        whole = _REFERENCE.fullmatch(text)
        if whole and not whole["literal"]:
            return self._reference(whole)
        parts, at, length = [], 0, 0
        for match in _REFERENCE.finditer(text):
            found = self._reference(match)
            if isinstance(found, dict | list):
                raise Refused(f"{match[0]} is a {type(found).__name__} inside text -> a text or a number")
            parts += [text[at : match.start()], str(found)]
            at, length = match.end(), length + len(parts[-1])
            if length > LONGEST:
                raise Refused(f"references unfold to more than {LONGEST:,} characters -> fewer references")
        return "".join((*parts, text[at:]))

    def _reference(self, match: re.Match[str]) -> Any:
        if match["literal"]:
            return "${"
        if match["variable"]:
            return _variable(match["variable"], match["default"])
        if match["path"]:
            return self._at(match["path"], re.split(r"[.\[]", match["path"].replace("]", "")))
        name = re.match(r"[\w.]+(?=:)", match["other"])
        what = f"the resolver `{name[0]}`" if name else f"`{match[0]}`"
        raise Refused(f"{what} is not read -> ${{KEY}}, ${{oc.env:NAME}}, or \\${{ for the text itself")


def _variable(name: str, default: str | None) -> str | None:
    """An environment variable's value; never that of a secret. Raises Refused."""
    if redact.secret_name(name):
        raise Refused(
            f"${name} is a secret, which would be kept with the run -> leave it out: what needs it reads it "
            "from the environment"
        )
    found = os.environ.get(name)
    if found is not None:
        return found
    if default is None:
        raise Refused(f"the environment variable {name} is not set -> set it, or ${{oc.env:{name},DEFAULT}}")
    text = default[1:].strip()
    return None if text == "null" else text.strip("'\"")
