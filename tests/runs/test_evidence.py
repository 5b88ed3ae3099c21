"""Which of two runs is better on the same rows: literal answers with known figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from history import bare, evaluated, kept, older, write
from luthier.runs import Run, cli
from luthier.runs.beside import beside

SEVEN = {"before", "after", "delta", "low", "high", "n", "verdict"}
RIGHT = ["yes", "no", "maybe"] * 8
HALF = ["yes"] * 24  # 8 of 24 are right


def compared(*paths: Path, rows: int = 5) -> dict[str, Any]:
    return beside([Run.open(path) for path in paths], rows)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """a/ is right in 8 of 24 rows, b/ in all but the first."""
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b")
    evaluated(a, HALF, RIGHT)
    evaluated(b, ["nonsense", *RIGHT[1:]], RIGHT)
    return a, b


def test_the_figures_are_those_of_the_pairs(two: tuple[Path, Path]) -> None:
    told = compared(*two)
    figure = told["tasks"]["news"]["accuracy"]
    assert set(figure) == SEVEN
    assert figure["before"] == pytest.approx(8 / 24, abs=1e-12)
    assert figure["after"] == pytest.approx(23 / 24, abs=1e-12)
    gain = np.array([-1.0] + [0.0] * 7 + [1.0] * 16)
    assert figure["delta"] == pytest.approx(gain.mean(), abs=1e-12)
    half = 2.0687 * gain.std(ddof=1) / 24**0.5  # Student's t with 23 degrees of freedom
    assert (figure["high"] - figure["low"]) / 2 == pytest.approx(half, rel=0.08)
    assert (figure["n"], figure["verdict"]) == (24, "improved")
    assert all(set(one) == SEVEN for one in told["tasks"]["news"].values())


def test_rows_won_and_lost(two: tuple[Path, Path]) -> None:
    found = compared(*two, rows=2)["rows"]["news"]
    assert (found["rated"], found["won"], found["lost"], found["equal"]) == ("accuracy", 16, 1, 7)
    assert found["lost_rows"] == [
        {
            "source": "news.json:1",
            "input": "question 0",
            "reference": "yes",
            "before": "yes",
            "after": "nonsense",
        }
    ]
    assert [row["source"] for row in found["won_rows"]] == ["news.json:2", "news.json:3"]


def test_the_other_way_round_every_sign_turns(two: tuple[Path, Path]) -> None:
    there, back = compared(*two), compared(*reversed(two))
    words = {"improved": "regressed", "regressed": "improved", "no evidence": "no evidence"}
    for metric, figure in there["tasks"]["news"].items():
        other = back["tasks"]["news"][metric]
        assert (other["before"], other["after"]) == (figure["after"], figure["before"])
        assert (other["delta"], other["low"], other["high"]) == (
            -figure["delta"], -figure["high"], -figure["low"],
        )  # fmt: skip
        assert other["verdict"] == words[figure["verdict"]]
    won, lost = there["rows"]["news"]["won"], there["rows"]["news"]["lost"]
    assert (back["rows"]["news"]["won"], back["rows"]["news"]["lost"]) == (lost, won)


def test_a_run_against_itself(two: tuple[Path, Path]) -> None:
    told = compared(two[0], two[0])
    assert {figure["verdict"] for figure in told["tasks"]["news"].values()} == {"no evidence"}
    assert {figure["delta"] for figure in told["tasks"]["news"].values()} == {0.0}
    rows = told["rows"]["news"]
    assert (rows["won"], rows["lost"], rows["equal"]) == (0, 0, 24)
    assert (told["config"], told["data"], told["results"], told["apart"]) == ([], [], [], [])


def test_three_runs_each_against_the_first(two: tuple[Path, Path], tmp_path: Path) -> None:
    c = bare(tmp_path / "c")
    evaluated(c, RIGHT, RIGHT)
    told = compared(*two, c)
    accuracy = told["tasks"]["news"]["accuracy"]
    assert set(accuracy) == {"b", "c"}
    assert accuracy["b"] == compared(*two)["tasks"]["news"]["accuracy"]
    assert (accuracy["c"]["after"], accuracy["c"]["before"]) == (1.0, accuracy["b"]["before"])
    assert (told["rows"]["news"]["c"]["won"], told["rows"]["news"]["c"]["lost"]) == (16, 0)


def test_other_rows_are_refused_with_the_reason(two: tuple[Path, Path], tmp_path: Path) -> None:
    c = bare(tmp_path / "c")
    evaluated(c, RIGHT[:20], RIGHT[:20])
    told = compared(two[0], c)
    (why,) = told["apart"]
    assert (why["task"], why["runs"], why["key"]) == ("news", ["b"], "other_rows")
    assert "not the same (24 rows, 20 rows)" in why["en"]
    assert "行或标准答案不同" in why["zh"]
    assert told["tasks"] == {}


def test_what_only_one_was_evaluated_on_is_named(two: tuple[Path, Path], tmp_path: Path) -> None:
    (why,) = compared(two[0], bare(tmp_path / "c"))["apart"]
    assert (why["runs"], why["en"][:30]) == (["b"], "only A was evaluated on it -> ")


def test_an_evaluation_of_other_weights_is_no_evidence(two: tuple[Path, Path]) -> None:
    write(two[1] / "checksums.json", {})
    with Run.join(two[1]) as run, run.result() as folder:
        (folder / "adapter_model.safetensors").write_bytes(b"now")
    report = two[1] / "eval" / "news" / "report.json"
    told = json.loads(report.read_text())
    told["systems"]["after"]["weights"] = {"b": {"adapter_model.safetensors": "0" * 64}}
    write(report, told)
    (why,) = compared(*two)["apart"]
    assert (
        why["en"] == f"{two[1]}/eval/news is of other weights than the run has now -> luthier eval it again"
    )


def test_missing_answers_are_counted(two: tuple[Path, Path]) -> None:
    file = two[1] / "eval" / "news" / "answers.after.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-2]) + lines[-2][:20])  # as a kill leaves it
    (why,) = compared(*two)["apart"]
    assert why["en"] == f"{file} holds 22 of 24 answers -> luthier eval it again"


def test_labels_that_only_one_run_knows_do_not_matter(tmp_path: Path) -> None:
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b")
    evaluated(a, HALF, RIGHT)
    evaluated(b, RIGHT, RIGHT, labels=["maybe", "no", "yes", "trained only"])
    figure = compared(a, b)["tasks"]["news"]["macro_f1"]
    assert figure["after"] == 1.0
    assert figure["before"] == pytest.approx(0.5 / 3, abs=1e-12)  # yes: precision 1/3, recall 1


def likelihood(folder: Path, labels: list[str], rows: list[list[float]]) -> None:
    """Add the log probabilities of `labels`, and their order, to an evaluation."""
    report = json.loads((folder / "report.json").read_text("utf-8"))
    report["details"]["news"]["labels"] = labels
    write(folder / "report.json", report)
    with open(folder / "answers.after.jsonl", "a", encoding="utf-8") as file:
        for i, scores in enumerate(rows):
            record = {
                "task": "news.likelihood",
                "fingerprint": "g",
                "row": i,
                "source": "s",
                "scores": scores,
            }
            file.write(json.dumps(record) + "\n")


def test_likelihoods_of_labels_in_another_order(tmp_path: Path) -> None:
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b")
    sure = [[-0.1 if label == right else -3.0 for label in ("yes", "no", "maybe")] for right in RIGHT]
    likelihood(evaluated(a, HALF, RIGHT), ["yes", "no", "maybe"], sure)
    folder = evaluated(b, HALF, RIGHT)
    likelihood(folder, ["maybe", "yes", "no"], [[row[2], row[0], row[1]] for row in sure])
    figures = compared(a, b)["tasks"]["news"]
    assert {one["verdict"] for one in figures.values()} == {"no evidence"}
    assert (figures["likelihood_accuracy"]["before"], figures["likelihood_accuracy"]["after"]) == (1.0, 1.0)
    assert (figures["likelihood_ece"]["delta"], "likelihood_outside_labels" in figures) == (0.0, False)
    report = json.loads((folder / "report.json").read_text("utf-8"))
    report["details"]["news"]["labels"] = ["maybe", "yes", "no", "never"]
    write(folder / "report.json", report)
    assert not {name for name in compared(a, b)["tasks"]["news"] if name.startswith("likelihood")}


def test_numbers_are_scored_with_the_tolerance_that_was_asked_for(tmp_path: Path) -> None:
    a, b, c = (bare(tmp_path / name) for name in "abc")
    right = [str(100 + i) for i in range(10)]
    near = [str(101 + i) for i in range(10)]
    for run, answers, tolerance in ((a, near, 0.02), (b, right, 0.02), (c, right, 0.5)):
        evaluated(run, answers, right, kind="number", tolerance=tolerance)
    assert compared(a, b)["tasks"]["news"]["number_match"]["before"] == 1.0
    (why,) = compared(a, c)["apart"]
    assert "a tolerance of 0.02 in one run and of 0.5 in the other" in why["en"]


def test_answers_with_odd_ends_of_lines(tmp_path: Path) -> None:
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b")
    evaluated(a, ["yes\u2028or\x85no"] * 24, RIGHT)
    evaluated(b, RIGHT, RIGHT)
    assert compared(a, b)["rows"]["news"]["won"] == 24


def test_thoughts_are_no_part_of_an_answer(tmp_path: Path) -> None:
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b", thought=["<think>", "</think>"])
    evaluated(a, RIGHT, RIGHT)
    evaluated(b, [f"<think>hm</think>\n{text}" for text in RIGHT], RIGHT)
    assert compared(a, b)["tasks"]["news"]["accuracy"]["after"] == 1.0


def test_free_text_is_compared_by_its_own_metrics(tmp_path: Path) -> None:
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b")
    right = [f"the answer number {i} is this" for i in range(12)]
    evaluated(a, ["nothing at all"] * 12, right, kind="text")
    evaluated(b, right, right, kind="text")
    told = compared(a, b)
    assert told["tasks"]["news"]["exact_match"] | {"low": 1, "high": 1} == {
        "before": 0.0, "after": 1.0, "delta": 1.0, "low": 1, "high": 1, "n": 12, "verdict": "improved",
    }  # fmt: skip
    assert (told["rows"]["news"]["rated"], told["rows"]["news"]["won"]) == ("token_f1", 12)


def perplexity(run: Path, nats: list[float], tokens: list[int]) -> None:
    detail = {"kind": "perplexity", "rows": len(nats), "notes": [], "sha256": "s"}
    records = [
        {"task": "prose", "fingerprint": "f", "row": i, "source": f"t{i}", "input": "", "reference": "",
         "scores": [score], "tokens": count}
        for i, (score, count) in enumerate(zip(nats, tokens, strict=True))
    ]  # fmt: skip
    sides = {"before": {"weights": {}}, "after": {"weights": {}}}
    kept(
        run / "eval" / "prose",
        {"tasks": {"prose": {}}, "details": {"prose": detail}, "systems": sides},
        records,
    )


def test_perplexity_of_the_same_tokens(tmp_path: Path) -> None:
    a, b, c = (bare(tmp_path / name) for name in "abc")
    perplexity(a, [-10.0, -20.0, -33.0, -41.0], [10, 20, 30, 40])
    perplexity(b, [-20.0, -40.0, -61.0, -79.0], [10, 20, 30, 40])
    perplexity(c, [-20.0, -40.0, -61.0, -79.0], [10, 20, 30, 41])
    figure = compared(a, b)["tasks"]["prose"]["perplexity"]
    assert figure["before"] == pytest.approx(np.exp(104 / 100), rel=1e-12)
    assert figure["after"] == pytest.approx(np.exp(200 / 100), rel=1e-12)
    assert compared(a, c)["apart"][0]["key"] == "other_tokens"


def suite(run: Path, points: dict[str, dict[str, float]]) -> None:
    detail = {"kind": "suite", "notes": [], "sha256": "s", "points": {"after": points}}
    records = [
        {"task": f"suite.{ability}", "fingerprint": "f", "row": i, "source": name, "input": "2+2?",
         "reference": "4", "answer": "4" if right else "5"}
        for ability, part in points.items()
        for i, (name, right) in enumerate(part.items())
    ]  # fmt: skip
    sides = {"before": {"weights": {}}, "after": {"weights": {}}}
    kept(
        run / "eval" / "x", {"tasks": {"suite": {}}, "details": {"suite": detail}, "systems": sides}, records
    )


def test_what_was_forgotten_is_compared_by_ability(tmp_path: Path) -> None:
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b")
    suite(a, {"arithmetic": {f"q{i}": 1.0 for i in range(12)}, "reading": {"r": 0.0}})
    suite(b, {"arithmetic": {f"q{i}": float(i < 1) for i in range(12)}, "reading": {"r": 1.0}})
    told = compared(a, b)
    figures = told["tasks"]["suite"]
    assert (figures["arithmetic"]["before"], figures["arithmetic"]["after"]) == (1.0, 1 / 12)
    assert (figures["arithmetic"]["verdict"], figures["reading"]["verdict"]) == ("regressed", "no evidence")
    rows = told["rows"]["suite"]
    assert (rows["won"], rows["lost"], rows["equal"]) == (1, 11, 1)
    assert rows["won_rows"] == [
        {"source": "r", "input": "2+2?", "reference": "4", "before": "5", "after": "4"}
    ]


def predictions(run: Path, answers: list[str]) -> None:
    rows = [
        {"prompt": f"p{i}", "predict": answer, "label": right}
        for i, (answer, right) in enumerate(zip(answers, RIGHT, strict=True))
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "generated_predictions.jsonl").write_text(lines)


def test_predictions_of_the_same_prompts_are_evidence_too(tmp_path: Path) -> None:
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b")
    predictions(a, HALF)
    predictions(b, RIGHT)
    reordered = (b / "generated_predictions.jsonl").read_text().splitlines()[::-1]
    (b / "generated_predictions.jsonl").write_text("\n".join(reordered) + "\n")
    told = compared(a, b)
    assert told["kinds"] == {"predictions": "labels"}
    figure = told["tasks"]["predictions"]["accuracy"]
    assert (figure["before"], figure["after"], figure["verdict"]) == (8 / 24, 1.0, "improved")
    (b / "generated_predictions.jsonl").write_text("\n".join(reordered[:-1]) + "\n")
    (why,) = compared(a, b)["apart"]
    assert "23 rows have the same prompt and label, of 24 and 23" in why["en"]
    (b / "generated_predictions.jsonl").write_text('{"prompt": "p"}\n')
    assert "generated_predictions.jsonl:1 is no prediction" in compared(a, b)["apart"][0]["en"]


def test_the_newest_evaluation_counts(two: tuple[Path, Path]) -> None:
    (two[1] / "eval" / "news").rename(two[1] / "eval" / "first")
    older(two[1] / "eval" / "first" / "report.json", 60)
    evaluated(two[1], RIGHT, RIGHT)
    assert compared(*two)["tasks"]["news"]["accuracy"]["after"] == 1.0


# --- real evaluations


def test_runs_that_were_trained_and_evaluated(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low, high, other = (history / name for name in ("low", "high", "other"))
    assert cli.main(["compare", str(low), str(high), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    changed = {line["key"] for line in told["config"]}
    assert {"learning_rate", "lora_rank", "lora_alpha"} <= changed
    assert told["data"] == []
    reports = [json.loads((run / "eval" / "eval" / "report.json").read_text("utf-8")) for run in (low, high)]
    figures = told["tasks"]["eval"]
    assert set(figures) == set(reports[0]["tasks"]["eval"])
    for metric, figure in figures.items():
        values = [report["tasks"]["eval"][metric]["after"] for report in reports]
        assert [figure["before"], figure["after"]] == pytest.approx(values, abs=1e-12)
    assert set(told["tasks"]) == {"eval", "predictions"}
    assert [len(told["curves"][key]["a"]) for key in ("loss", "eval_loss")] == [12, 3]
    cost = {line["key"]: line["b"] for line in told["cost"]}
    assert (cost["steps"], cost["tokens"] > 0, cost["seconds"] > 0, cost["peak_memory"] > 0) == (
        12, True, True, True,
    )  # fmt: skip
    apart = compared(low, other)["apart"]
    assert {one["key"] for one in apart} == {"other_rows", "only_one"}
