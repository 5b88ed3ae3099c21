"""`luthier eval` end to end: a tiny run and its base on the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest

import tasks
from luthier import cli
from luthier.config import load
from luthier.errors import DataError
from luthier.evaluate import suite
from luthier.evaluate.plan import Request
from luthier.evaluate.run import evaluate
from luthier.infer.hf import HFEngine

FIGURE = {"before", "after", "delta", "low", "high", "n", "verdict"}
QUIET = Request(suite=False)


def silent(line: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run/: an adapter that learnt nothing (its learning rate is next to zero) · eval.json: other rows."""
    folder = tmp_path_factory.mktemp("eval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        tasks.train(tasks.make(folder, count=12, learning_rate=1e-12, max_steps=1, save_steps=50))
    rows = tasks.rows(24)[12:]
    (folder / "data" / "eval.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


def request(place: Path, folder: Path, **keys: Any) -> Any:
    """Evaluate the run on eval.json; results go to `folder`."""
    words = {"dataset": str(place / "data" / "eval.json"), "output_dir": str(folder), **keys}
    return load([str(place / "run"), *tasks.words(words)], "predict", {})


def records(folder: Path, side: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"answers.{side}.jsonl").read_text("utf-8").splitlines()]


def test_a_run_that_learnt_nothing_shows_no_evidence(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    words = [str(place / "run"), "--dataset", str(place / "data" / "eval.json"), "--suite", "false"]
    assert cli.main(["eval", *words, "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    folder = place / "run" / "eval" / "eval"
    assert json.loads((folder / "report.json").read_text("utf-8")) == shown
    (name,) = shown["tasks"]
    assert shown["details"][name]["kind"] == "labels"
    figures = shown["tasks"][name]
    assert {"accuracy", "macro_f1", "likelihood_accuracy", "likelihood_ece"} <= set(figures)
    assert all(set(figure) >= FIGURE for figure in figures.values())
    assert {figure["verdict"] for figure in figures.values()} == {"no evidence"}
    assert {figure["n"] for figure in figures.values()} == {12}
    assert "tokens, longer than any label: they are wrong" in shown["details"][name]["notes"][0]["en"]
    assert shown["details"][name]["scoring"]["better"] in ("likelihood", "generation", "no evidence")
    detail = shown["details"][name]
    assert set(detail["labels"]) == set(detail["per_class"]) == set(tasks.LABELS)
    assert sum(map(sum, detail["confusion"]["after"])) == 12
    for file, words in (("report.md", "| accuracy |"), ("report.zh.md", "| 准确率 accuracy |")):
        assert words in (folder / file).read_text("utf-8")
    for file, words in (
        ("report.html", "eval: no evidence of a change."),
        ("report.zh.html", "eval：没有证据表明有变化。"),
    ):
        assert f"<b>{words}</b>" in (folder / file).read_text("utf-8")
    said = {side: [r.get("answer") for r in records(folder, side)] for side in ("before", "after")}
    assert said["before"] == said["after"]


def test_what_was_answered_is_not_asked_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = request(place, tmp_path, max_new_tokens=4, per_device_eval_batch_size=4)
    asked: list[int] = []
    honest = HFEngine.generate

    def stopped(engine: HFEngine, prompts: Any, options: Any, progress: Any = None) -> Any:
        """Ctrl-C after eight answers, the first time."""
        asked.append(len(prompts))

        def heard(place: int, ids: list[int]) -> None:
            progress(place, ids)
            if len(asked) == 1 and place == 7:
                raise KeyboardInterrupt

        return honest(engine, prompts, options, heard)

    monkeypatch.setattr(HFEngine, "generate", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, QUIET, silent)
    done = len(records(tmp_path, "before"))
    assert 0 < done < 12
    with open(tmp_path / "answers.before.jsonl", "a", encoding="utf-8") as file:
        file.write('{"task": "eval", "finger')  # as a kill leaves it
    asked[:] = [0]
    first = evaluate(config, QUIET, silent)
    assert asked[1:] == [12 - done, 12]
    again = evaluate(config, QUIET, silent)
    assert asked[1:] == [12 - done, 12, 0, 0]
    assert again["tasks"] == first["tasks"]
    assert records(tmp_path, "before")[0].keys() >= {"source", "input", "reference", "answer", "cut"}
    evaluate(request(place, tmp_path, max_new_tokens=5), QUIET, silent)
    assert asked[-2:] == [12, 12]
    assert len(records(tmp_path, "after")) == 24


def test_the_answers_of_before_are_those_of_the_base(place: Path, tmp_path: Path) -> None:
    evaluate(request(place, tmp_path / "run", max_new_tokens=4), QUIET, silent)
    words = {"dataset": str(place / "data" / "eval.json"), "max_new_tokens": 4, "template": "chatml"}
    keys = tasks.words({**words, "output_dir": str(tmp_path / "base")})
    config = load([str(place / "base"), *keys], "predict", {})
    result = evaluate(config, Request(suite=True), silent)
    assert set(result["systems"]) == {"after"}
    assert [*result["tasks"]] == ["eval", "suite", "general_text"]
    assert set(result["tasks"]["suite"]) == {ability.key for ability in suite.abilities()}
    assert result["tasks"]["general_text"]["perplexity"]["after"] > 1
    assert result["details"]["suite"]["sha256"] == suite.identity()["sha256"]
    detail = result["details"]["suite"]
    assert 0 < detail["cut"]["after"] <= len(suite.items())  # a model that never ends its turn
    assert [one["key"] for one in detail["notes"]][-1] == "suite_cut"
    figures = result["tasks"]["eval"]
    assert figures["accuracy"]["verdict"] is figures["accuracy"]["before"] is None
    alone, compared = records(tmp_path / "base", "after"), records(tmp_path / "run", "before")
    assert [r.get("answer") for r in alone[:24]] == [r.get("answer") for r in compared]


def test_a_whole_tuned_model_is_compared_with_the_base_that_it_names(place: Path, tmp_path: Path) -> None:
    settings = tasks.make(place, finetuning_type="full", lora_target=None, output_dir=str(tmp_path / "full"))
    tasks.train({**settings, "max_steps": 1, "save_steps": 50})
    words = {"dataset": str(place / "data" / "eval.json"), "max_new_tokens": 2}
    config = load([str(tmp_path / "full"), *tasks.words(words)], "predict", {})
    result = evaluate(config, QUIET, silent)
    names = {side: system["name"] for side, system in result["systems"].items()}
    assert names == {"before": str(place / "base"), "after": str(tmp_path / "full")}
    evaluate(request(place, tmp_path / "lora", max_new_tokens=2), QUIET, silent)
    mine, theirs = (
        records(tmp_path / "full" / "eval" / "eval", "before"),
        records(tmp_path / "lora", "before"),
    )
    assert [r.get("scores") for r in mine] == [r.get("scores") for r in theirs]


def test_only_the_baseline(place: Path, tmp_path: Path) -> None:
    baseline = Request(suite=False, baseline=True)
    result = evaluate(request(place, tmp_path, max_new_tokens=2), baseline, silent)
    assert set(result["systems"]) == {"before"}
    (figures,) = result["tasks"].values()
    assert figures["accuracy"]["after"] is None and figures["accuracy"]["before"] is not None
    assert not (tmp_path / "answers.after.jsonl").exists()


def test_bad_data_is_named(place: Path, tmp_path: Path) -> None:
    rows = [*tasks.rows(12), {"instruction": "a", "output": "退款"}]
    file = tmp_path / "other.json"
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    result = evaluate(request(place, tmp_path / "out", dataset=str(file), max_new_tokens=2), QUIET, silent)
    (detail,) = result["details"].values()
    notes = "\n".join(one["en"] for one in detail["notes"])
    assert "1 labels (1 rows) never occurred in training: 退款" in notes
    assert "answers before were cut after 2 tokens -> a larger max_new_tokens" in notes
    file.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.json"):
        evaluate(request(place, tmp_path / "empty", dataset=str(file)), QUIET, silent)
    assert not (tmp_path / "empty").exists()
