"""Nothing is lost: for any rows and any pipeline, what is written and what the ledger holds are the input."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.prepare import clean, journal
from luthier.prepare.span import Change, apply
from luthier.prepare.steps import STEPS

# Pieces that each step finds something in, glued together at random.
PIECES = st.sampled_from(
    "<p>x</p>|ＡＢＣ|１３800138000|13800138000|a@mail-host.cn|cafÃ©|é|&amp;|<b>|```\n<i>|“q”—…|The cats |"
    "電腦|去死|ha ha ha ha ha ha ha ha ha |\u200b|\x07|\r\n|\ud83d|\udc80|😀| |无|{{name}}|- item\n|1.1"
    "".split("|")
)
TEXTS = st.lists(PIECES, max_size=6).map("".join)
ODD = st.one_of(
    st.none(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.lists(TEXTS, max_size=2)
)
FIELDS = st.one_of(TEXTS, TEXTS, TEXTS, ODD)
ALPACA = st.fixed_dictionaries(
    {"instruction": FIELDS, "output": FIELDS},
    optional={"input": FIELDS, "system": FIELDS, "history": FIELDS, "note": FIELDS},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "nobody"]), "content": FIELDS}
)
CHATS = st.fixed_dictionaries(
    {"messages": st.one_of(st.lists(MESSAGE, max_size=4), ODD)}, optional={"note": FIELDS, "tools": FIELDS}
)
TEXT = st.fixed_dictionaries({"text": FIELDS})
FIRST: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "What is this?", "output": "A row that says which format they have."},
    "chat": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "text": {"text": "A document of its own, which stays."},
}
FILES = st.one_of(
    st.tuples(st.just("alpaca"), st.lists(ALPACA, max_size=6)),
    st.tuples(st.just("chat"), st.lists(CHATS, max_size=6)),
    st.tuples(st.just("text"), st.lists(TEXT, max_size=6)),
)
LEFT_OUT = {
    "spelling",
    "lemmatization",
    "leakage",
    "label_names",
    "row_removal",
}  # slow dictionaries; options are needed
PIPELINES = st.lists(
    st.sampled_from([name for name in STEPS if name not in LEFT_OUT]), min_size=1, max_size=6
)


def _clean(*words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        clean.main(list(words))


def _read(text: str) -> list[Any]:
    """The rows of a JSON array, or of JSON lines (which end at no other sign than a line feed)."""
    found = json.loads(text) if text.startswith("[") else map(json.loads, filter(None, text.split("\n")))
    return list(found)


@settings(max_examples=40, deadline=None)
@given(FILES, PIPELINES, st.sampled_from([".json", ".jsonl"]), st.randoms(use_true_random=False))
def test_clean_and_undo(file: tuple[str, list[Any]], steps: list[str], kind: str, chance: Any) -> None:
    name, rows = file
    rows = [FIRST[name], *rows, *rows[:1]]  # with a copy
    chance.shuffle(tail := rows[1:])
    rows = [rows[0], *tail]
    with tempfile.TemporaryDirectory() as folder:
        path, out, back = (Path(folder, each + kind) for each in ("in", "out", "back"))
        text = "\n".join(map(json.dumps, rows)) if kind == ".jsonl" else json.dumps(rows)
        path.write_text(text, encoding="utf-8")
        rows = _read(text)  # two halves of a character that meet are one
        try:
            _clean(str(path), f"--out={out}", f"--steps={','.join(steps)}", "--roles=all")
        except DataError as error:
            assert "every one of" in str(error) or "format" in str(error)
            assert [each.name for each in Path(folder).iterdir()] == [path.name]
            return
        lines = journal.of(out).read_text(encoding="utf-8").splitlines()
        *entries, account = map(json.loads, lines)
        kept = _read(out.read_text(encoding="utf-8"))
        removed = [entry for entry in entries if entry["out"] is None and "reason" in entry]
        assert account["rows"] == [len(rows), len(rows) - len(removed)]
        assert len(kept) + len(removed) == len(rows)
        for step, one in zip(account["steps"][1:], account["steps"], strict=False):
            assert step["rows"][0] == one["rows"][1] and step["characters"][0] == one["characters"][1]
        _clean("--undo", str(out), f"--out={back}")
        found = back.read_text(encoding="utf-8")
        assert _read(found) == rows


@st.composite
def _levels(draw: st.DrawFn) -> tuple[str, list[list[Change]]]:
    """A text, and changes that one step after the other makes of it."""
    text = draw(st.text("abc", min_size=1, max_size=20))
    first, levels = text, []
    for _ in range(draw(st.integers(1, 4))):
        cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
        places = list(zip(cuts[::2], cuts[1::2], strict=False))
        changes = [Change("x", a, b, text[a:b], draw(st.text("xyz", max_size=4))) for a, b in places]
        levels.append(changes)
        text = apply(text, changes)
    return first, levels


@settings(max_examples=150, deadline=None)
@given(_levels(), st.randoms(use_true_random=False))
def test_steps_undone_in_any_order(made: tuple[str, list[list[Change]]], chance: Any) -> None:
    """Where no later step touched the place, the others stay as they are; all undone is the first text."""
    first, levels = made
    left, text = list(levels), first
    for level in levels:
        text = apply(text, level)
    while left:
        place = chance.randrange(len(left))
        back = journal.without(text, left[place], left[place + 1 :])
        if back is None:
            place = len(left) - 1  # the last one has none after it
            back = journal.without(text, left[place], [])
            assert back is not None
        text, moved = back
        left[place:] = moved
        again = _base(first, left)
        assert again == text
    assert text == first


def _base(text: str, levels: list[list[Change]]) -> str:
    """What `levels` lead to. Raises ValueError when they were not made of it."""
    for level in levels:
        text = apply(text, level)
    return text
