"""Tasks of the lm-eval package on local data: its figures, luthier's intervals; what fails is a note."""

import json
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks
import tiny
from luthier.config import load
from luthier.errors import MissingPackage, UsageError
from luthier.evaluate import harness, harness_figures, report
from luthier.evaluate.cli import main
from luthier.evaluate.plan import Request
from luthier.evaluate.run import evaluate

INSTALLED = find_spec("lm_eval") is not None
needs_it = pytest.mark.skipif(not INSTALLED, reason="lm-eval is not installed")
HEAD = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
metadata: {{version: 1.0}}
"""
CHOICE = """\
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{right}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ROLLING = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
WRITTEN = """\
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[right]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match}, {metric: bleu}]
"""
GROUP = """\
group: shop
task: [orders, sizes]
aggregate_metric_list: [{metric: acc, weight_by_size: false}]
"""


def silent(line: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run/: an adapter that changed the model · eval.json · own/: tasks of lm-eval on local data."""
    folder = tmp_path_factory.mktemp("lm_eval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        tasks.train(tasks.make(folder, count=12, learning_rate=0.02, max_steps=3, save_steps=50))
    (folder / "eval.json").write_text(json.dumps(tasks.rows(3)), encoding="utf-8")
    (folder / "own").mkdir()
    bodies = {"orders": CHOICE, "sizes": CHOICE, "texts": ROLLING, "said": WRITTEN}
    for count, (name, body) in zip((12, 6, 8, 4), bodies.items(), strict=True):
        rows = [
            {"question": f"Where is {name} {i}?", "choices": ["here", "there", "nowhere"], "right": i % 3}
            for i in range(count)
        ]
        data = folder / f"{name}.json"
        data.write_text(json.dumps(rows), encoding="utf-8")
        head = HEAD.format(task=name, data=data, cache=folder / "datasets")
        (folder / "own" / f"{name}.yaml").write_text(head + body, encoding="utf-8")
    (folder / "own" / "shop.yaml").write_text(GROUP, encoding="utf-8")
    lost = HEAD.format(task="lost", data=folder / "nowhere.json", cache=folder / "datasets") + CHOICE
    (folder / "own" / "lost.yaml").write_text(lost, encoding="utf-8")
    broken = (folder / "own" / "orders.yaml").read_text("utf-8").replace("orders\n", "broken\n", 1)
    broken = broken.replace("{{question}}", "{{question.upper(1) if '3' in question else question}}")
    (folder / "own" / "broken.yaml").write_text(broken, encoding="utf-8")
    return folder


def run(place: Path, folder: Path, names: Sequence[str], **keys: Any) -> dict[str, Any]:
    words = {"dataset": str(place / "eval.json"), "output_dir": str(folder), "max_new_tokens": 2}
    config = load([str(place / "run"), *tasks.words(words)], "predict", {})
    own = Request(suite=False, lm_eval=tuple(names), lm_eval_path=str(place / "own"), **keys)
    return evaluate(config, own, silent)


def alone(place: Path, names: Sequence[str], **keys: Any) -> dict[str, Any]:
    """What lm-eval itself says of the base."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(place / "base", dtype="float32")
    manager = TaskManager(include_path=str(place / "own"), include_defaults=False)
    wrapped = HFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=8)
    found: dict[str, Any] = lm_eval.simple_evaluate(
        wrapped, tasks=list(names), task_manager=manager, bootstrap_iters=0, **keys
    )
    return found["results"]


