"""Which format rows are in, when nobody said so; and what a declared format would leave unread."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from luthier.data.formats.fields import MOST_NAMES, RowProblem, parse_json, shown_names
from luthier.data.spec import COLUMNS, INFO, OPENAI_TAGS, TAG_ROLES, TAGS, DatasetSpec
from luthier.errors import DataError
from luthier.types import BadRow, Row

Names = dict[str, str | None]
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
PROMPTS = (
    "instruction",
    "prompt",
    "question",
    "query",
    "input",
    "指令",
    "问题",
    "提问",
    "问",
    "用户输入",
    "输入",
)
ANSWERS = (
    *("output", "response", "answer", "completion", "target", "reply", "回答", "答案", "答", "回复", "输出"),
    *("label", "category", "class", "intent", "标签", "类别", "分类", "意图"),
)
LOOK_AT = 100  # messages of a row
LONGEST_COLUMN = 64  # characters of a name
SENTENCE_ENDS = ("。", "！", "？", "；", "…", ".", "!", "?")
QUERIES = ("input", "context", "输入", "上下文")
TEXTS = ("text", "content", "raw_content", "document", "正文", "文本", "内容")
VERDICTS = ("kto_tag", "label")
ROLE_NAMES: dict[str, tuple[str, ...]] = {
    "user_tag": ("user", "human", "prompter"),
    "assistant_tag": ("assistant", "gpt", "bot", "model", "chatgpt"),
    "observation_tag": ("tool", "observation", "function_response", "ipython"),
    "function_tag": ("function_call", "function"),
    "system_tag": ("system", "developer"),
}
DEFAULT_NAMES = {
    "query": "input",
    "response": "output",
    "history": "history",
    "system": "system",
    "tools": "tools",
}


def guess(rows: Sequence[Mapping[str, Any]]) -> tuple[str, Names, Names, str]:
    """(formatting, columns, tags, why) recognised from some rows.

    Pairs are in `columns` as chosen and rejected, KTO verdicts as kto_tag. Raises DataError when the rows
    look like nothing known, naming their columns and what to write in dataset_info.json.
    """
    seen: dict[str, Any] = {}
    for row in rows:
        for key, value in islice(row.items(), MOST_NAMES):
            if seen.get(key) in (None, "", []):
                seen[key] = value
    columns: Names = dict.fromkeys(COLUMNS)
    for key in ("chosen", "rejected", "tools", "system", "images", "videos", "audios"):
        columns[key] = key if key in seen else None
    if columns["rejected"] is None:
        columns["chosen"] = None
    columns["kto_tag"] = next((name for name in VERDICTS if isinstance(seen.get(name), bool)), None)
    return _as_messages(rows, seen, columns) or _as_fields(rows, seen, columns)


def _as_messages(
    rows: Sequence[Mapping[str, Any]], seen: Mapping[str, Any], columns: Names
) -> tuple[str, Names, Names, str] | None:
    candidates = [name for name in (*MESSAGES, "prompt", *seen) if _is_conversation(seen.get(name))]
    pair = _is_conversation(seen.get("chosen")) and columns["rejected"]
    found = next((name for name in candidates if name not in ("chosen", "rejected", "tools")), None)
    if found is None and not (pair and not _first(PROMPTS, seen)):
        return None
    columns["messages"] = found
    messages = _messages(rows, found or "chosen")
    plain = any("role" in message for message in messages)
    tags: Names = dict(OPENAI_TAGS if plain else TAGS)
    names = {str(message.get(str(tags["role_tag"]))) for message in messages}
    for tag, aliases in ROLE_NAMES.items():
        tags[tag] = next((alias for alias in aliases if alias in names), tags[tag])
    formatting = "openai" if plain else "sharegpt"
    where = f'"{found}" holds' if found else '"chosen" and "rejected" hold'
    return (
        formatting,
        columns,
        tags,
        f'{where} messages with "{tags["role_tag"]}" and "{tags["content_tag"]}"',
    )


def _as_fields(
    rows: Sequence[Mapping[str, Any]], seen: Mapping[str, Any], columns: Names
) -> tuple[str, Names, Names, str]:
    numbers_and_texts = (str, int, float)
    texts = [k for k, v in seen.items() if isinstance(v, numbers_and_texts) and not isinstance(v, bool)]
    answer = _first([name for name in ANSWERS if name != columns["kto_tag"]], seen)
    prompt = _first(PROMPTS, seen) or (_first(TEXTS, seen) if answer else None)
    if prompt is None and answer is None and columns["chosen"] is None:
        only = _first(TEXTS, seen) or (texts[0] if len(texts) == 1 == len(seen) else None)
        if only is not None:
            _refuse_data([only], rows)
            columns |= {"prompt": only, "kto_tag": None}
            return "text", columns, dict(TAGS), f'"{only}" holds text and there is no answer'
    why = ""
    if (prompt is None or answer is None) and len(texts) == 2 == len(seen) and columns["chosen"] is None:
        prompt = prompt or next(name for name in texts if name != answer)
        answer = answer or next(name for name in texts if name != prompt)
        why = "the only two columns are "
        _refuse_data([prompt, answer], rows)
    if prompt is None or (answer is None and columns["chosen"] is None):
        raise DataError(
            f"the rows' format cannot be told from their columns ({shown_names(seen)})"
            ' -> name them in dataset_info.json, e.g. "columns": {"prompt": "...", "response": "..."},'
            " or call them instruction and output"
        )
    query = next((name for name in QUERIES if name in seen and name not in (prompt, answer)), None)
    history = "history" if "history" in seen else None
    columns |= {"prompt": prompt, "query": query, "response": answer, "history": history}
    ends = '"chosen" and "rejected"' if columns["chosen"] else f'"{answer}"'
    return "alpaca", columns, dict(TAGS), f'{why}"{prompt}" (question) and {ends} (answer)'


def _refuse_data(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises DataError when a column's name is a sentence, or one of the column's own values: then a table
    has no header, and its first row would be lost as one."""
    for name in names:
        sentence = len(name) > LONGEST_COLUMN or name.rstrip().endswith(SENTENCE_ENDS)
        if sentence or any(row.get(name) == name for row in rows):
            raise DataError(
                f"line 1 looks like a row, not like the names of columns ({name[:LONGEST_COLUMN]!r})"
                " -> write a first line such as instruction,output"
            )


