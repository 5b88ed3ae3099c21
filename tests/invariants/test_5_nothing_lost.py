"""Promise 5: rows in = kept + dropped, tokens in = trained + masked + cut; heads and ends are never cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chat
from desk import Luthier, desk, luthier, shop, write
from luthier.config import load
from luthier.data.prepare import Prepared, prepare
from luthier.data.store import Corpus
from luthier.errors import DataError

__all__ = ["desk", "luthier", "shop"]

LONG = "The parcel that I have been waiting for has still not come. " * 12
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": LONG},
    {"role": "assistant", "content": "Which one?"},
    {"role": "user", "content": "Seven."},
    {"role": "assistant", "content": "Tomorrow."},
]
ALPACA: list[Any] = [
    {"instruction": "Where is it?", "input": "", "output": "On its way."},
    {"instruction": LONG, "input": "Order 7", "output": "Tomorrow."},
    {"instruction": "Tell me all.", "input": "", "output": LONG},
    {"instruction": "no answer"},
    {"instruction": "", "input": "", "output": "no question"},
    {"instruction": "Empty", "input": "", "output": "  "},
    {"instruction": "A number", "input": 7, "output": "seven"},
    "not an object",
]
LINES = [json.dumps({"messages": talk}) for talk in (TALK, TALK[1:2], TALK)]
LINES.insert(1, "{broken")
TABLE = "question,answer\nWhere?,Here.\ntoo,many,cells\n你在哪,这里\n"
ROWS = {"a.json": (8, 4), "b.jsonl": (4, 2), "c.csv": (3, 2)}  # file -> (rows in it, of which are good)


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Three files with good, bad, long and short rows."""
    folder = tmp_path / "data"
    write(folder / "a.json", ALPACA)
    (folder / "b.jsonl").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    (folder / "c.csv").write_text(TABLE, encoding="utf-8")
    return [str(folder / name) for name in ROWS]


def prepared(tmp_path: Path, data: list[str], said: list[str] | None = None, **keys: Any) -> Prepared:
    request = {"model_name_or_path": "owner/any", "output_dir": "run", "on_bad_rows": "skip", "dataset": data}
    config = load({**request, "tokenized_path": str(tmp_path / "tokens"), **keys}, "train", {})
    options = {"cutoff_len": config.cutoff_len, "cutoff_policy": config.cutoff_policy}
    renderer = chat.renderer(chat.CHATML, **options)
    return prepare(config, renderer, (said if said is not None else []).append)


def counted(corpus: Any) -> tuple[int, int, int]:
    """(examples, trained tokens, masked tokens) as training will see them."""
    assert isinstance(corpus, Corpus)
    masks = [part.mask for i in range(len(corpus)) for part in (corpus[i].trunk, *corpus[i].branches)]
    mask = np.concatenate(masks)
    return len(corpus), int((mask > 0).sum()), int((mask == 0).sum())


@pytest.mark.parametrize("cutoff_len", [100, 150, 4096])
def test_rows_and_tokens_add_up(tmp_path: Path, data: list[str], cutoff_len: int) -> None:
    said: list[str] = []
    found = prepared(tmp_path, data, said, cutoff_len=cutoff_len)
    ledgers = {Path(ledger.dataset).name: ledger for ledger in found.ledgers}
    assert {name: (ledger.rows_in, ledger.kept) for name, ledger in ledgers.items()} == ROWS
    for name, ledger in ledgers.items():
        assert ledger.rows_in == ledger.kept + sum(ledger.dropped.values())
        assert ledger.tokens_in == ledger.trained + ledger.masked + ledger.cut
        assert f"{ledger.dataset}: {ledger.rows_in} rows = {ledger.kept} kept + {ledger.bad} dropped" in said
        tokens = f"  {ledger.tokens_in} tokens = {ledger.trained} trained + {ledger.masked} masked + "
        tokens += f"{ledger.cut} cut"
        assert any(line.startswith(tokens) for line in said)
        assert all(f"  dropped {count}: {reason}" in said for reason, count in ledger.dropped.items())
        assert sum(Path(bad.source.split(":")[0]).name == name for bad in found.rejected) == ledger.bad
    assert counted(found.train) == (
        sum(ledger.examples for ledger in ledgers.values()),
        sum(ledger.trained for ledger in ledgers.values()),
        sum(ledger.masked for ledger in ledgers.values()),
    )
    whole = prepared(tmp_path, data, cutoff_len=4096)
    assert [ledger.tokens_in for ledger in whole.ledgers] == [ledger.tokens_in for ledger in found.ledgers]
    assert (sum(ledger.cut for ledger in found.ledgers) > 0) == (cutoff_len < 4096)
    assert sum(ledger.cut_rows for ledger in found.ledgers) == (4 if cutoff_len < 4096 else 0)


def test_every_lost_row_is_named_with_its_field_and_reason(tmp_path: Path, data: list[str]) -> None:
    found = prepared(tmp_path, data)
    assert [(bad.source, bad.field) for bad in found.rejected] == [
        ("a.json:4", "output"),
        ("a.json:5", "instruction"),
        ("a.json:6", "output"),
        ("a.json:8", "instruction"),
        ("b.jsonl:2", ""),
        ("b.jsonl:3", "messages[0]"),
        ("c.csv:2", ""),
    ]
    assert all(bad.reason for bad in found.rejected)
    assert found.ledgers[0].dropped == {
        "output: missing; the row has instruction": 1,
        "instruction: empty question": 1,
        "output: empty answer": 1,
        "instruction: missing; the row has text": 1,
    }
    assert found.ledgers[0].converted == {"input: a number was read as text": 1}


