from __future__ import annotations

import json
import sys

import pytest

from luthier.data.spec import DatasetSpec
from luthier.errors import MissingPackage
from luthier.prepare import exact
from luthier.prepare.checks import Data, duplicates
from luthier.prepare.report import Finding
from luthier.prepare.table import Table
from luthier.types import Example, Message, Row

pytest.importorskip("rensa")
pytest.importorskip("jieba")

LONG = "Take a pen, write the new address on the form and send it to the office that you see on the last page"
QUESTION = "How do I change the address that is printed on my monthly statement?"
OTHER = "Why was my card declined at the petrol station yesterday evening?"
INSTRUCTION = "Sort the following headline into one of the ten sections of the newspaper, and name it: "
SUBJECTS = ("swimming", "elections", "tariffs", "novels", "trains", "museums")
EVENTS = (
    "delight everybody", "annoy shopkeepers", "were postponed", "cause quarrels", "win prizes",
    "bring nothing new", "return on Monday", "divide the cabinet", "make headlines", "end in tears",
)  # fmt: skip
HEADLINES = [f"{subject} {event}" for subject in SUBJECTS for event in EVENTS]


def table(rows: list[tuple[str, str]], stage: str = "sft", name: str = "train.json", **more: list) -> Table:
    """Rows of (input, answer); more: `systems`, `rejected` and `verdicts` beside them."""
    made = Table(DatasetSpec(name, "file", name), stage)
    for i, (text, answer) in enumerate(rows):
        trunk = [Message("system", more["systems"][i])] if "systems" in more else []
        trunk += [Message("user", text)] if text else []
        ends = [answer] + ([more["rejected"][i]] if "rejected" in more else [])
        branches = tuple((Message("text" if stage == "pt" else "assistant", end, 1.0),) for end in ends)
        verdict = more["verdicts"][i] if "verdicts" in more else None
        source = f"{name}:{i + 1}"
        made.add(Row({}, source), Example(tuple(trunk), branches, verdict, source=source))
    return made


def data(rows: list[tuple[str, str]], stage: str = "sft", **more: list) -> Data:
    return Data("train.json", table(rows, stage, **more), say=pytest.fail)


def numbers(found: Finding) -> list[int]:
    """The rows of a finding by their numbers, in one file."""
    json.dumps(found.as_dict())
    assert found.count == len(found.rows)
    return [int(source.rpartition(":")[2]) for source in found.rows]


def test_exact_and_near_copies_are_two_findings() -> None:
    rows = [(QUESTION, LONG), (OTHER, LONG), (QUESTION.upper(), LONG), (QUESTION, LONG + "!"), (OTHER, LONG)]
    equal, near = duplicates.duplicates(data(rows))
    assert (numbers(equal), dict(equal.figures)) == ([3, 5], {"exact": 2, "kept": 2, "share": 0.4})
    assert equal.fix == "luthier data clean train.json --steps deduplication deduplication.near=false"
    assert equal.samples[1].startswith("train.json:2 and train.json:5: Why was my card declined")
    # The longest row is kept, so both of the equal rows could go.
    assert (numbers(near), near.figures["near"]) == ([1], 1)
    assert near.fix == "luthier data clean train.json --steps deduplication"
    assert near.samples == [
        "train.json:4 and train.json:1: …that you see on the last page! | …that you see on the last page"
    ]


def test_many_questions_about_one_document_are_no_copies() -> None:
    text = " ".join(f"{a.capitalize()} {b}." for a, b in zip(SUBJECTS * 10, EVENTS * 6, strict=True))
    asked = ["When does it begin?", "Who pays for it?", "What do critics say?", "Why is it so loud?"]
    rows = [(f"{text}\n\n{question}", f"{LONG}, {a}") for question, a in zip(asked, SUBJECTS, strict=False)]
    assert list(duplicates.duplicates(data(rows))) == []


def test_an_instruction_that_all_rows_share_finds_nothing() -> None:
    rows = [(INSTRUCTION + line, SUBJECTS[i % 6]) for i, line in enumerate(HEADLINES)]
    made = data(rows)
    assert made.closed
    assert [*duplicates.duplicates(made), *duplicates.contradictions(made)] == []
    free = data([(text, f"{LONG}, and then {HEADLINES[i]}") for i, (text, _) in enumerate(rows)])
    assert [*duplicates.duplicates(free), *duplicates.contradictions(free)] == []
    free.evals = [table([(INSTRUCTION + "kings play chess", "games")], name="eval.json")]
    assert list(duplicates.leakage(free)) == []


def test_the_system_prompt_is_part_of_a_row() -> None:
    rows = [(QUESTION, LONG), (QUESTION, LONG), (QUESTION, LONG)]
    (found,) = duplicates.duplicates(data(rows, systems=["Be brief.", "Be kind.", "Be brief."]))
    assert numbers(found) == [3]
    rows = [(QUESTION, "yes"), (QUESTION, "no")]
    assert list(duplicates.contradictions(data(rows, systems=["Be brief.", "Be kind."]))) == []


def labelled(*more: tuple[str, str]) -> Data:
    return data([(line, SUBJECTS[i % 6]) for i, line in enumerate(HEADLINES)] + list(more))


def test_labels_equal_inputs_are_errors_and_near_ones_warnings() -> None:
    made = labelled((QUESTION, "trains"), (QUESTION, "novels"), (OTHER, "novels"), (OTHER + "!", "museums"))
    assert list(duplicates.duplicates(made)) == []
    equal, near = duplicates.contradictions(made)
    assert (equal.severity, numbers(equal), equal.figures["inputs"]) == ("error", [61, 62], 1)
    assert equal.figures["groups"] == [["train.json:61", "train.json:62"]]
    assert equal.samples == [
        "train.json:61: How do I change the address that is pri… -> trains"
        " | train.json:62: How do I change the address that is pri… -> novels"
    ]
    assert (near.severity, numbers(near)) == ("warning", [63, 64])


