"""Checks of closed answer sets, on literal tables: what is found, in which rows, and what mends it."""

import json
import random
import shlex
from pathlib import Path

import pytest

from luthier import cli
from luthier.data.spec import DatasetSpec
from luthier.prepare.checks import Data, labelled
from luthier.prepare.report import Finding
from luthier.prepare.table import Table

SUBJECTS = {
    "sport": "match goal team coach league player score stadium referee trophy".split(),
    "money": "bank share price market profit bond loan invest broker dividend".split(),
    "music": "song album band guitar singer chorus concert melody drum violin".split(),
}
CHECKS = (labelled.label_names, labelled.class_balance, labelled.label_noise, labelled.agreement)


def data(answers: list[str], inputs: list[str] | None = None, **columns: list[str | None]) -> Data:
    table = Table(DatasetSpec("rows", "file", "rows.json"), "sft")
    table.answers = answers
    table.inputs = inputs or [f"question {i}" for i in range(len(answers))]
    table.sources = [f"rows.json:{i}" for i in range(1, len(answers) + 1)]
    table.labels = dict(columns)
    return Data("rows.json", table)


def texts(answers: list[str], seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.sample(SUBJECTS[answer], 5)) for answer in answers]


def only(findings: object) -> Finding:
    (found,) = findings  # type: ignore[misc]
    assert isinstance(found, Finding)
    json.dumps(found.as_dict())
    return found


def test_free_text_has_no_labels() -> None:
    free = data([f"a long answer with its own words, {i}" for i in range(40)])
    assert [list(check(free)) for check in CHECKS] == [[], [], [], []]


def test_names_and_the_step_that_mends_them(tmp_path: Path) -> None:
    answers = ["体育"] * 30 + ["财经"] * 30 + ["体育 ", "体育\u200b", "Sports", "体育 "]
    found = only(labelled.label_names(data(answers)))
    assert found.rows == [f"rows.json:{i}" for i in (61, 62, 63, 64)]
    assert found.samples[0] == "rows.json:61: '体育 ' (2 rows), another form of '体育'"
    assert found.samples[1] == "rows.json:62: '体育\\u200b' (1 row), another form of '体育'"
    assert found.what == (
        "4 rows with an answer that is almost a label (3 such answers)"
        "; what 1 of them should be called is for you to add to the command"
    )

    file = tmp_path / "rows.json"
    file.write_text(
        json.dumps([{"instruction": f"题 {i}：体育 ", "output": a} for i, a in enumerate(answers)]), "utf-8"
    )
    words = shlex.split(found.fix)
    assert words[:3] == ["luthier", "data", "clean"]
    out = tmp_path / "out.json"
    assert cli.main(["data", "clean", str(file), *words[4:], "--out", str(out)]) == 0
    cleaned = json.loads(out.read_text("utf-8"))
    assert [row["output"] for row in cleaned] == ["体育"] * 30 + ["财经"] * 30 + [
        "体育",
        "体育",
        "Sports",
        "体育",
    ]
    assert cleaned[0]["instruction"] == "题 0：体育 "


def test_a_label_without_a_likely_name_is_to_be_filled_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = only(labelled.label_names(data(["体育"] * 30 + ["财经"] * 30 + ["Sports"])))
    words = shlex.split(found.fix)
    assert words[-1] == 'label_names.renames={"Sports": ""}'
    file = tmp_path / "rows.json"
    file.write_text('[{"instruction": "x", "output": "Sports"}]', "utf-8")
    assert cli.main(["data", "clean", str(file), *words[4:]]) == 2
    assert "'Sports' has no new name" in capsys.readouterr().err


def test_balance_of_even_classes_is_a_note() -> None:
    found = only(labelled.class_balance(data(["a", "b"] * 20)))
    assert (found.severity, found.rows, found.count) == ("note", (), 2)
    assert found.figures == {"classes": {"a": 20, "b": 20}, "ratio": 1.0, "evenness": 1.0}


