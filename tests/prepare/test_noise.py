import random

import numpy as np
import pytest

from luthier.errors import DataError
from luthier.prepare import classify, noise

pytest.importorskip("sklearn")

SUBJECTS = {
    "sport": "match goal team coach league player score stadium referee trophy".split(),
    "money": "bank share price market profit bond loan invest broker dividend".split(),
    "体育": "比赛 进球 球队 教练 联赛 球员 比分 球场 裁判 冠军".split(),
    "财经": "银行 股票 价格 市场 利润 债券 贷款 投资 券商 分红".split(),
}


def corpus(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    labels = [rng.choice(list(SUBJECTS)) for _ in range(count)]
    return [" ".join(rng.sample(SUBJECTS[label], 5)) for label in labels], labels


def test_confident_joint() -> None:
    """Thresholds are the mean self-confidences 0.7 and 0.6; the last row is confident of nothing.

    Label 0: 0.9, 0.8, 0.4 -> mean 0.7. Label 1: 0.8, 0.55, 0.45 -> mean 0.6.
    """
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55], [0.55, 0.45]])
    given = np.array([0, 0, 0, 1, 1, 1])
    assert noise.confident_joint(probabilities, given).tolist() == [[2, 1], [0, 1]]


def test_confident_joint_takes_the_most_probable_of_several() -> None:
    probabilities = np.array([[0.4, 0.35, 0.25], [0.2, 0.3, 0.5], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    given = np.array([0, 0, 1, 2])
    assert noise.confident_joint(probabilities, given).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_the_mixture_by_hand() -> None:
    """98 sure rows and 2 impossible ones: rate and shares are at the fixed point of their equations."""
    own = np.array([1.0] * 98 + [0.0] * 2)
    given = np.array([0] * 50 + [1] * 50)
    found = noise.mislabelled(
        np.stack([np.where(given == 0, own, 1 - own), np.where(given, own, 1 - own)], 1), given
    )
    assert found[-2:].tolist() == [1.0, 1.0]
    assert found[:98].max() < 0.03


def test_flipped_labels_are_found() -> None:
    texts, labels = corpus(800)
    rng = random.Random(1)
    flipped = dict.fromkeys(rng.sample(range(800), 20))
    for i in flipped:
        flipped[i] = labels[i]
        labels[i] = rng.choice([label for label in SUBJECTS if label != labels[i]])
    found = noise.label_noise(texts, labels, [f"f:{i}" for i in range(800)])
    assert {s.row.index: s.likely for s in found.suspects} == flipped
    assert [s.probability for s in found.suspects] == sorted(
        (s.probability for s in found.suspects), reverse=True
    )
    assert found.suspects[0].row.source == f"f:{found.suspects[0].row.index}"
    assert found.rows == 800 and found.rate == pytest.approx(20 / 800, abs=0.01) and found.accuracy > 0.97


def test_clean_labels_have_no_suspects_and_two_classes_work() -> None:
    texts, labels = corpus(400)
    rows = [i for i, label in enumerate(labels) if label in ("sport", "money")]
    found = noise.label_noise([texts[i] for i in rows], [labels[i] for i in rows])
    assert found.suspects == () and found.accuracy == 1.0 and found.confusions == ()


def test_small_classes_are_left_out_and_the_result_is_repeatable() -> None:
    texts, labels = corpus(300)
    texts += ["alone in its class"] * 4
    labels += ["tiny"] * 4
    found = noise.label_noise(texts, labels)
    assert found.rows == 300 and found == noise.label_noise(texts, labels)


def test_too_few_classes() -> None:
    with pytest.raises(DataError, match="two labels with 5 rows each, not 1"):
        noise.label_noise(["a b"] * 9, ["x"] * 9)
    with pytest.raises(DataError, match="2 texts but 1 labels"):
        noise.label_noise(["a", "b"], ["x"])


def test_more_rows_than_the_limit_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "ROWS", 100)
    texts, labels = corpus(300)
    assert noise.label_noise(texts, labels).rows == 100


def test_leave_one_out_equals_fitting_without_the_row() -> None:
    """Against scikit-learn's naive Bayes, fitted once for each row on all the others."""
    from scipy import sparse
    from sklearn.naive_bayes import MultinomialNB

    rng = np.random.default_rng(3)
    features = sparse.csr_matrix(rng.poisson(0.7, (30, 12)).astype(np.float32))
    given = np.arange(30) % 3
    expected = np.empty((30, 3))
    for i in range(30):
        others = np.arange(30) != i
        model = MultinomialNB(alpha=classify._SMOOTHING, fit_prior=False)
        model.fit(features[others], given[others])
        expected[i] = model.predict_joint_log_proba(features[i])[0] + np.log(3)
    assert classify.leave_one_out(features, given) == pytest.approx(expected, abs=1e-3)


def test_a_corrected_label_changes_the_judgement_of_hardly_any_other_row() -> None:
    texts, labels = corpus(400)
    number = {label: k for k, label in enumerate(SUBJECTS)}
    given = np.array([number[label] for label in labels])
    before = noise.out_of_fold(texts, given)
    given[7] = (given[7] + 1) % 4
    after = noise.out_of_fold(texts, given)
    assert np.abs(np.delete(after - before, 7, axis=0)).max() < 0.2


def test_a_class_of_one_fold_alone_is_no_reason_for_suspicion() -> None:
    """All five rows of "sport" in one fold: no logistic regression of another fold knows them."""
    texts, labels = corpus(400)
    fold = np.random.default_rng(42).permutation(205) % 5
    rows = [i for i, label in enumerate(labels) if label == "money"][:90]
    rows += [i for i, label in enumerate(labels) if label != "money" and label != "sport"][:110]
    rare = iter([i for i, label in enumerate(labels) if label == "sport"][:5])
    places = set(np.flatnonzero(fold == 0)[:5])
    common = iter(rows)
    order = [next(rare) if place in places else next(common) for place in range(205)]
    found = noise.label_noise([texts[i] for i in order], [labels[i] for i in order])
    assert found.rows == 205 and not [one for one in found.suspects if one.given == "sport"]


def test_what_most_rows_share_and_the_middle_of_long_texts_is_not_compared() -> None:
    asked = "Answer with one of: sport, money."
    texts = [f"{asked}\n{kind} {'x' * 600} end" for kind in ("One", "TWO", "three")]
    assert [text[:6].strip("x ") for text in classify.trimmed(texts)] == ["one", "two", "three"]
    assert {len(text) for text in classify.trimmed(texts)} == {classify.LONGEST + 1}
    assert classify.trimmed(["same", "same"]) == ["same", "same"]


def test_texts_that_tell_nothing_make_nothing_suspicious() -> None:
    """Leaving one out makes the other class likelier; the mixture must not call all labels noise."""
    found = noise.label_noise(["", "x"] * 20, ["a", "a", "b", "b"] * 10)
    assert found.suspects == ()