@needs_it
def test_figures_are_lm_evals_and_intervals_are_ours(place: Path, tmp_path: Path) -> None:
    names = ("orders", "texts", "said", "shop")
    result = run(place, tmp_path, names)
    theirs = alone(place, names[1:])  # orders is part of the group
    found = {name: result["tasks"][f"lm_eval.{name}"] for name in names}
    assert {name: set(figures) for name, figures in found.items()} == {
        "orders": {"acc", "acc_norm"},
        "texts": {"word_perplexity", "bits_per_byte"},
        "said": {"exact_match", "bleu"},
        "shop": {"acc"},
    }
    for name, figures in found.items():
        for metric, figure in figures.items():
            assert figure["before"] == pytest.approx(theirs[name][f"{metric},none"], rel=1e-6), (name, metric)
    assert [found[name][metric]["n"] for name, metric in (("orders", "acc"), ("texts", "bits_per_byte"))] == [
        12,
        8,
    ]
    assert found["shop"]["acc"]["n"] == 18
    perplexity = found["texts"]["word_perplexity"]
    assert perplexity["low"] <= perplexity["delta"] <= perplexity["high"] and perplexity["higher"] is False
    assert perplexity["after"] != perplexity["before"]
    assert found["orders"]["acc"]["test"] == "mcnemar"
    bleu = found["said"]["bleu"]
    assert bleu["low"] is bleu["verdict"] is None and bleu["before"] is not None
    detail = {name: result["details"][f"lm_eval.{name}"] for name in names}
    assert [one["key"] for one in detail["said"]["notes"]] == ["lm_eval_no_interval"]
    parts = detail["shop"]["slices"]["subtask"]
    assert set(parts) == {"orders", "sizes"}
    assert parts["orders"]["before"] == pytest.approx(theirs["orders"]["acc,none"])
    assert "bleu" in report.table(result)


@needs_it
def test_what_is_kept_is_not_asked_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval

    asked: list[list[str]] = []
    honest = lm_eval.evaluate

    def counted(*args: Any, **keys: Any) -> Any:
        asked.append(list(keys["task_dict"]["tasks"]))
        return honest(*args, **keys)

    monkeypatch.setattr(lm_eval, "evaluate", counted)
    first = run(place, tmp_path, ["orders"], lm_eval_limit=5)
    assert asked == [["orders"]] * 2 and first["tasks"]["lm_eval.orders"]["acc"]["n"] == 5
    again = run(place, tmp_path, ["orders", "texts"], lm_eval_limit=5)
    assert asked[2:] == [["texts"]] * 2
    assert again["tasks"]["lm_eval.orders"] == first["tasks"]["lm_eval.orders"]
    (tmp_path / "lm_eval.after.json").write_text("{damaged", encoding="utf-8")
    run(place, tmp_path, ["orders"], lm_eval_limit=5)
    assert asked[4:] == [["orders"]]
    run(place, tmp_path, ["orders"], lm_eval_limit=6)
    assert asked[5:] == [["orders"]] * 2


