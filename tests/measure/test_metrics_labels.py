"""Closed labels: equal to scikit-learn on random answers, to numbers worked out by hand on literal ones."""

import numpy as np
import pytest

from luthier.errors import DataError, MissingPackage, UsageError
from luthier.measure.metrics import METRICS, PACKAGES, load
from luthier.measure.metrics.labels import calibration, confusion, metrics, per_class, reliability
from luthier.measure.types import Answered

NAMES = ("体育", "财经", "教育", "时政")


def answered(pairs: list[tuple[str, str]], labels: tuple[str, ...] = (), scores=None) -> Answered:
    """(answer, reference) pairs as a task."""
    answers, references = zip(*pairs, strict=True) if pairs else ((), ())
    sources = tuple(f"eval.json:{i + 1}" for i in range(len(pairs)))
    return Answered(sources, sources, references, answers, scores=scores, labels=labels)


def drawn(seed: int, n: int = 120) -> list[tuple[str, str]]:
    draw = np.random.default_rng(seed)
    references = draw.choice(NAMES[: 2 + seed % 3], n)
    answers = np.where(draw.random(n) < 0.6, references, draw.choice([*NAMES, "不知道", ""], n))
    return list(zip(answers.tolist(), references.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_scikit_learn(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    pairs = drawn(seed)
    got, want = map(list, zip(*pairs, strict=True))
    present = sorted(set(want))
    found = {name: m.value for name, m in metrics(answered(pairs, NAMES)).items()}
    of = {"y_true": want, "y_pred": got, "labels": present, "zero_division": 0}
    assert found == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(want, got),
            "macro_f1": sklearn.f1_score(average="macro", **of),
            "weighted_f1": sklearn.f1_score(average="weighted", **of),
            "macro_precision": sklearn.precision_score(average="macro", **of),
            "macro_recall": sklearn.recall_score(average="macro", **of),
            "outside_labels": np.mean([g not in NAMES for g in got]),
        },
        abs=1e-9,
    )
    classes = per_class(answered(pairs, NAMES))
    theirs = sklearn.precision_recall_fscore_support(average=None, **of)
    for i, label in enumerate(present):
        mine = [classes[label][name].value for name in ("precision", "recall", "f1")]
        assert mine == pytest.approx([column[i] for column in theirs[:3]], abs=1e-9)
        assert classes[label]["f1"].rows.sum(0)[2] == theirs[3][i]
    assert list(classes) == [name for name in NAMES if name in present]
    columns = [*NAMES, "outside"]
    table = sklearn.confusion_matrix(want, [g if g in NAMES else "outside" for g in got], labels=columns)
    assert (confusion(answered(pairs, NAMES)).counts == table[:-1]).all()


def test_any_resample_equals_the_metric_of_its_rows() -> None:
    pairs, draw = drawn(2), np.random.default_rng(0)
    picked = draw.integers(0, len(pairs), len(pairs))
    whole, part = metrics(answered(pairs, NAMES)), metrics(answered([pairs[i] for i in picked], NAMES))
    for name, measured in whole.items():
        sums = np.stack([measured.rows.sum(0), measured.rows[picked].sum(0)])
        assert measured.of(sums).tolist() == pytest.approx([measured.value, part[name].value], abs=1e-12)


def test_literal_answers() -> None:
    pairs = [("体育。", "体育"), ("财经", "体育"), ("体育新闻", "财经"), (" 财经\n", "财经")]
    found = metrics(answered(pairs))
    assert found["accuracy"].value == 0.5
    assert found["outside_labels"].value == 0.25 and not found["outside_labels"].higher
    # F1 of 体育: 2 * 1 / (1 + 2); of 财经: 2 * 1 / (2 + 2)
    assert found["macro_f1"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert confusion(answered(pairs)).counts.tolist() == [[1, 1, 0], [0, 1, 1]]
    assert found["accuracy"].per_row is not None and found["accuracy"].per_row.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_calibration_equals_the_bins_of_scikit_learn(seed: int) -> None:
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(300, 4)) * 2
    pairs = list(zip(draw.choice(NAMES, 300).tolist(), draw.choice(NAMES, 300).tolist(), strict=True))
    task = answered(pairs, NAMES, scores)
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    right = share.argmax(1) == [NAMES.index(reference) for _, reference in pairs]
    accuracy, confidence = curve(right, share.max(1), n_bins=15)
    bins = reliability(task)
    assert [b["confidence"] for b in bins] == pytest.approx(confidence, abs=1e-9)
    assert [b["accuracy"] for b in bins] == pytest.approx(accuracy, abs=1e-9)
    gaps = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / 300
    assert calibration(task).value == pytest.approx(gaps, abs=1e-12)
    assert metrics(task)["ece"].value == calibration(task).value


def test_probabilities_that_are_right_as_often_as_they_say_have_no_error() -> None:
    scores = np.log([[0.75, 0.25]] * 4)
    pairs = [("a", "a")] * 3 + [("a", "b")]
    assert calibration(answered(pairs, ("a", "b"), scores)).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("pairs", "labels", "scores", "said"),
    [
        ([], (), None, "no row to evaluate"),
        ([("a", "c")], ("a", "b"), None, 'eval.json:1: the reference "c" is none of the 2 labels'),
        ([("a", "a")], ("a", "b"), np.zeros((1, 3)), "each of 2 labels in each of 1 rows"),
        ([("a", "a")], ("a", "b"), np.full((1, 2), -np.inf), "eval.json:1: no label has a usable"),
        ([("a", "a")], ("a", "b"), np.array([[0.0, np.nan]]), "eval.json:1: no label has a usable"),
    ],
)
def test_what_cannot_be_scored_is_said(pairs, labels, scores, said: str) -> None:
    with pytest.raises(DataError, match=said):
        metrics(answered(pairs, labels, scores))


def test_every_task_refuses_an_empty_set_and_rows_without_answers() -> None:
    for task in METRICS:
        with pytest.raises(DataError, match="no row to evaluate"):
            load(task)(answered([]))
        with pytest.raises(DataError, match="1 references but 0 answers"):
            load(task)(Answered(("eval.json:1",), ("?",), ("{}",), ()))


def test_unknown_tasks_and_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match='"poem" is no task -> one of choice, extraction'):
        load("poem")
    monkeypatch.setitem(PACKAGES, "labels", ("no_such",))
    with pytest.raises(MissingPackage, match=r"luthier\[metrics\]"):
        load("labels")
