"""dataset_info.json: misspelt keys, wrong values, names that do not match the rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_files.case import Case, asked, dumps, gpt, human, listed, pair, say

ROWS = [pair(1), pair(2)]
TALK = [{"conversations": [human("a"), gpt("b")]}]
PAIRS = [{"q": "a", "good": "b", "bad": "c"}]


def _info(text: str | bytes, name: str = "d") -> Callable[[Path], str]:
    """A writer of d.json and of dataset_info.json with this text."""

    def write(folder: Path) -> str:
        (folder / "d.json").write_text(dumps(ROWS), encoding="utf-8")
        (folder / "dataset_info.json").write_bytes(text.encode() if isinstance(text, str) else text)
        return name

    return write


def _entry(**entry: Any) -> Callable[[Path], str]:
    return _info(dumps({"d": entry}))


def _meant(key: str, wanted: str, part: str = "") -> Case:
    """A misspelt key: the rows are read without it, and a note names the one that was meant."""
    value: dict[str, Any] = {part: {key: "x"}} if part else {key: "x"}
    if part == "columns":
        value = {part: {"prompt": "instruction", "response": "output", key: "x"}}
    place = f"{part}." if part else ""
    said = f'"{place}{key}" in dataset_info.json is not read; did you mean "{place}{wanted}"?'
    return Case(listed(ROWS, **value), asked(1, 2), notes=[said])


_TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
_AS_TALK = {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
KEYS = {
    "formating": "formatting", "Formatting": "formatting", "format": "formatting", "rankings": "ranking",
    "colums": "columns", "column": "columns", "tag": "tags", "num_sample": "num_samples", "sub_set": "subset",
    "splits": "split", "file_sha": "file_sha1",
}  # fmt: skip
COLUMN_KEYS = {
    "promt": "prompt", "respnose": "response", "querry": "query", "mesages": "messages", "sytem": "system",
    "choosen": "chosen", "reject": "rejected", "kto_label": "kto_tag", "histroy": "history", "tool": "tools",
    "image": "images",
}  # fmt: skip
TAG_KEYS = {
    "role": "role_tag", "content": "content_tag", "user": "user_tag", "asistant_tag": "assistant_tag",
    "observation": "observation_tag", "function": "function_tag", "sytem_tag": "system_tag",
}  # fmt: skip
CASES: dict[str, Case] = {
    **{f"the key {key}": _meant(key, wanted) for key, wanted in KEYS.items()},
    **{f"the column key {key}": _meant(key, wanted, "columns") for key, wanted in COLUMN_KEYS.items()},
    **{f"the tag key {key}": _meant(key, wanted, "tags") for key, wanted in TAG_KEYS.items()},
    # --- the file itself
    "a comma too many": Case(
        _info('{"d": {"file_name": "d.json"},}'), refused="dataset_info.json: line 1: is not valid JSON"
    ),
    "a comment": Case(
        _info('{\n// mine\n"d": {"file_name": "d.json"}}'),
        refused="dataset_info.json: line 2: is not valid JSON",
    ),
    "an empty file": Case(_info(""), refused="dataset_info.json: "),
    "a list": Case(_info('[{"d": 1}]'), refused="not a table of data sets"),
    "a path for an entry": Case(_info('{"d": "d.json"}'), refused="not a table of data sets"),
    "a name twice": Case(
        _info('{"d": {"file_name": "d.json"},\n "d": {"file_name": "e.json"}}'),
        refused='line 2: "d" is given twice',
    ),
    "a key twice": Case(
        _info('{"d": {"file_name": "d.json",\n "file_name": "e.json"}}'),
        refused='line 2: "file_name" is given twice',
    ),
    "with a BOM": Case(_info('\ufeff{"d": {"file_name": "d.json"}}'), asked(1, 2)),
    "in UTF-16": Case(_info('{"d": {"file_name": "d.json"}}'.encode("utf-16")), asked(1, 2)),
    "in Latin-1": Case(
        _info('{"d": {"file_name": "d.json"}, "é": {"file_name": "é.json"}}'.encode("latin-1")),
        refused="dataset_info.json",
    ),
    "100,000 deep": Case(_info("[" * 100_000), refused="nested"),
    # --- what is read
    "an unknown name": Case(
        _info('{"data": {"file_name": "d.json"}}', "dat"), refused='did you mean "data"?'
    ),
    "a misspelt file_name": Case(
        _entry(file_nam="d.json"), refused='did you mean "file_name" by "file_nam"?'
    ),
    "a misspelt file": Case(_entry(file_name="dd.json"), refused='did you mean "d.json"?'),
    "an empty file_name": Case(_entry(file_name=""), refused='"file_name" is empty'),
    "file_name is a list": Case(_entry(file_name=["d.json"]), refused='"file_name" is a list, not text'),
    "file_name is itself": Case(_entry(file_name="dataset_info.json"), refused="cannot be used as data"),
    "file_name with spaces": Case(_entry(file_name=" d.json "), refused='did you mean "d.json"?'),
    "a folder above": Case(
        _entry(file_name="../../../../../../../etc/hostname"), refused="files of this kind"
    ),
    "an unknown format": Case(
        _entry(file_name="d.json", formatting="sharegtp"), refused='did you mean "sharegpt"?'
    ),
    "a script": Case(_entry(script_url="x.py"), refused="a loading script would run foreign code"),
    "ranking as text": Case(
        _entry(file_name="d.json", ranking="false"), refused='"ranking" is text -> write true or false'
    ),
    "num_samples of 0": Case(
        _entry(file_name="d.json", num_samples=0), refused='"num_samples" is a number: 0'
    ),
    "num_samples as text": Case(_entry(file_name="d.json", num_samples="5"), refused='"num_samples" is text'),
    "a split that is a list": Case(_entry(file_name="d.json", split=["train"]), refused='"split" is a list'),
    "a subset that is a number": Case(
        _entry(file_name="d.json", subset=5), refused='"subset" is a number: 5'
    ),
    "columns as a list": Case(
        _entry(file_name="d.json", columns=["instruction"]), refused='"columns" is a list, not a table'
    ),
    "a column that is a list": Case(
        _entry(file_name="d.json", columns={"prompt": ["a", "b"], "response": "output"}),
        refused='"columns.prompt" is a list',
    ),
    "a column that is a number": Case(
        _entry(file_name="d.json", columns={"prompt": 0}), refused='"columns.prompt" is a number: 0'
    ),
    "a tag that is true": Case(
        _entry(file_name="d.json", tags={"user_tag": True}), refused='"tags.user_tag" is true or false'
    ),
    "two roles of one name": Case(
        listed(TALK, **_AS_TALK, tags={**_TAGS, "assistant_tag": "human"}),
        refused='"tags.user_tag" and "tags.assistant_tag" are both "human"',
    ),
    "one column for question and answer": Case(
        listed(ROWS, columns={"prompt": "output", "response": "output"}),
        refused='"columns.prompt" and "columns.response" are both "output"',
    ),
    # --- names that the rows do not have
    "a wrong column name": Case(
        listed(ROWS, columns={"prompt": "instrution", "response": "output"}),
        (),
        [(1, "instrution", 'missing; did you mean "instruction"?'), (2, "instrution", "missing; did you")],
        ['"instrution", which dataset_info.json names for prompt; did you mean "instruction"?'],
    ),
    "columns that leave the answer out": Case(
        listed(ROWS, columns={"prompt": "instruction"}),
        (),
        [(1, "response", "no column is named for it"), (2, "response", "no column is named for it")],
        ['the column "output" of the rows is not read'],
    ),
    "a column that only some rows have": Case(
        listed(
            [{**pair(1), "system": "s"}, pair(2)],
            columns={"prompt": "instruction", "response": "output", "system": "system"},
        ),
        [("system: s", "question 1", "answer 1"), *asked(2)],
    ),
    "sharegpt rows read as alpaca": Case(
        listed(TALK), (), [(1, "instruction", "missing; the row has conversations")]
    ),
    "alpaca rows read as sharegpt": Case(
        listed(ROWS, **_AS_TALK),
        (),
        [(1, "conversations", "missing"), (2, "conversations", "missing")],
        ['no row has a column "conversations"'],
    ),
    "OpenAI's messages with sharegpt's tags": Case(
        listed(
            [{"messages": [say("user", "a"), say("assistant", "b")]}],
            formatting="sharegpt",
            columns={"messages": "messages"},
        ),
        (),
        [(1, "messages[0].from", "missing; the row has role, content")],
    ),
    "tags for other roles": Case(
        listed(TALK, **_AS_TALK, tags={**_TAGS, "user_tag": "user", "assistant_tag": "assistant"}),
        (),
        [(1, "conversations[0].from", 'unknown role "human"; accepted: user, assistant')],
    ),
    "tags that leave out a role": Case(
        listed(
            [{"conversations": [{"from": "system", "value": "s"}, human("a"), gpt("b")]}],
            **_AS_TALK,
            tags=_TAGS,
        ),
        (),
        [(1, "conversations[0].from", '"tags" of dataset_info.json leaves out system_tag')],
        ['rows have the role "system", and "tags" of dataset_info.json leaves out system_tag'],
    ),
    "pairs without ranking": Case(
        listed(PAIRS, columns={"prompt": "q", "chosen": "good", "rejected": "bad"}),
        stage="rm",
        refused="needs preference pairs",
    ),
    "ranking in another stage": Case(
        listed(PAIRS, ranking=True, columns={"prompt": "q", "chosen": "good", "rejected": "bad"}),
        refused="holds preference pairs",
    ),
}