def _first(names: Sequence[str], seen: Mapping[str, Any]) -> str | None:
    """The column that one of the names means, whatever its case."""
    lower = {str(key).lower(): str(key) for key in seen}
    return next((lower[name] for name in names if name in lower), None)


def _is_conversation(value: Any) -> bool:
    if isinstance(value, str):  # a table's cell
        return value.lstrip().startswith("[{") and ('"role"' in value or '"from"' in value)
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and bool({"role", "from"} & set(value[0]))
    )


def _messages(rows: Iterable[Mapping[str, Any]], column: str) -> list[Mapping[str, Any]]:
    """All messages of a column, from lists or JSON text; what is neither, the reader will reject."""
    found: list[Mapping[str, Any]] = []
    for row in rows:
        value = row.get(column)
        if isinstance(value, str) and _is_conversation(value):
            try:
                value = parse_json(value, column)
            except RowProblem:
                continue
        if isinstance(value, list):
            found += [message for message in value[:LOOK_AT] if isinstance(message, Mapping)]
    return found


def settle(spec: DatasetSpec, rows: Iterable[Row | BadRow], stage: str | None = None) -> DatasetSpec:
    """The spec with its format known, and with notes on what will not be read, from looking at some rows.

    Raises DataError when no format was declared and none can be recognised.
    """
    rows = list(rows)
    data = [row.data for row in rows if isinstance(row, Row)]
    notes = list(spec.notes)
    if spec.formatting is None:
        if not data:
            why = next((f" ({row.source}: {row.reason})" for row in rows if isinstance(row, BadRow)), "")
            raise DataError(f"{spec.name}: none of its first rows can be read{why} -> look at the file")
        try:
            formatting, columns, tags, why = guess(data)
        except DataError as error:
            raise DataError(f"{spec.name}: {error}") from error
        ranking = columns["chosen"] is not None
        kind = " preference pairs" if ranking else " KTO verdicts" if columns["kto_tag"] else ""
        notes.append(f"{spec.name}: read as {formatting}{kind}: {why}")
        spec = replace(spec, formatting=formatting, columns=columns, tags=tags, ranking=ranking)
    if data:
        notes += _unread_columns(spec, data) + _unread_roles(spec, data) + _unread_in_pretraining(spec, stage)
    return replace(spec, notes=tuple(dict.fromkeys(notes)))


def _unread_columns(spec: DatasetSpec, data: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on columns that the rows have and the spec leaves out, and on names that the rows do not have."""
    present = {
        key for row in data for key, value in islice(row.items(), MOST_NAMES) if value not in (None, "", [])
    }
    every = {key for row in data for key in islice(row, MOST_NAMES)}
    used = {name for name in spec.columns.values() if name}
    plain = spec.formatting == "alpaca" and not spec.ranking
    notes = []
    for key in tuple(DEFAULT_NAMES) if plain else ("system", "tools"):
        name = DEFAULT_NAMES[key]
        if not spec.columns.get(key) and name in present and name not in used:
            notes.append(
                f'{spec.name}: the column "{name}" of the rows is not read, as {INFO} does not list it'
                f' -> add "{key}": "{name}" to "columns" (list every column there) if it should be'
            )
    for key, wanted in spec.columns.items():
        if "columns" in spec.listed and wanted and wanted not in every:
            near = difflib.get_close_matches(wanted, [str(name) for name in every], 1, 0.6)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            notes.append(f'{spec.name}: no row has a column "{wanted}", which {INFO} names for {key}{hint}')
    return notes


def _unread_roles(spec: DatasetSpec, data: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on roles that stand in the rows but that the tags leave out: such rows are bad rows."""
    column, role_key = spec.columns.get("messages"), spec.tags.get("role_tag")
    if spec.formatting not in ("sharegpt", "openai") or not column or not role_key:
        return []
    names = {str(message.get(role_key)) for message in _messages(data, column) if role_key in message}
    accepted = {name for tag, name in spec.tags.items() if tag in TAG_ROLES and name}
    notes = []
    for name in sorted(names - accepted - {"developer"}):
        tag = next(
            (tag for tag, aliases in ROLE_NAMES.items() if name in aliases and not spec.tags.get(tag)), None
        )
        if tag:
            notes.append(
                f'{spec.name}: rows have the role "{name}", and "tags" of {INFO} leaves out {tag}:'
                f' such rows are rejected -> add "{tag}": "{name}"'
            )
    return notes


def _unread_in_pretraining(spec: DatasetSpec, stage: str | None) -> list[str]:
    if stage != "pt":
        return []
    if spec.formatting in ("sharegpt", "openai"):
        return [f"{spec.name}: pre-training reads only the first turn of each row"]
    answer = spec.columns.get("response")
    if spec.formatting == "alpaca" and answer and answer != spec.columns.get("prompt"):
        return [
            f'{spec.name}: pre-training reads "{spec.columns.get("prompt")}" and not the answer "{answer}"'
        ]
    return []
