"""Known faults planted into published data sets, when they lie beside the repository: which are found."""

import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import pytest

from luthier.prepare import leakage, noise

pytest.importorskip("rensa")
pytest.importorskip("sklearn")
pytest.importorskip("jieba")
SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the published data sets are not here")
PLANTED = 20


def rows(name: str) -> tuple[list[str], list[str]]:
    data = json.loads((SHARED / name).read_text("utf-8"))
    if "conversations" in data[0]:
        return [r["conversations"][0]["value"] for r in data], [r["conversations"][1]["value"] for r in data]
    return [r["instruction"] for r in data], [r["output"] for r in data]


def planted_benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "planted.py"
    spec = importlib.util.spec_from_file_location("luthier_planted", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nearly = planted_benchmark().nearly


@pytest.mark.parametrize(
    ("train", "test"), [("intent/train.json", "intent/test.json"), ("news/train.json", "news/eval.json")]
)
def test_near_duplicates_across_the_split(train: str, test: str) -> None:
    seen, unseen, rng = rows(train)[0], rows(test)[0], random.Random(11)
    before = len(leakage.leaks(seen, unseen))
    planted = [nearly(seen[i], rng) for i in rng.sample(range(len(seen)), PLANTED)]
    found = [leak.evaluation.index for leak in leakage.leaks(seen, [*unseen, *planted])]
    hits = sum(i >= len(unseen) for i in found)
    print(f"{train}: {hits} of {PLANTED} planted found; {before} found without them")
    assert hits >= 0.95 * PLANTED
    assert hits / (len(found) - before) >= 0.9


@pytest.mark.parametrize("name", ["intent/train.json", "news/train.json"])
def test_contradictions(name: str) -> None:
    inputs, answers = rows(name)
    rng, labels = random.Random(12), sorted(set(answers))
    before = len(leakage.contradictions(inputs, answers))
    planted = set()
    for k, i in enumerate(rng.sample(range(len(inputs)), PLANTED)):
        planted.add(len(inputs))
        inputs.append(inputs[i] if k % 2 else nearly(inputs[i], rng))
        answers.append(rng.choice([label for label in labels if label != answers[i]]))
    found = leakage.contradictions(inputs, answers)
    hits = {row.index for one in found for row in one.rows} & planted
    print(f"{name}: {len(hits)} of {PLANTED} planted found in {len(found)} findings, {before} without them")
    assert len(hits) >= 0.95 * PLANTED
    assert len(hits) / (len(found) - before) >= 0.9


@pytest.mark.parametrize("name", ["intent/train.json", "news/train.json"])
def test_flipped_labels(name: str) -> None:
    """Both have wrong labels of their own; suspects that they have without the flips do not count."""
    texts, answers = rows(name)
    rng, labels = random.Random(13), sorted(set(answers))
    own = {suspect.row.index for suspect in noise.label_noise(texts, answers).suspects}
    planted = set(rng.sample(range(len(texts)), PLANTED))
    for i in planted:
        answers[i] = rng.choice([label for label in labels if label != answers[i]])
    found = {suspect.row.index for suspect in noise.label_noise(texts, answers).suspects}
    hits = len(found & planted)
    print(f"{name}: {hits} of {PLANTED} flips among {len(found)} suspects, {len(own)} without them")
    assert hits >= 0.8 * PLANTED
    assert hits / len(found - (own - planted)) >= 0.5
