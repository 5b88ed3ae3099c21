"""What LLaMA-Factory's loader does with a row: its rules, row by row, without running it.

The rules are told in llamafactory.yaml, each with the place where it is from; here is when each applies. A
row is given as that loader sees it (`luthier.prepare.checks.arrow`), which is not always as it is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from luthier.data.spec import COLUMNS, TAGS, DatasetSpec

Effect = Literal["stops", "drops", "changes"]
Names = Iterator[str]
ROLE_TAGS = ("user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
MEDIA = ("images", "videos", "audios")
WEIGHTS = ("weight", "loss", "train")
_THOUGHT = re.compile(r"<think>\n.*?\n</think>\n\n", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """One fact. effect: "stops", "drops" or "changes" · what: what is so · where: file and function of
    LLaMA-Factory · instead: what to do · luthier: what it does with such a row, where it keeps it."""

    effect: Effect
    what: str
    where: str
    instead: str
    luthier: str = ""


@cache
def facts() -> tuple[str, dict[str, Rule]]:
    """(version that the rules are of, name -> rule), from llamafactory.yaml."""
    text = files("luthier.prepare.checks").joinpath("llamafactory.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    return raw["version"], {name: Rule(**rule) for name, rule in raw["rules"].items()}


class _Over(Exception):
    """The row goes no further: it is left out, or the run has ended. Its argument is the rule's name."""


@dataclass(frozen=True, slots=True)
class Loader:
    """LLaMA-Factory's loader for one data set and stage ("pt", "sft", "rm", "kto")."""

    formatting: str
    ranking: bool
    columns: Mapping[str, str | None]
    tags: Mapping[str, str | None]
    stage: str

    @classmethod
    def of(cls, spec: DatasetSpec, stage: str, listed: bool = True) -> Loader:
        """As an entry of dataset_info.json makes it; what that leaves out has LLaMA-Factory's defaults.

        listed: whether there is an entry; else it is taken to be written as luthier reads the file.
        """
        formatting = "alpaca" if spec.formatting == "text" else str(spec.formatting)
        columns, tags = dict(spec.columns), dict(spec.tags)
        if formatting == "openai" and listed:
            columns = columns if "columns" in spec.listed else dict(COLUMNS)
            tags = tags if "tags" in spec.listed else dict(TAGS)
        return cls(formatting, spec.ranking, columns, tags, stage)

    def needed(self) -> list[str]:
        """Columns that a row is asked for, and must have."""
        keys = ["images", "videos", "audios", *(["kto_tag"] if self.columns.get("kto_tag") else [])]
        if self.formatting == "alpaca":
            keys += ["prompt", "query", "history", "response", "system", "tools"]
        else:
            keys += ["messages", *(["system", "tools"] if self.formatting == "sharegpt" else [])]
        keys += ["chosen", "rejected"] if self.ranking else []
        named = [self.columns.get(key) for key in keys]
        return list(dict.fromkeys(name for name in named if name))

    def fate(self, row: Mapping[str, Any]) -> list[str]:
        """Names of the rules that apply to a row, in the order in which they do; [] for one that is kept as
        it is. A rule that stops or drops is the last."""
        found: list[str] = []
        try:
            for rule in self._converted(row):
                if rule not in found:
                    found.append(rule)
        except _Over as over:
            found.append(str(over))
        return found

    def get(self, row: Mapping[str, Any], key: str) -> Any:
        name = self.columns.get(key)
        return row.get(name) if name else None

    def _converted(self, row: Mapping[str, Any]) -> Names:
        yield from (_alpaca if self.formatting == "alpaca" else _messages)(self, row)
        if self.stage != "pt":
            _around(self, row)


def _stop_unless(holds: bool, rule: str) -> None:
    if not holds:
        raise _Over(rule)


# -- alpaca ----------------------------------------------------------------------------------------


def _alpaca(loader: Loader, row: Mapping[str, Any]) -> Names:
    """converter.py: AlpacaDatasetConverter, then the stage's processor."""
    parts = [part for part in (loader.get(row, "prompt"), loader.get(row, "query")) if part]
    _stop_unless(all(isinstance(part, str) for part in parts), "question_not_text")
    blank = not "\n".join(parts).strip()
    if loader.stage == "pt":
        if blank:
            yield "empty_text"
        return
    yield from _history(loader.get(row, "history"))
    yield from _endings(loader, row)
    if blank:
        yield "empty_question"


def _history(value: Any) -> Names:
    if not isinstance(value, list):
        if value:
            yield "history_unread"
        return
    for pair in value:
        _stop_unless(isinstance(pair, (list, str)) and len(pair) == 2, "history_pair")
        _stop_unless(None not in pair, "null_turn")
        _stop_unless(all(isinstance(text, str) for text in pair), "turn_not_text")


