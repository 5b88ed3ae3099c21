"""What is said to a judge, and what its reply means.

Texts are quoted as data: between lines with a code that occurs in none of them, and without the signs by
which servers cut turns ("<|im_end|>" in an answer would else end the judge's own question).
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import yaml

Form = Literal["compare", "grade"]
Language = Literal["en", "zh"]

LONGEST = 8000  # characters of one text that the judge reads; most local judges have little room
_LEFT_OUT = " […] "
_SIGNS = re.compile(r"<(?=[|｜]|/?(?:s|bos|eos|start_of_turn|end_of_turn|think)>|</?SYS>)|\[(?=/?INST\])")
_THOUGHT = re.compile(r"^.*</think(?:ing)?>|<think(?:ing)?>.*$", re.DOTALL)
_PREFIX = re.compile(r"^(?:answer|response|assistant|回答|答案)\s*")
_FIELD = {
    "compare": re.compile(
        r"better[\"']?\s*[:=：]\s*[\"']?(a|b|tie)(?![\w])"
        r"(?![\"']?\s*(?:[|/]|(?:or|and)\b|[,，、]\s*[\"']?(?:a|b|tie)\b))",
        re.IGNORECASE,
    ),
    "grade": re.compile(
        r"grade[\"']?\s*[:=：]\s*[\"']?([1-5])(?![\w.])"
        r"(?![\"']?\s*(?:[|/-]|(?:or|to)\b|[,，、]\s*[\"']?[1-5]\b))",
        re.IGNORECASE,
    ),
}
"""The verdict in words that are no valid JSON; not where a reply repeats what it may choose from."""
_READ = 20_000  # characters of a reply that are looked at, its last ones
_VALUES: dict[str, dict[str, str]] = {
    "compare": {"a": "A", "b": "B", "tie": "tie", "平局": "tie"},
    "grade": {str(grade): str(grade) for grade in range(1, 6)},
}


@dataclass(frozen=True)
class Texts:
    """What one question to the judge is about; second is None where one answer is graded."""

    question: str
    reference: str
    first: str
    second: str | None = None

    @property
    def form(self) -> Form:
        return "grade" if self.second is None else "compare"

    @property
    def shortened(self) -> bool:
        """Whether the judge reads less than there is."""
        return any(len(text) > LONGEST for text in self._all())

    def _all(self) -> tuple[str, ...]:
        return tuple(
            text for text in (self.question, self.reference, self.first, self.second) if text is not None
        )


@dataclass(frozen=True)
class Verdict:
    """value: "A", "B", "tie" or a grade "1" to "5" · reason: in the judge's words."""

    value: str
    reason: str = ""


def messages(texts: Texts, language: Language) -> list[dict[str, str]]:
    """The turns with which the judge is asked.

    The code of the delimiters is a hash of the texts: nobody can write a text that holds the hash of itself,
    and the same question is the same on another day.
    """
    wording = _wording()[texts.form][language]
    quoted = {
        "question": quote(texts.question),
        "reference": quote(texts.reference),
        "first": quote(texts.first),
        "second": quote(texts.second or ""),
    }
    mark = _mark(list(quoted.values()))
    return [
        {"role": "system", "content": wording["system"].format(mark=mark)},
        {"role": "user", "content": wording["user"].format(mark=mark, **quoted)},
    ]


def quote(text: str) -> str:
    """A text as data: without what servers read as the end of a turn, and not longer than LONGEST."""
    if len(text) > LONGEST:
        half = (LONGEST - len(_LEFT_OUT)) // 2
        text = text[:half] + _LEFT_OUT + text[-half:]
    return _SIGNS.sub(lambda found: found.group() + " ", text)


def read(reply: str, form: Form) -> Verdict | None:
    """The verdict of a reply, None where it holds none or several that differ.

    Fences, thoughts before the answer and words around the JSON are passed over. What is quoted inside the
    reason is no verdict. Without valid JSON, a single `"better": "A"` (cut off, say) is clear enough.
    """
    name = "better" if form == "compare" else "grade"
    text = _THOUGHT.sub("", reply)[-_READ:]
    found = [Verdict(value, _reason(one)) for one in _objects(text) if (value := _value(one.get(name), form))]
    if not found:
        found = [Verdict(_VALUES[form][value.lower()]) for value in _FIELD[form].findall(text)]
    return found[-1] if len({one.value for one in found}) == 1 else None


def _value(value: Any, form: Form) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return _VALUES[form].get(_PREFIX.sub("", text.strip().lower()))


def _reason(one: Mapping[str, Any]) -> str:
    reason = one.get("reason")
    return " ".join(reason.split())[:500] if isinstance(reason, str) else ""


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a text, outermost ones only."""
    decoder, at = json.JSONDecoder(strict=False), text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield found
        at = text.find("{", end)


def _mark(texts: Sequence[str]) -> str:
    whole = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(whole).hexdigest()[:16]


@functools.cache
def _wording() -> dict[str, dict[str, dict[str, str]]]:
    text = files("luthier.evaluate").joinpath("judge.yaml").read_text("utf-8")
    loaded: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(text)
    return loaded