def test_rows_that_are_too_long_for_the_policy_are_dropped_and_counted(
    tmp_path: Path, data: list[str]
) -> None:
    with pytest.raises(DataError, match=r"b\.jsonl: no row is left to train on"):
        prepared(tmp_path, data, cutoff_len=100, cutoff_policy="drop")
    found = prepared(tmp_path, [data[0], data[2]], cutoff_len=100, cutoff_policy="drop")
    assert [(ledger.rows_in, ledger.kept, ledger.cut) for ledger in found.ledgers] == [(8, 2, 0), (3, 2, 0)]
    long = [bad for bad in found.rejected if bad.field == "cutoff_len"]
    assert [bad.source for bad in long] == ["a.json:2", "a.json:3"]
    assert all("more than cutoff_len = 100" in bad.reason for bad in long)


def test_held_out_and_chosen_rows_are_those_that_were_kept(tmp_path: Path, data: list[str]) -> None:
    found = prepared(tmp_path, data, val_size=3)
    held = found.evals["validation"]
    assert isinstance(found.train, Corpus) and isinstance(held, Corpus)
    sources = [corpus.source(i) for corpus in (found.train, held) for i in range(len(corpus))]
    assert (len(found.train), len(held)) == (5, 3)
    assert sorted(sources) == [
        "a.json:1", "a.json:2", "a.json:3", "a.json:7", "b.jsonl:1", "b.jsonl:4", "c.csv:1", "c.csv:3",
    ]  # fmt: skip


def test_text_for_pre_training_is_all_learnt(tmp_path: Path) -> None:
    """Documents are packed into blocks; a token is masked only where a block starts without a context."""
    (tmp_path / "t.txt").write_text("\n".join(LONG[k:] for k in range(0, 300, 7)) + "\n", encoding="utf-8")
    found = prepared(tmp_path, [str(tmp_path / "t.txt")], stage="pt", cutoff_len=64)
    (ledger,) = found.ledgers
    tokenizer = chat.renderer(chat.CHATML).tokenizer
    texts = (tmp_path / "t.txt").read_text().splitlines()
    tokens = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts)  # and the end of each text
    assert (ledger.rows_in, ledger.kept, ledger.tokens_in) == (len(texts), len(texts), tokens)
    assert ledger.trained + ledger.masked == tokens
    assert counted(found.train) == (ledger.examples, ledger.trained, ledger.masked)
    assert ledger.masked <= ledger.examples + 1


# --- what is never cut


def test_heads_and_ends_survive_every_length() -> None:
    tokenizer = chat.renderer(chat.CHATML).tokenizer
    header = tokenizer("<|im_start|>assistant\n")["input_ids"]
    (end,) = tokenizer("<|im_end|>")["input_ids"]
    rows = [
        chat.example(chat.say(LONG, "Tomorrow.", system="Be brief.")),
        chat.example(chat.say("Tell me all.", LONG)),
        chat.example(chat.say(LONG, "Which one?", LONG, LONG)),
    ]
    kept = 0
    for limit in [*range(2, 130), 200, 300, 5000]:
        for row, found in zip(rows, chat.renderer(chat.CHATML, cutoff_len=limit).examples(rows), strict=True):
            if not isinstance(found, list):
                assert found.field == "cutoff_len"
                assert f"more than cutoff_len = {limit}" in found.reason
                continue
            (rendered,) = found
            ids, mask = chat.sequence(rendered)
            kept += 1
            assert len(ids) <= limit
            replies = 1 + sum(message.role == "assistant" for message in row.trunk)
            starts = [k for k in range(len(ids)) if list(ids[k : k + len(header)]) == header]
            assert len(starts) == replies
            for start in starts:  # the header, a reply, its end: learnt but for the header
                reply = np.asarray(ids[start + len(header) :])
                stop = int(np.argmax(reply == end))
                assert reply[stop] == end and stop > 0
                assert mask[start + len(header) + stop] == 1
                assert not any(mask[start : start + len(header)])
    assert kept > 100


# --- in a run


def test_the_account_is_in_the_run(luthier: Luthier, desk: Path, data: list[str]) -> None:
    words = ["model_name_or_path=base", "template=chatml", "max_steps=1", "output_dir=run", "cutoff_len=120"]
    code, _, err = luthier("train", *words, f"dataset={','.join(data)}", "on_bad_rows=skip")
    assert code == 0
    ledgers = json.loads((desk / "run" / "ledger.json").read_bytes())
    assert {Path(ledger["dataset"]).name: (ledger["rows_in"], ledger["kept"]) for ledger in ledgers} == ROWS
    for ledger in ledgers:
        assert ledger["rows_in"] == ledger["kept"] + sum(ledger["dropped"].values())
        assert ledger["tokens_in"] == ledger["trained"] + ledger["masked"] + ledger["cut"]
        assert f"{ledger['dataset']}: {ledger['rows_in']} rows = {ledger['kept']} kept" in err
    assert sum(ledger["cut"] for ledger in ledgers) > 0
    lines = (desk / "run" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == sum(sum(ledger["dropped"].values()) for ledger in ledgers) == 7
    assert json.loads(lines[0])["data"] == {"instruction": "no answer"}