def test_rare_and_heavy_classes() -> None:
    """Variants count as the label that they mean, so "A." is no rare class."""
    answers = ["A"] * 79 + ["A."] + ["B"] * 18 + ["C"] * 2
    note, rare, heavy = labelled.class_balance(data(answers))
    assert note.figures["classes"] == {"A": 80, "B": 18, "C": 2}
    assert (rare.severity, rare.rows, rare.figures["classes"]) == (
        "warning", ["rows.json:99", "rows.json:100"], {"C": 2},
    )  # fmt: skip
    assert (heavy.severity, heavy.count) == ("warning", 80) and "80%" in heavy.what


def test_flipped_labels_are_listed_in_the_order_of_the_file() -> None:
    pytest.importorskip("sklearn")
    answers = random.Random(1).choices(list(SUBJECTS), k=300)
    inputs = [f"Answer with one of: sport, money, music.\n{text}" for text in texts(answers)]
    flipped = sorted(random.Random(2).sample(range(300), 6))
    given = list(answers)
    for i in flipped:
        given[i] = {"sport": "money", "money": "music", "music": "sport"}[answers[i]]
    found = only(labelled.label_noise(data(given, inputs)))
    assert found.rows == [f"rows.json:{i + 1}" for i in flipped]
    assert "clean" not in found.fix
    suspects = {source: (was, likely) for source, was, likely, _ in found.figures["suspects"]}
    assert suspects == {f"rows.json:{i + 1}": (given[i], answers[i]) for i in flipped}
    assert found.samples[0].startswith("rows.json:") and "Answer with" not in found.samples[0]
    assert found.figures["judged"] == 300 and found.figures["accuracy"] > 0.95
    assert sum(count for _, _, count in found.figures["confusions"]) == 6


def test_sampling_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(labelled.noise, "ROWS", 100)
    answers = random.Random(1).choices(list(SUBJECTS), k=300)
    found = only(labelled.label_noise(data(answers, texts(answers))))
    assert found.severity == "note" and "100 of 300 rows were drawn at random" in found.what


def test_too_few_rows_to_tell_wrong_labels() -> None:
    found = only(labelled.label_noise(data(["a", "b"] * 4)))
    assert found.severity == "note" and "fewer than two classes have 5 rows" in found.what


@pytest.mark.parametrize("inputs", [["the same"] * 40, ["", "x"] * 20])
def test_inputs_that_say_nothing_have_no_suspects(inputs: list[str]) -> None:
    pytest.importorskip("sklearn")
    assert list(labelled.label_noise(data(["a", "a", "b", "b"] * 10, inputs))) == []


def test_two_annotators() -> None:
    """20 + 15 of 50 agree, half by chance: Cohen's kappa is 0.4. Case is no matter."""
    first: list[str | None] = ["yes"] * 25 + ["no"] * 25
    second: list[str | None] = ["Yes"] * 20 + ["No"] * 5 + ["Yes"] * 10 + ["No"] * 15
    free = [f"something of its own {i}" for i in range(50)]
    found = only(labelled.agreement(data(free, ann=first, bob=second, topic=["x", "y"] * 25)))
    assert (found.severity, found.count) == ("warning", 15)
    assert found.rows == [f"rows.json:{i}" for i in range(21, 36)]
    assert found.figures["kappa"] == 0.4 and found.figures["pairs"] == {"ann / bob": 0.4}
    assert found.samples[0] == "rows.json:21: question 20 | ann 'yes', bob 'no'"


def test_three_annotators_and_the_answers() -> None:
    labels = ["a", "b", "c", "a", "b", "c"] * 5
    columns: dict[str, list[str | None]] = {name: list(labels) for name in ("ann", "bob", "cyd")}
    columns["cyd"][0] = "b"
    columns["bob"][1] = None
    among, *with_answers = labelled.agreement(data(labels, None, **columns))
    assert among.what.startswith("Fleiss's kappa of ann, bob, cyd is 0.97, almost perfect")
    assert (among.severity, among.rows) == ("note", ["rows.json:1"])
    assert among.figures["pairs"]["ann / bob"] == 1.0
    assert [one.count for one in with_answers] == [0, 0, 1]
    assert with_answers[2].rows == ["rows.json:1"]


def test_annotators_who_share_no_row_cannot_be_compared() -> None:
    half: list[str | None] = ["a", "b"] * 10
    nothing: list[str | None] = [None] * 20
    free = [f"something of its own {i}" for i in range(40)]
    assert list(labelled.agreement(data(free, None, ann=half + nothing, bob=nothing + half))) == []
