"""What every format needs to read a row's fields: the right type, the right name, and the reason when not."""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from luthier.data.sources import kind
from luthier.data.spec import DatasetSpec
from luthier.streams import legible
from luthier.types import Example, Message

MOST_NAMES, SHOWN_NAMES, LONGEST_NAME = 1000, 20, 80  # of a row's fields: compared, shown; characters
PROMPT_ONLY = frozenset({"ppo", "grpo", "predict"})  # stages that need no answer in the row


class RowProblem(Exception):
    """A row cannot become an Example: where in the row, and why. The caller counts it as a BadRow."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field, self.reason = legible(field), legible(reason)


@dataclass(slots=True)
class Fields:
    """A row seen through its data set's column names; `tally` counts what was converted, not rejected."""

    data: Mapping[str, Any]
    spec: DatasetSpec
    stage: str
    source: str
    tally: Counter[str] = field(default_factory=Counter)

    def name(self, key: str) -> str | None:
        """The column's name in the file; None when the data set does not have it."""
        return self.spec.columns.get(key)

    def get(self, key: str) -> Any:
        """The column's value, None when the data set or the row does not have it."""
        name = self.spec.columns.get(key)
        return None if name is None else self.data.get(name)

    def need(self, key: str) -> Any:
        """The column's value. Raises RowProblem when the data set names none or the row lacks it."""
        name = self.spec.columns.get(key)
        if name is None:
            raise RowProblem(
                key, f'no column is named for it -> add "{key}" to "columns" in dataset_info.json'
            )
        if name not in self.data:
            raise RowProblem(name, missing(name, self.data))
        return self.data[name]

    def text(self, value: Any, where: str) -> str:
        """Text as text, null as "", a number in words (counted). Raises RowProblem for everything else."""
        if isinstance(value, str):
            return sound(value, where)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RowProblem(where, f"is {kind(value)}, not text")
        self.tally[f"{where}: a number was read as text"] += 1
        return str(value)

    def column_text(self, key: str) -> str:
        """The text of a column that may be absent."""
        value = self.get(key)
        return "" if value is None else self.text(value, str(self.name(key)))

    def refuse_media(self) -> None:
        """Raises RowProblem when the row has an image, a video or a sound."""
        for key in ("images", "videos", "audios"):
            if self.get(key):
                raise RowProblem(str(self.name(key)), f"{key} are not supported yet")

    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """The functions that the assistant may call, parsed from JSON text or taken as they are."""
        value, name = self.get("tools"), str(self.name("tools"))
        if isinstance(value, str):
            value = parse_json(value, name) if value.strip() else None
        found = [value] if isinstance(value, Mapping) else value or []
        if not isinstance(found, list) or not all(isinstance(tool, Mapping) for tool in found):
            raise RowProblem(name, f"is {kind(value)}, not a JSON list of functions")
        return tuple(found)


def sound(text: str, where: str) -> str:
    """The text, when it can be encoded. Raises RowProblem for half of a surrogate pair (a broken emoji) and
    for bytes of the file that are not UTF-8, which the reader hands on as such halves."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what, byte = "half of a surrogate pair", ord(text[error.start]) - 0xDC00
        if 0x80 <= byte <= 0xFF:
            what = f"bytes that are not UTF-8 (0x{byte:02x})"
        raise RowProblem(where, f"holds {what} at character {error.start}") from error
    return text


def missing(name: str, data: Mapping[str, Any]) -> str:
    """The reason of a missing field, with the field that was probably meant."""
    names = [str(key)[:LONGEST_NAME] for key in islice(data, MOST_NAMES)]
    near = difflib.get_close_matches(name, names, 1, 0.6)
    return f'missing; did you mean "{near[0]}"?' if near else f"missing; the row has {shown_names(data)}"


def shown_names(data: Mapping[str, Any]) -> str:
    """The names of a row's fields, for a message."""
    names = ", ".join(str(key)[:LONGEST_NAME] for key in islice(data, SHOWN_NAMES))
    return names + (f", … ({len(data):,} in all)" if len(data) > SHOWN_NAMES else "") or "no fields"


def parse_json(text: str, where: str) -> Any:
    """The value of JSON text in a field. Raises RowProblem."""
    try:
        return json.loads(text, strict=False)
    except RecursionError:
        raise RowProblem(where, "is not valid JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise RowProblem(where, f"is not valid JSON: {error}") from error
    except ValueError:
        raise RowProblem(where, "is not valid JSON: a number of thousands of digits") from None


def truth(value: Any, where: str) -> bool:
    """A verdict: true or false, also as 1, 0 or the words (CSV knows only text). Raises RowProblem."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    found = words.get(str(value).strip().lower()) if isinstance(value, bool | int | str) else None
    if found is None:
        raise RowProblem(where, f"is {kind(value)}, not true or false")
    return found


def finish(fields: Fields, trunk: list[Message], branches: list[tuple[Message, ...]]) -> Example:
    """The Example of a row that has endings. Raises RowProblem when there is nothing to learn."""
    verdict = None
    if fields.name("kto_tag"):
        verdict = truth(fields.need("kto_tag"), str(fields.name("kto_tag")))
    if not any(message.train > 0 for branch in [trunk, *branches] for message in branch):
        raise RowProblem("", "nothing to learn: every message has weight 0")
    answer = branches[0][-1].content
    if verdict is not None or len(branches) > 1:  # what is compared or judged is the ending alone
        trunk = [replace(message, train=0.0) for message in trunk]
    if fields.stage in PROMPT_ONLY:
        branches = []
    return Example(tuple(trunk), tuple(branches), verdict, answer, fields.tools(), fields.source)


def prompt_only(fields: Fields, trunk: list[Message]) -> Example:
    """The Example of a row without an answer."""
    return Example(tuple(trunk), (), None, None, fields.tools(), fields.source)


def text_example(text: str, where: str, source: str) -> Example:
    """The Example of a pre-training text. Raises RowProblem when it is empty."""
    if not text.strip():
        raise RowProblem(where, "empty text")
    return Example((), ((Message("text", text, 1.0),),), source=source)
