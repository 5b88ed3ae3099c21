"""`luthier eval --curve`: trainings on nested shares of a run's data, kept, continued and told."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tasks
from luthier import cli
from luthier.config import load
from luthier.data import prepare
from luthier.errors import DataError, UsageError
from luthier.evaluate import subsets
from luthier.evaluate.plan import Request
from luthier.evaluate.run import evaluate
from luthier.infer import loading


class Heard:
    """What was said; stops the work, as Ctrl-C does, at the line that begins with `until`."""

    def __init__(self, until: str = "\0") -> None:
        self.until, self.lines = until, list[str]()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith(self.until):
            raise KeyboardInterrupt

    @property
    def trained(self) -> list[str]:
        begun = ("curve: trains on", "curve: goes on with")
        return [line.split(" (")[0] for line in self.lines if line.startswith(begun)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run/: a whole model that has learnt some of its 40 rows · data/eval.json: 30 others."""
    folder = tmp_path_factory.mktemp("curve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        full = {"finetuning_type": "full", "lora_target": None, "learning_rate": 1e-2}
        tasks.train(tasks.make(folder, count=40, num_train_epochs=6.0, save_steps=500, **full))
    rows = tasks.rows(70)[40:]
    (folder / "data" / "eval.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def drawn(place: Path) -> Path:
    """out/: the curve of 25, 50 and 100 per cent."""
    curve(place, place / "out", 25, 50)
    return place


def curve(place: Path, folder: Path, *shares: int, say: Heard | None = None) -> dict[str, Any]:
    """details.eval.curve of an evaluation that writes into `folder`."""
    words = {"dataset": str(place / "data" / "eval.json"), "output_dir": str(folder), "max_new_tokens": 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(place / "cache"))
        config = load([str(place / "run"), *tasks.words(words)], "predict", {})
        evaluate(config, Request(suite=False, curve=shares), say or Heard())
    return told(folder)


def told(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text("utf-8"))
    found: dict[str, Any] = report["details"]["eval"]["curve"]
    return found


def with_answers(drawn: Path, folder: Path) -> None:
    """Give the folder what the base and the run said, which need not be asked again."""
    for file in (drawn / "out").glob("answers.*.jsonl"):
        shutil.copy(file, folder / file.name)


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def without_clocks(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "points": [{**point, "seconds": None} for point in found["points"]]}


# --- which rows


def test_each_share_is_within_the_next_and_holds_every_class() -> None:
    labels = ["a"] * 600 + ["b"] * 300 + ["c"] * 97 + ["rare"] * 3
    order = subsets.nested(labels, [42, 0])
    assert sorted(order) == list(range(1000)) and order != list(range(1000))
    for count in (4, 10, 100, 250, 500, 1000):
        found = Counter(labels[i] for i in order[:count])
        assert set(found) == set(labels)
        assert all(abs(found[name] - count * labels.count(name) / 1000) <= 2 for name in found)
    assert order == subsets.nested(labels, [42, 0]) != subsets.nested(labels, [43, 0])
    assert {labels[i] for i in order[:2]} == {"a", "b"}  # where not all find room, the most frequent do


def data(folder: Path) -> Path:
    """intent; few, which draws some rows twice; talk, with names of its own; a table; texts."""
    folder = folder / "data"
    folder.mkdir()
    rows = tasks.rows(40)
    talk = [
        {"said": [{"who": "guest", "what": row["input"]}, {"who": "desk", "what": row["output"]}], "n": None}
        for row in rows[:12]
    ]
    for name, content in {"intent": rows, "few": tasks.rows(12), "talk": talk}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    table = [f'"{row["input"]}","{row["output"]}"\n' for row in rows]
    (folder / "table.csv").write_text("question,answer\n" + "".join(table), encoding="utf-8")
    prose = [json.dumps({"text": f"{row['input']} and what it is about"}) + "\n" for row in rows]
    (folder / "prose.jsonl").write_text("".join(prose), encoding="utf-8")
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "guest", "assistant_tag": "desk"}
    named = {"formatting": "sharegpt", "columns": {"messages": "said"}, "tags": tags}
    info = {
        "intent": {"file_name": "intent.json"},
        "few": {"file_name": "few.json", "num_samples": 15},
        "talk": {"file_name": "talk.json", **named},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


MIXES: dict[str, dict[str, Any]] = {
    "held out": {"dataset": ["intent", "talk"], "val_size": 0.3},
    "drawn again and again": {"dataset": ["intent", "talk"], "mix_strategy": "interleave_over"},
    "some of the rows": {"dataset": ["few", "intent"], "max_samples": 14},
    "table": {"dataset": ["table.csv"]},
    "text": {"dataset": ["prose.jsonl"], "stage": "pt", "cutoff_len": 32},
}


def made_of(settings: dict[str, Any]) -> tuple[Counter[bytes], Counter[bytes]]:
    """The token sequences that training with these settings sees in an epoch, and those held out."""
    config = load(settings, "train", {})
    _, renderer = loading.text(config, lambda _: None)
    found = prepare.prepare(config, renderer, lambda _: None)
    counts = []
    for corpus in (found.train, found.evals.get("validation", [])):
        rows = [corpus[i] for i in range(len(corpus))]
        counts.append(Counter(b"".join(t.ids.tobytes() for t in (row.trunk, *row.branches)) for row in rows))
    return counts[0], counts[1]


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_all_the_rows_are_the_run_s_and_a_share_is_read_by_the_same_loader(
    place: Path, tmp_path: Path, mix: dict[str, Any]
) -> None:
    settings = {**tasks.make(place), "dataset_dir": str(data(tmp_path)), **mix}
    settings["tokenized_path"] = str(tmp_path / "tokens")
    before = {file: file.read_bytes() for file in (tmp_path / "data").iterdir()}
    parts, _ = subsets.trained(load(settings, "train", {}))
    run, held = made_of(settings)
    own = {k: v for k, v in settings.items() if k not in ("val_size", "max_samples", "mix_strategy")}
    seen, text = [], "stage" in mix
    for share in (25, 50, 100):
        names = subsets.write(parts, share, tmp_path / "part")
        assert len(names) == len(mix["dataset"])
        seen.append(made_of({**own, "dataset": names, "dataset_dir": str(tmp_path / "part")})[0])
        assert text or seen[-1].total() == subsets.seen(parts, share)
    assert seen[2] == run and not set(run) & set(held)
    if not text:  # blocks of text are cut anew
        assert seen[0] <= seen[1] <= seen[2]
        assert 0.15 * run.total() <= seen[0].total() <= 0.35 * run.total()
    assert {file: file.read_bytes() for file in (tmp_path / "data").iterdir()} == before


# --- trainings


def test_a_curve_is_drawn_and_told(drawn: Path) -> None:
    found, folder = told(drawn / "out"), drawn / "out" / "curve"
    report = json.loads((drawn / "out" / "report.json").read_text("utf-8"))
    assert [(point["share"], point["rows"]) for point in found["points"]] == [(25, 10), (50, 20), (100, 40)]
    assert all(point["low"] <= point["value"] <= point["high"] for point in found["points"])
    assert all(point["seconds"] > 0 for point in found["points"])
    assert found["points"][-1]["value"] == report["tasks"]["eval"]["accuracy"]["after"]
    assert found["metric"] == "accuracy" and set(found["fit"]) == {"a", "b", "c"}
    assert found["notes"] and all(one["en"] and one["zh"] for one in found["notes"])
    assert not (folder / "100").exists() and not [*folder.glob("*/checkpoint-*")]
    texts = [(folder / "data" / share / "intent.jsonl").read_text("utf-8") for share in ("25", "50")]
    chosen = [set(text.splitlines()) for text in texts]
    assert len(chosen[0]) == 10 and chosen[0] < chosen[1]
    for share, steps in (("25", 18), ("50", 30)):
        state = json.loads((folder / share / "trainer_state.json").read_text("utf-8"))
        assert (state["max_steps"], state["epoch"]) == (steps, 6)
    lines = (folder / "25" / "answers.after.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["source"] for line in lines] == [f"eval.json:{row}" for row in range(1, 31)]
    assert "| 50\N{NO-BREAK SPACE}% | 20 | " in (drawn / "out" / "report.md").read_text("utf-8")


def test_what_is_trained_is_not_trained_again(drawn: Path) -> None:
    before, heard = told(drawn / "out"), Heard()
    assert curve(drawn, drawn / "out", 25, 50, say=heard) == before
    assert heard.trained == []


def test_an_interrupted_curve_goes_on_from_its_checkpoint_and_comes_out_the_same(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, heard, out = Heard(until="curve: trains on 50 %"), Heard(), drawn / "out" / "curve"
    with_answers(drawn, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        curve(drawn, tmp_path, 25, 50, say=first)
    assert first.trained == ["curve: trains on 25 %", "curve: trains on 50 %"]
    assert any("25 % (10 rows), 50 % (20 rows): about" in line for line in first.lines)
    assert "accuracy" in (tmp_path / "report.json").read_text("utf-8")
    killed_after(8, out / "50", tmp_path / "curve" / "50")
    capsys.readouterr()
    again = curve(drawn, tmp_path, 25, 50, say=heard)
    assert heard.trained == ["curve: goes on with 50 %"]
    assert "training from step 8 to 30" in capsys.readouterr().err
    assert without_clocks(again) == without_clocks(told(drawn / "out"))
    assert [weights(tmp_path / "curve" / name) for name in ("25", "50")] == [
        weights(out / name) for name in ("25", "50")
    ]
    assert not [*(tmp_path / "curve").glob("*/checkpoint-*")]


def killed_after(step: int, whole: Path, point: Path) -> None:
    """Make `point` what a kill leaves of the training that was finished in `whole`."""
    again, written = point.with_name("again"), load([str(whole / "config.yaml")], "train", {}).written
    tasks.train({**written, "output_dir": str(again), "save_total_limit": 9, "overwrite_output_dir": False})
    shutil.copytree(again / f"checkpoint-{step}", point / f"checkpoint-{step}")
    for name in ("luthier.json", "config.yaml", "config.resolved.json", "manifest.json", "trainer_log.jsonl"):
        shutil.copy(again / name, point / name)
    shutil.rmtree(again)
    known = json.loads(whole.with_name(f"{whole.name}.json").read_text("utf-8"))
    record = json.dumps({"fingerprint": known["fingerprint"]})
    point.with_name(f"{point.name}.json").write_text(record, encoding="utf-8")


def test_data_that_has_changed_is_trained_on_as_it_is_now(drawn: Path, tmp_path: Path) -> None:
    """Two points are drawn, but no curve goes through them."""
    with_answers(drawn, tmp_path)
    file, heard = drawn / "data" / "intent.json", Heard()
    text = file.read_text("utf-8")
    try:
        file.write_text(json.dumps(json.loads(text)[:24], ensure_ascii=False), encoding="utf-8")
        found = curve(drawn, tmp_path, 50, 100, say=heard)
    finally:
        file.write_text(text, encoding="utf-8")
    assert heard.trained == ["curve: trains on 50 %", "curve: trains on 100 %"]
    assert [point["rows"] for point in found["points"]] == [12, 24]
    assert found["fit"] is found["twice"] is None
    assert [one["key"] for one in found["notes"]] == ["curve_data_changed", "curve_few"]


def test_a_point_that_cannot_be_trained_costs_nothing_else(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "curve" / "25")
    (tmp_path / "out" / "curve" / "25").write_text("not a folder")
    found = curve(drawn, tmp_path / "out", 25, 50)
    assert [point["share"] for point in found["points"]] == [50, 100]
    failed = found["notes"][0]
    assert failed["key"] == "curve_point_failed" and "is a file; give a directory" in failed["en"]


# --- bad requests


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0, 50), "whole numbers from 1 to 100"),
        ((50, 200), "whole numbers from 1 to 100"),
        ((50, 25), "larger than the one before"),
        ((50, 50), "larger than the one before"),
        ((5, 50), "5 % of the data of .* are 2 rows, fewer than the 4 of one step"),
    ],
)
def test_shares_that_make_no_curve(place: Path, tmp_path: Path, shares: tuple[int, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        curve(place, tmp_path / "out", *shares)
    assert not (tmp_path / "out").exists()


def test_words_that_are_no_shares(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", str(place / "run"), "--dataset", "x", "--curve", "10,a"]) == 2
    assert "10,a -> shares in per cent" in capsys.readouterr().err


def test_a_model_a_baseline_and_a_checkpoint_have_no_curve(place: Path, tmp_path: Path) -> None:
    words = tasks.words({"dataset": str(place / "data" / "eval.json"), "output_dir": str(tmp_path / "out")})
    (checkpoint,) = (place / "run").glob("checkpoint-*")
    for model, baseline, said in (
        (place / "base", False, "trains a run again"),
        (place / "run", True, "about a tuned model"),
        (checkpoint, False, "not the end of a training"),
    ):
        config = load([str(model), *words, "template=chatml"], "predict", {})
        with pytest.raises(UsageError, match=said):
            evaluate(config, Request(suite=False, baseline=baseline, curve=(50,)), Heard())
    assert not (tmp_path / "out").exists()


def test_a_run_whose_data_is_gone(place: Path, tmp_path: Path) -> None:
    file = place / "data" / "intent.json"
    aside = file.rename(tmp_path / "aside.json")
    try:
        with pytest.raises(DataError, match=r"was trained on is needed again: .*intent\.json does not exist"):
            curve(place, tmp_path / "out", 50)
    finally:
        aside.rename(file)


def test_texts_that_were_held_out_in_blocks_have_no_shares(place: Path, tmp_path: Path) -> None:
    settings = {**tasks.make(place), "dataset_dir": str(data(tmp_path)), **MIXES["text"], "val_size": 2}
    with pytest.raises(UsageError, match="blocks of text"):
        subsets.trained(load(settings, "train", {}))