def _endings(loader: Loader, row: Mapping[str, Any]) -> Names:
    """The answers of an alpaca row."""
    verdict = loader.get(row, "kto_tag")
    if loader.stage == "kto":
        _stop_unless(isinstance(verdict, bool), "verdict_not_bool")
        yield from _judged(loader.get(row, "response"), verdict)
    elif loader.ranking:
        chosen, rejected = loader.get(row, "chosen"), loader.get(row, "rejected")
        _stop_unless(isinstance(chosen, str) and isinstance(rejected, str), "pair_not_text")
        yield from _compared(chosen, rejected)
    else:
        answer = loader.get(row, "response")
        _stop_unless(answer is not None, "null_answer")
        _stop_unless(isinstance(answer, str), "answer_not_text")
        if not answer.strip():
            yield "empty_answer"


def _judged(answer: Any, verdict: bool) -> Names:
    """processor/feedback.py tells good from bad by which of two texts is not empty."""
    if verdict and not answer:
        yield "empty_good_answer"
        return
    _stop_unless(answer is not None, "null_turn")
    _stop_unless(isinstance(answer, str), "turn_not_text")
    if not answer.strip():
        yield "empty_answer"


def _compared(chosen: str, rejected: str) -> Names:
    if chosen == rejected:
        yield "same_pair"
    elif not chosen.strip() or not rejected.strip():
        yield "empty_answer"


def _around(loader: Loader, row: Mapping[str, Any]) -> None:
    """Pictures, system prompt and tools, which are read while a row is written as text."""
    _stop_unless(not any(loader.get(row, key) for key in MEDIA), "media")
    system, tools = _system(loader, row), loader.get(row, "tools")
    _stop_unless(not system or isinstance(system, str), "system_not_text")
    if isinstance(tools, (list, dict)) and loader.formatting == "openai":
        tools = json.dumps(tools)
    if tools:
        _stop_unless(isinstance(tools, str) and isinstance(_json(tools), list), "tools")


def _system(loader: Loader, row: Mapping[str, Any]) -> Any:
    """The system prompt: the first message, if it is one, else the column."""
    messages = None if loader.formatting == "alpaca" else loader.get(row, "messages")
    if messages and _tag(loader, messages[0]) == "system_tag":
        return messages[0].get(str(loader.tags.get("content_tag")))
    return loader.get(row, "system")


def _json(text: str) -> Any:
    """The value of JSON text; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# -- messages --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Turn:
    """tag: of the role ("user_tag", …) · text: what is learnt or read."""

    tag: str
    text: Any


def _messages(loader: Loader, row: Mapping[str, Any]) -> Names:
    """converter.py: SharegptDatasetConverter, OpenAIDatasetConverter, then the stage's processor."""
    given = loader.get(row, "messages")
    _stop_unless(isinstance(given, list) and all(isinstance(one, Mapping) for one in given), "no_messages")
    offset = int(bool(given) and _tag(loader, given[0]) == "system_tag")
    messages: Sequence[Mapping[str, Any]] = given[offset:]
    turns = _aligned(loader, messages)
    _ordered(loader, turns)
    if loader.stage == "pt":
        yield from _one(turns[0], pretraining=True)
        return
    yield from _last(loader, row, turns)
    yield from _passed_over(loader, messages)
    good = loader.stage == "kto" and loader.get(row, "kto_tag")
    for turn in turns[:-1] if good and not turns[-1].text else turns:
        yield from _one(turn, pretraining=False)
    plain = loader.formatting == "openai" and not loader.get(row, "tools")
    if plain and "detailed thinking o" not in str(_system(loader, row)):
        yield "thinking_off"


def _tag(loader: Loader, message: Mapping[str, Any]) -> str:
    """The tag that names a message's role; "" for none."""
    role = message.get(str(loader.tags.get("role_tag")))
    return next((tag for tag in ROLE_TAGS if role is not None and loader.tags.get(tag) == role), "")


def _aligned(loader: Loader, messages: Sequence[Mapping[str, Any]]) -> list[_Turn]:
    """Turns as the converter makes them: OpenAI's tool messages are joined, and calls become text."""
    openai, turns, answers = loader.formatting == "openai", list[_Turn](), list[Any]()
    for message in messages:
        tag, text = _tag(loader, message), message.get(str(loader.tags.get("content_tag")))
        if openai and tag in ("assistant_tag", "function_tag") and message.get("tool_calls"):
            tag, text = "function_tag", _calls(message["tool_calls"])
        if openai and tag == "observation_tag":
            answers.append(text)
            continue
        if answers:
            turns.append(_joined(answers))
            answers = []
        if not tag:
            raise _Over("unknown_role_stops" if openai else "unknown_role")
        turns.append(_Turn(tag, text))
    return turns


