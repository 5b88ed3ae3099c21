"""Options of a verb that are no keys of the configuration: `--task labels` of `luthier eval`."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.errors import UsageError


def take(words: Sequence[str], name: str) -> tuple[list[str], str | None]:
    """Remove `--name VALUE`, `--name=VALUE` or `name=VALUE`: the other words, and VALUE or None."""
    rest: list[str] = []
    value: str | None = None
    left = list(words)
    while left:
        word = left.pop(0)
        if word == f"--{name}":
            if not left:
                raise UsageError(f"--{name}: needs a value")
            value = left.pop(0)
        elif word.startswith((f"--{name}=", f"{name}=")):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, value
