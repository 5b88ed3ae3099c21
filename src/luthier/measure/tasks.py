"""Which task a data set is, recognised from its answers, so that it is scored by what is right in it.

A classifier judged by ROUGE, or an extractor judged by its wording, gives a number that says nothing. Each
kind of task counts the rows that look like it; the first whose share is high enough is taken, unless the user
names another.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Protocol, cast

import yaml

from luthier.errors import DataError, UsageError
from luthier.measure import closed
from luthier.measure.strings import normalise
from luthier.types import Example, Message

Kind = Literal["perplexity", "calls", "choice", "extraction", "labels", "number", "text"]

# Share of the rows that must look like the task. Where tools are offered, not calling is a right answer too.
_ENOUGH: dict[Kind, float] = {
    "perplexity": 0.8,
    "calls": 0.2,
    "choice": 0.8,
    "extraction": 0.8,
    "labels": closed.COVER,
    "number": 0.8,
    "text": 0.0,
}
KINDS = tuple(_ENOUGH)
# More labels than this that are all numbers are quantities, not classes (a scale has few steps).
_SCALE = 10
_FIELD_SHARE = 0.1
_SHOWN = 5
_TRIPLES = (
    ("subject", "predicate", "object"),
    ("subject", "relation", "object"),
    ("head", "relation", "tail"),
    ("s", "p", "o"),
    ("h", "r", "t"),
    ("主体", "关系", "客体"),
    ("主语", "谓语", "宾语"),
    ("头实体", "关系", "尾实体"),
)
_OPTION = re.compile(r"(?:^|[\s。？?！!；;，,：:])[(（\[]?([A-H])[)）\].．、:：]", re.MULTILINE)
_LETTER = re.compile(r"[(（\[]?([A-H])[)）\]]?\s*(?:[.．、:：。)）].*)?", re.DOTALL)
_NUMBER = re.compile(r"[-−+]?[$¥€£]?\s?\d[\d,，]*(?:\.\d+)?\s?(?:%|％|[^\W\d]{1,6})?[.。]?")
_AFTER_REASONS = re.compile(r"####\s*[-−]?[$¥€£]?\d[\d,]*(?:\.\d+)?\s*$")
_FENCE = re.compile(r"\s*```\w*\n(.*?)\n?```\s*", re.DOTALL)
_CALL_TAGS = re.compile(r"</?tool_call>")


class Row(Protocol):
    """What is looked at: the question ("" in pre-training), the right answer, the tools offered."""

    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def tools(self) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A Row made of an Example."""

    question: str
    answer: str
    tools: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """What a data set asks for.

    labels: the closed answers as they are to be written, most frequent first, or the letters of options ·
    fields: of extracted records, most frequent first · triple: which fields are subject, predicate and
    object, or () · why, why_zh: one sentence for the report.
    """

    kind: Kind
    labels: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    triple: tuple[str, ...] = ()
    why: str = ""
    why_zh: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """How many rows fit a kind of task, what was found in them, and what of it is shown in the sentence."""

    fit: int
    labels: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


def recognise(rows: Sequence[Row], kind: str | None = None, known: Sequence[str] = ()) -> Task:
    """The task of a data set, or the task of this `kind` with its labels and fields.

    known: answers of the training data, where there are any; a small evaluation set shows few of the labels.
    Raises DataError where no row has an answer, UsageError where `kind` is unknown or no row fits it.
    """
    answered = [row for row in rows if row.answer.strip()]
    if not answered:
        raise DataError(f"none of {len(rows):,} rows has an answer to compare with -> rows with answers")
    if kind is not None:
        return _forced(answered, kind, known)
    for name, enough in _ENOUGH.items():
        found = _FIND[name](answered, known)
        if found.fit >= enough * len(answered):
            return _task(name, name, found, len(answered))
    raise AssertionError("every data set is at least free text")


def asked(example: Example) -> Asked:
    """An Example as a question and its answer: calls of tools as JSON; of a pair the chosen one.

    An answer with the verdict false is none to compare with and stands as "".
    """
    said = example.branches[0] if example.branches else ()
    before = [turn for turn in (*example.trunk, *said[:-1]) if turn.role != "system"]
    question = "\n\n".join(_text(turn) for turn in before)
    answer = _text(said[-1]) if said else example.answer or ""
    return Asked(question, "" if example.verdict is False else answer, example.tools)


def turns(example: Example) -> Iterator[Example]:
    """The Example as it ends, and before it one for each earlier turn in which the model is to call a tool.

    Conversations with tools end with a sentence; whether the right call was made is asked where it was made.
    """
    for place, turn in enumerate(example.trunk):
        if turn.role == "assistant" and turn.tool_calls and turn.train:
            yield Example(example.trunk[:place], ((turn,),), tools=example.tools, source=example.source)
    yield example


def value(answer: str) -> Any:
    """The JSON object or list that an answer is, or a code fence in it holds; None where it is none."""
    text = answer.strip()
    fenced = _FENCE.fullmatch(text)
    text = fenced[1].strip() if fenced else text
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def records(found: Any) -> list[dict[str, Any]]:
    """The objects of extracted JSON: itself, those of a list, or those of the only list of an object.

    {"spo_list": [{"subject": ...}]} is a list of triples, not an object with a field "spo_list".
    """
    if isinstance(found, dict) and len(found) == 1:
        inner = next(iter(found.values()))
        if isinstance(inner, list) and all(isinstance(one, dict) for one in inner):
            return inner
    if isinstance(found, dict):
        return [found]
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


# --- the kinds: (rows, known answers) -> what fits


def _perplexity(rows: Sequence[Row], known: Sequence[str]) -> _Found:
    return _Found(sum(not row.question for row in rows))