def test_labels_near_inputs_with_one_label_are_copies() -> None:
    made = labelled((QUESTION, "trains"), (QUESTION + "!", "Trains"), (QUESTION[:-1], "novels"))
    (found,) = duplicates.duplicates(made)
    assert numbers(found) == [61]  # the longer one is kept
    (found,) = duplicates.contradictions(made)
    assert numbers(found) == [61, 62, 63]


def test_open_questions_may_have_several_answers() -> None:
    rows = [
        (QUESTION, LONG),
        (QUESTION, LONG + " or go there."),
        (OTHER, "No."),
        (OTHER, "Yes."),
        ("Hi", "Hi"),
    ]
    short, long = duplicates.contradictions(data(rows))
    assert (short.severity, numbers(short)) == ("warning", [3, 4])
    assert (long.severity, numbers(long), long.fix) == ("note", [1, 2], "")


def test_an_order_without_a_question_is_no_input_of_its_own() -> None:
    """ "Write a poem." sixty times, with sixty poems: neither a contradiction nor a leak, but a poem is."""
    rows = [("Write a poem.", f"{line}, and so do we, day after day") for line in HEADLINES]
    made = data(rows)
    assert list(duplicates.contradictions(made)) == []
    made.evals = [table([("Write a poem.", "The sea is wide and cold tonight."), rows[3]], name="eval.json")]
    (found,) = duplicates.leakage(made)
    assert list(found.rows) == ["eval.json:2"]


def test_leakage_names_the_training_row() -> None:
    made = data([(OTHER, "a"), (QUESTION, "b")])
    made.evals = [
        table([("Something new", "a"), (QUESTION.upper(), "c")], name="one.json"),
        table([(QUESTION.replace("address", "adress"), "b")], name="two files.json"),
    ]
    equal, near = duplicates.leakage(made)
    assert (equal.severity, equal.rows, equal.figures["train_rows"]) == (
        "error", ["one.json:2"], ["train.json:2"],
    )  # fmt: skip
    assert equal.what == "1 of 2 rows of one.json are also in the training data"
    assert equal.fix == "luthier data clean train.json --not-in one.json"
    assert (near.severity, near.rows, near.figures["train_rows"]) == (
        "warning", ["two files.json:1"], ["train.json:2"],
    )  # fmt: skip
    assert 0.8 < near.figures["similarity"][0] < 1
    assert near.fix == "luthier data clean train.json --not-in 'two files.json'"


def test_pairs_count_with_both_answers() -> None:
    rows = [(QUESTION, LONG)] * 3 + [(OTHER, LONG)]
    rejected = [LONG + " or not", "I do not know what you mean by that.", LONG + " or not", "No idea."]
    (found,) = duplicates.duplicates(data(rows, "rm", rejected=rejected))
    assert numbers(found) == [3]


def test_a_pair_both_ways_round_contradicts_itself() -> None:
    rows = [(QUESTION, "Yes."), (QUESTION, "No."), (OTHER, "Same."), (OTHER, "Yes.")]
    found = list(duplicates.contradictions(data(rows, "rm", rejected=["No.", "Yes.", "Same.", "No."])))
    assert [(one.severity, numbers(one)) for one in found] == [("error", [1, 2]), ("error", [3])]


def test_kto_prompts_have_good_and_bad_answers() -> None:
    rows = [(QUESTION, LONG), (QUESTION, "No."), (OTHER, LONG), (OTHER, LONG), (OTHER, LONG)]
    made = data(rows, "kto", verdicts=[True, False, True, False, True])
    (found,) = duplicates.contradictions(made)
    assert (found.severity, numbers(found)) == ("error", [3, 4, 5])
    (found,) = duplicates.duplicates(made)
    assert numbers(found) == [5]


def test_texts_of_pretraining() -> None:
    made = data([("", LONG), ("", LONG + "."), ("", QUESTION), ("", LONG.upper())], "pt")
    equal, near = duplicates.duplicates(made)
    assert (numbers(equal), numbers(near)) == ([4], [1])
    assert list(duplicates.contradictions(made)) == []
    made.evals = [table([("", QUESTION)], "pt", "eval.json")]
    assert [found.rows for found in duplicates.leakage(made)] == [["eval.json:1"]]


def test_without_a_package_equal_rows_are_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    for check, made in (
        (duplicates.duplicates, data([(QUESTION, LONG), (QUESTION, LONG), (OTHER, LONG)])),
        (duplicates.contradictions, labelled((QUESTION, "trains"), (QUESTION, "novels"))),
    ):
        found = check(made)
        assert next(found).count in (1, 2)
        with pytest.raises(MissingPackage, match="rensa"):
            next(found)


def test_private_parts_of_samples_are_masked() -> None:
    line = "Please write to anna.schmidt@gmail.com about the invoice."
    (found,) = duplicates.duplicates(data([(line, LONG), (line, LONG)]))
    assert "anna" not in found.samples[0] and "Please write to" in found.samples[0]


def test_strange_characters() -> None:
    rows = [("\ud800 \0", "\udfff"), ("\ud800 \0", "\udffe"), ("", "\ud800"), ("a", "")]
    made = data(rows)
    assert exact.key("\ud800") != exact.key("\udfff")
    assert list(duplicates.duplicates(made)) == []
    (found,) = duplicates.contradictions(made)
    assert numbers(found) == [1, 2]
