"""Streaming: blocks made while training goes on, in an order that depends on nothing but the seed."""

import json

import numpy as np
import pytest

import tasks
import tiny
from luthier.config import load
from luthier.data.render import Renderer
from luthier.data.stream import Stream


def settings(folder, **changes):
    folder.mkdir(exist_ok=True)
    for name in ("a", "b"):
        lines = [
            json.dumps({"text": f"{name} {k} " + "one two three four five " * (k % 4 + 1)}) for k in range(12)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return tasks.make(
        folder, stage="pt", dataset=f"{folder}/a.jsonl,{folder}/b.jsonl", streaming=True, max_steps=6,
        buffer_size=8, cutoff_len=16, **changes,
    )  # fmt: skip


def stream(values, units=60):
    config = load(values, "train", {})
    return Stream(config, Renderer.of(config, tiny.tokenizer()), units)


def ids(made, numbers):
    return [made[u].branches[0].ids.tolist() for u in numbers]


def test_the_same_blocks_whatever_came_before(tmp_path):
    values = settings(tmp_path / "w")
    first = ids(stream(values), range(30))
    assert ids(stream(values), range(20, 30)) == first[20:]
    again = stream(values)
    ids(again, range(25, 30))
    assert ids(again, range(3)) == first[:3]


def test_a_window_is_shuffled_and_whole(tmp_path):
    values = settings(tmp_path / "w")
    shuffled = ids(stream(values), range(8))
    other = ids(stream({**values, "seed": 7}), range(8))
    assert sorted(shuffled) == sorted(other) and shuffled != other


def test_a_source_that_ends_begins_again(tmp_path):
    made = stream(settings(tmp_path / "w"), units=400)
    assert len(ids(made, range(400))) == 400
    assert made.ledger.kept > 24
    assert made.ledger.tokens_in == made.ledger.trained + made.ledger.masked


@pytest.mark.parametrize("strategy", ["interleave_under", "interleave_over", "interleave_once"])
@pytest.mark.parametrize("probabilities", [None, "0.8,0.2"])
def test_mixing(tmp_path, strategy, probabilities):
    extra = {"interleave_probs": probabilities} if probabilities else {}
    made = stream(settings(tmp_path / "w", mix_strategy=strategy, **extra))
    text = tiny.tokenizer().decode(np.concatenate([made[u].branches[0].ids for u in range(8)]))
    assert "|>a " in text and "|>b " in text


def test_training_from_a_stream_resumes_bit_for_bit(tmp_path):
    from test_4_resume_is_arithmetic import as_if_killed, reported, weights

    values = settings(tmp_path / "w", save_steps=2, val_size=3, eval_strategy="steps", eval_steps=3)
    whole = tasks.train(values)
    killed = tmp_path / "killed"
    as_if_killed(whole, killed, 4)
    tasks.train({**values, "output_dir": str(killed)})
    assert weights(killed) == weights(whole)
    assert reported(killed) == reported(whole)
    ledger = json.loads((whole / "ledger.json").read_text())[0]
    assert ledger["rows_in"] == ledger["kept"] > 0
    assert ledger["tokens_in"] == ledger["trained"] + ledger["masked"] > 0