def _calls(rows: Sequence[Row], known: Sequence[str]) -> _Found:
    names = [name for row in rows if row.tools and (name := _called(row.answer))]
    return _Found(len(names), shown=_common(names))


def _choice(rows: Sequence[Row], known: Sequence[str]) -> _Found:
    fit, last = 0, "A"
    for row in rows:
        options = set(_OPTION.findall(row.question))
        letter = _LETTER.fullmatch(row.answer.strip())
        if letter and {"A", "B", letter[1]} <= options:
            fit, last = fit + 1, max(last, *_in_order(options))
    letters = tuple(chr(code) for code in range(ord("A"), ord(last) + 1)) if fit else ()
    return _Found(fit, labels=letters, shown=letters)


def _extraction(rows: Sequence[Row], known: Sequence[str]) -> _Found:
    values = [found for row in rows if (found := value(row.answer)) is not None]
    objects = [one for found in values for one in records(found)]
    counts = Counter(name for one in objects for name in one)
    fields = tuple(name for name, count in counts.most_common() if count >= _FIELD_SHARE * len(objects))
    return _Found(len(values), fields=fields, shown=fields[: 2 * _SHOWN])


def _labels(rows: Sequence[Row], known: Sequence[str]) -> _Found:
    answers = [row.answer.strip() for row in rows]
    found = closed.labels([*(text.strip() for text in known), *answers])
    if found is None or (len(found) > _SCALE and all(map(_NUMBER.fullmatch, found))):
        return _Found(0)
    return _among(answers, found)


def _number(rows: Sequence[Row], known: Sequence[str]) -> _Found:
    numbers = [text for row in rows if _is_number(text := row.answer.strip())]
    short = [text if len(text) <= 20 else text.rpartition("####")[2].strip() for text in numbers]
    return _Found(len(numbers), shown=_common(short))


def _free(rows: Sequence[Row], known: Sequence[str]) -> _Found:
    return _Found(len(rows))


_FIND: dict[Kind, Callable[[Sequence[Row], Sequence[str]], _Found]] = {
    "perplexity": _perplexity,
    "calls": _calls,
    "choice": _choice,
    "extraction": _extraction,
    "labels": _labels,
    "number": _number,
    "text": _free,
}


def _forced(rows: Sequence[Row], kind: str, known: Sequence[str]) -> Task:
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        instead = f'"{near[0]}"?' if near else ", ".join(KINDS)
        raise UsageError(f'"{kind}" is no kind of task -> {instead}')
    name = next(one for one in KINDS if one == kind)
    found = _all_labels(rows, known) if name == "labels" else _FIND[name](rows, known)
    if name == "perplexity":
        found = _Found(len(rows))
    if not found.fit:
        first = next(iter(_common([row.answer.strip() for row in rows])))[:80]
        instead = recognise(rows, None, known).kind
        raise UsageError(f'task "{kind}": no answer fits it, such as {first!r} -> "{instead}"')
    return _task(name, "asked", found, len(rows))


def _all_labels(rows: Sequence[Row], known: Sequence[str]) -> _Found:
    """Every short answer as a label, however rare; nothing where they are too many to be a closed set."""
    answers = [row.answer.strip() for row in rows]
    counts = Counter(text for text in (*(text.strip() for text in known), *answers) if text)
    names = [text for text, _ in counts.most_common() if len(text) <= closed.LONGEST and "\n" not in text]
    return _among(answers, names) if len(names) <= closed.MOST else _Found(0)


def _among(answers: Sequence[str], labels: Iterable[str]) -> _Found:
    """Labels that differ by case, width or a full stop only are one, in its most frequent form."""
    forms: dict[str, str] = {}
    for label in labels:
        forms.setdefault(normalise(label), label)
    names = tuple(forms.values())
    return _Found(sum(normalise(text) in forms for text in answers), labels=names, shown=names[:_SHOWN])


def _task(kind: Kind, sentence: str, found: _Found, rows: int) -> Task:
    triple = next((names for names in _TRIPLES if set(names) <= set(found.fields)), ())
    more = "" if len(found.shown) >= max(len(found.labels), len(found.fields)) else " …"
    shown = ", ".join(found.shown) + more
    numbers = {"fit": f"{found.fit:,}", "rows": f"{rows:,}", "count": f"{len(found.labels):,}"}
    why, why_zh = (
        _words()[sentence][language].format(shown=shown or "-", **numbers) for language in ("en", "zh")
    )
    return Task(kind, found.labels, found.fields, triple, why, why_zh)


def _text(turn: Message) -> str:
    calls = [{"name": call.name, "arguments": call.arguments} for call in turn.tool_calls]
    if not calls:
        return turn.content
    return json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)


def _called(answer: str) -> str:
    """The name of the first tool that an answer calls, or ""."""
    found = value(_CALL_TAGS.sub("", answer))
    first = found[0] if isinstance(found, list) and found else found
    if isinstance(first, dict) and "name" in first and ({"arguments", "parameters"} & set(first)):
        return str(first["name"])
    return ""


def _in_order(options: Iterable[str]) -> list[str]:
    """A, B, C ... as far as none is missing; a letter beyond a gap is no option."""
    return [letter for place, letter in enumerate(sorted(options)) if ord(letter) - ord("A") == place]


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text) or _AFTER_REASONS.search(text))


def _common(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text, _ in Counter(texts).most_common(_SHOWN))


@cache
def _words() -> dict[str, dict[str, str]]:
    text = files(__package__).joinpath("tasks.yaml").read_text("utf-8")
    return cast(dict[str, dict[str, str]], yaml.safe_load(text))
