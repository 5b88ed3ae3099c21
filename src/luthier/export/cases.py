"""Prompts to prove an exported file on: those of the run's own data, and hard ones beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from luthier.data import prepare, registry
from luthier.errors import DataError, TemplateError
from luthier.runs import Run
from luthier.runs.run import RESOLVED
from luthier.types import Example, Message, ToolCall

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer

FROM_DATA = 48
"""Prompts taken from the run's data; with the built-in ones they are at least 64."""
MOST = 1024  # tokens; a longer prompt is left out


@dataclass(frozen=True)
class Case:
    """A prompt: the conversation, its text and its tokens as training rendered them. source: "file:row", or
    "built-in:NAME"."""

    source: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    text: str
    ids: tuple[int, ...]


def cases(config: Config, renderer: Renderer, room: int) -> tuple[list[Case], list[str]]:
    """At least 64 prompts, and notes on those that could not be had.

    room: tokens of the longest prompt. A built-in conversation that the template refuses (one without tools,
    say) is left out with a note: what training could not render is not served either.
    """
    notes: list[str] = []
    found: list[Case] = []
    if config.run is not None:
        try:
            found = list(islice(_of_run(Path(config.run), renderer, min(room, MOST)), FROM_DATA))
        except DataError as error:
            notes.append(f"the run's data cannot be read any more: {str(error).splitlines()[0]}")
    refused: list[str] = []
    for source, messages, tools in _built_in():
        made = _case(source, messages, tools, renderer)
        if made is None or len(made.ids) > room:
            refused.append(source)
        else:
            found.append(made)
    if refused:
        notes.append(f"left out, because the template has no place for them: {', '.join(refused)}")
    return found, notes


def _of_run(run: Path, renderer: Renderer, room: int) -> Iterator[Case]:
    resolved = Run.open(run).read_json(RESOLVED)
    stage = resolved.get("stage") or "sft"
    names = resolved.get("dataset") or []
    for spec in registry.specs(names, resolved.get("dataset_dir") or "data", stage=stage):
        rows = (r for r in prepare.examples(spec, stage, limit=8 * FROM_DATA) if isinstance(r, Example))
        asked = (_asked(row, renderer) for row in rows if row.branches)
        fit = (made for made in asked if made is not None and len(made.ids) <= room)
        yield from islice(fit, -(-FROM_DATA // len(names)))


def _asked(row: Example, renderer: Renderer) -> Case | None:
    messages = [*row.trunk, *row.branches[0][:-1]]
    return _case(row.source, messages, row.tools, renderer) if messages else None


def _case(
    source: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], renderer: Renderer
) -> Case | None:
    try:
        ids = renderer.prompt(messages, tools)
        return Case(source, tuple(messages), tuple(tools), renderer.prompt_text(messages, tools), tuple(ids))
    except TemplateError:
        return None


def _built_in() -> Iterator[tuple[str, list[Message], list[Mapping[str, Any]]]]:
    text = files("luthier.export").joinpath("cases.yaml").read_text("utf-8")
    for row in yaml.safe_load(text):
        messages = [_message(role, said) for turn in row["turns"] for role, said in turn.items()]
        yield f"built-in:{row['name']}", messages, row.get("tools") or []


def _message(role: str, said: Any) -> Message:
    if isinstance(said, dict):
        return Message("assistant", "", tool_calls=(ToolCall(said["name"], said["arguments"]),))
    return Message(role, said)  # type: ignore[arg-type]