def _joined(answers: Sequence[Any]) -> _Turn:
    _stop_unless(None not in answers, "null_turn")
    _stop_unless(all(isinstance(text, str) for text in answers), "turn_not_text")
    return _Turn("observation_tag", "\n".join(answers))


def _calls(calls: Any) -> str:
    """OpenAI's tool calls as the JSON text that they become."""
    listed = isinstance(calls, list) and all(isinstance(call, Mapping) for call in calls)
    _stop_unless(listed and all("function" in call for call in calls), "call_not_json")
    return json.dumps([call["function"] for call in calls], default=str)


def _ordered(loader: Loader, turns: Sequence[_Turn]) -> None:
    """Questions at even places, answers at odd ones, and the right one last."""
    broken = "no_first_turn" if loader.stage == "pt" else ""
    accepted = (("user_tag", "observation_tag"), ("assistant_tag", "function_tag"))
    for place, turn in enumerate(turns):
        _stop_unless(turn.tag in accepted[place % 2], broken or "role_order")
    if loader.ranking:
        _stop_unless(len(turns) % 2 == 1, broken or ("ends_with_answer" if turns else "empty_conversation"))
        return
    _stop_unless(bool(turns), broken or "empty_conversation")
    _stop_unless(len(turns) % 2 == 0, broken or "ends_with_question")


def _last(loader: Loader, row: Mapping[str, Any], turns: Sequence[_Turn]) -> Names:
    """What the stage asks of the answer."""
    if loader.ranking:
        chosen, rejected = loader.get(row, "chosen"), loader.get(row, "rejected")
        _stop_unless(isinstance(chosen, Mapping) and isinstance(rejected, Mapping), "pair_not_text")
        tags = [_tag(loader, one) for one in (chosen, rejected)]
        _stop_unless(all(tags), "pair_role_unknown")
        if not {*tags} <= {"assistant_tag", "function_tag"}:
            yield "pair_role"
        texts = [one.get(str(loader.tags.get("content_tag"))) for one in (chosen, rejected)]
        _stop_unless(None not in texts, "null_turn")
        _stop_unless(all(isinstance(text, str) for text in texts), "turn_not_text")
        yield from _compared(*texts)
    elif loader.stage == "kto":
        verdict = loader.get(row, "kto_tag")
        _stop_unless(isinstance(verdict, bool), "verdict_not_bool")
        if verdict and not turns[-1].text:
            yield "empty_good_answer"


def _passed_over(loader: Loader, messages: Sequence[Mapping[str, Any]]) -> Names:
    """What stands in the messages and is not read."""
    answers = [one for one in messages if _tag(loader, one) in ("assistant_tag", "function_tag")]
    weights = [one[key] for one in answers for key in WEIGHTS if one.get(key) is not None]
    if any(weight in (0, False) for weight in weights):
        yield "weights_unread"
    if any(one.get("reasoning_content") for one in answers):
        yield "reasoning_unread"
    calls = [call for one in answers for call in one.get("tool_calls") or ()]
    if loader.formatting == "sharegpt":
        if calls:
            yield "calls_unread"
        return
    if messages and _tag(loader, messages[-1]) == "observation_tag":
        yield "last_tool_unread"
    arguments = [call["function"].get("arguments") for call in calls if isinstance(call["function"], Mapping)]
    if any(isinstance(one, str) for one in arguments):
        yield "arguments_twice"


def _one(turn: _Turn, pretraining: bool) -> Names:
    """The text of a turn, as the template's formatter takes it."""
    _stop_unless(turn.text is not None, "null_turn")
    _stop_unless(isinstance(turn.text, str), "turn_not_text")
    if pretraining:
        return
    if turn.tag == "function_tag":
        _call(turn.text)
    elif not turn.text.strip():
        yield "empty_answer" if turn.tag == "assistant_tag" else "empty_question"


def _call(text: str) -> None:
    """formatter.py: FunctionFormatter takes thoughts away, then reads JSON."""
    tagged = _CALL.search(text)
    value = _json(tagged[1] if tagged else _THOUGHT.sub("", text))
    calls = value if isinstance(value, list) else [value]
    whole = all(isinstance(one, Mapping) and {"name", "arguments"} <= one.keys() for one in calls)
    _stop_unless(whole, "call_not_json")