@needs_it
def test_a_task_that_fails_is_a_note(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(place, tmp_path, ["lost", "broken", "orders"], lm_eval_limit=5)
    assert "lm_eval.orders" in result["tasks"] and "lm_eval.lost" not in result["tasks"]
    assert "lm_eval.broken" not in result["tasks"]
    notes = result["details"]["lm_eval"]["notes"]
    assert [one["key"] for one in notes] == ["lm_eval_not_loaded", "lm_eval_failed", "lm_eval_failed"]
    assert "nowhere.json" in notes[0]["en"] and "TypeError" in notes[1]["en"]
    result = run(place, tmp_path / "other", ["lost"])
    assert "eval" in result["tasks"]
    for text in (
        report.table(result),
        *((tmp_path / "other" / name).read_text("utf-8") for name in ("report.md", "report.html")),
    ):
        assert "lm_eval lost: cannot be loaded" in text.replace("\\_", "_")


@needs_it
def test_words_of_the_command_line(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"dataset": str(place / "eval.json"), "output_dir": str(tmp_path), "max_new_tokens": 2}
    words = [str(place / "run"), *tasks.words(keys), "--suite", "false", "--lm_eval_path", str(place / "own")]
    assert main([*words, "--lm_eval", "orders,texts", "--lm_eval_limit", "3"]) == 0
    told = capsys.readouterr()
    assert "lm_eval.orders (lm_eval): task orders of lm-eval" in told.out
    assert f"tasks are programs, which are run, those in {place / 'own'}, too" in told.err


@needs_it
def test_names_that_are_none_are_told_before_the_work(place: Path) -> None:
    def refused(said: str, **keys: Any) -> None:
        with pytest.raises(UsageError, match=said):
            harness.begin(Request(**keys), silent)

    refused("which of its tasks", lm_eval_path=str(place / "own"))
    refused("is no directory", lm_eval=("orders",), lm_eval_path=str(place / "none"))
    with pytest.raises(UsageError, match='"ordres" is no task of lm-eval -> orders'):
        harness.check(["texts", "ordres"], ["orders", "texts", "said"])
    with pytest.raises(UsageError, match="lm-eval ls tasks"):
        harness.check(["xyz"], ["orders"])
    assert harness.begin(Request(), silent) is None


@pytest.mark.skipif(INSTALLED, reason="lm-eval is installed")
def test_without_the_package() -> None:
    with pytest.raises(MissingPackage, match=r"luthier\[lm-eval\]"):
        harness.begin(Request(lm_eval=("orders",)), silent)


# --- figures, which need no package


def task(values: Sequence[Any] | None, value: float, samples: Sequence[str] | None = None) -> dict[str, Any]:
    names = list(samples or map(str, range(len(values or []))))
    return {"value": value, "higher": True, "samples": names, "values": values}


def test_how_a_figure_was_made_is_found_by_trying() -> None:
    draw = np.random.default_rng(0)
    one, pairs = draw.uniform(-3, -1, 20), np.stack([draw.uniform(-30, -10, 20), draw.integers(3, 9, 20)], 1)
    share = pairs[:, 0].sum() / pairs[:, 1].sum()
    figures = {
        "mean": (one[:, None], one.mean()),
        "perplexity": (one[:, None], math.exp(-one.mean())),
        "word_perplexity": (pairs, math.exp(-share)),
        "bits_per_byte": (pairs, -share / math.log(2)),
    }
    kept = {"tasks": {"t": {name: task(v.tolist(), x) for name, (v, x) in figures.items()}}, "groups": {}}
    found = harness_figures.found("t", kept).metrics["t"]
    for name, (_, value) in figures.items():
        measured = found[name].measured
        assert measured is not None and measured.value == pytest.approx(value, rel=1e-12)
    for values, value in ((one[:, None].tolist(), 7.0), (None, 0.5), ([], 0.5)):
        kept["tasks"]["t"] = {"odd": task(values, value)}
        assert harness_figures.found("t", kept).metrics["t"]["odd"].measured is None


def test_a_group_is_the_mean_of_samples_or_of_tasks() -> None:
    parts = {"a": [[1.0]] * 3 + [[0.0]], "b": [[0.0], [1.0]] * 5}
    metrics = {name: {"acc": task(values, float(np.mean(values)))} for name, values in parts.items()}
    for value, known in ((8 / 14, True), ((0.75 + 0.5) / 2, True), (0.9, False)):
        found = harness_figures.found("g", {"tasks": metrics, "groups": {"g": {"acc": value}}}).group["acc"]
        assert (found.measured is not None) is known
        assert found.value == value and len(found.samples) == 14
        if found.measured is not None:
            assert found.measured.value == pytest.approx(value, rel=1e-12)


def test_other_samples_are_no_pairs() -> None:
    before = {"tasks": {"t": {"acc": task([[1.0], [0.0]], 0.5, ["0 a p", "1 b p"])}}, "groups": {}}
    after = {"tasks": {"t": {"acc": task([[1.0], [1.0]], 1.0, ["0 a p", "1 b q"])}}, "groups": {}}
    sides = {"before": harness_figures.found("t", before), "after": harness_figures.found("t", after)}
    figures, detail = harness_figures.told("t", sides, 1)["lm_eval.t"]
    assert figures["acc"]["delta"] == 0.5 and figures["acc"]["low"] is figures["acc"]["verdict"] is None
    assert [one["key"] for one in detail["notes"]] == ["lm_eval_no_interval"]
