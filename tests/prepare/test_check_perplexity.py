"""Perplexity: each row's is that of the model alone with it; rows far above the others are told."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import luthier.demo
import tiny
from luthier.config import check, read
from luthier.data.batch import sequences
from luthier.data.render import Renderer
from luthier.model import load
from luthier.prepare.check import table_of
from luthier.prepare.checks import Data, perplexity, tokens
from luthier.prepare.opened import opened
from luthier.types import Example

BASE = Path(luthier.demo.__file__).parent / "base"


def made(model: Path, rows: list[dict[str, object]], folder: Path, **keys: object) -> Data:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    words = [f"--{k}={v}" for k, v in {"model_name_or_path": model, "dataset": path, **keys}.items()]
    source = opened(str(path), {})
    config = check(read(words, {}), "data").replace(stage=source.stage)
    renderer = Renderer.of(config, load.tokenizer(config))
    return Data(str(path), table_of(source, print), config=config, renderer=renderer, say=lambda line: None)


@pytest.mark.parametrize("budget", [8192, 40])
def test_scores_are_those_of_each_row_alone(tmp_path: Path, budget: int) -> None:
    words = "hello how are you fine thank order 你好 请问 订单".split()
    rng = np.random.default_rng(2)
    rows: list[dict[str, object]] = [
        {
            "instruction": "hello how are you fine " + str(rng.choice(words)),
            "output": " ".join(rng.choice(words, n)),
        }
        for n in range(1, 8)
    ]
    data = made(tiny.make_model(tmp_path / "model"), rows, tmp_path, micro_batch_tokens=budget)
    assert data.config is not None and data.renderer is not None
    judge = perplexity.loaded(data.config, data.renderer)
    assert judge.share
    found = {source: (nll, count) for source, nll, count in perplexity.scores(data, data.renderer, judge)}
    alone = load.model(data.config, torch.float32, training=False)
    good = [meant for _, meant in tokens.rows_of(data.table) if isinstance(meant, Example)]
    for parts in data.renderer.examples(good):
        assert isinstance(parts, list)
        (flat,) = sequences(parts[0], 0)
        ids = torch.from_numpy(flat.ids.astype(np.int64))
        with torch.inference_mode():
            logits = alone(input_ids=ids[None]).logits[0]
        each = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
        learnt = torch.from_numpy(flat.mask[1:])
        nll, count = found[flat.source]
        assert count == learnt.sum()
        assert nll == pytest.approx(float((each * learnt).sum()), rel=1e-5)


def test_an_answer_unlike_the_others_stands_out(tmp_path: Path) -> None:
    answers = ["Your order is on its way.", "You can return it.", "The card will arrive soon."] * 8
    rows: list[dict[str, object]] = [
        {"instruction": f"Question {k}?", "output": a} for k, a in enumerate(answers)
    ]
    rows[13]["output"] = "\U0001f9ff\u16a0ˣ\u0f3a ҉qz\U00013080 ꙮ\u2603"
    summary, outliers = perplexity.perplexity(made(BASE, rows, tmp_path))
    assert list(outliers.rows) == ["rows.json:14"]
    assert summary.count == 24 and summary.figures["highest"][0][0] == "rows.json:14"
    assert summary.figures["highest"][0][1] > summary.figures["limit"] > summary.figures["median"] > 1


def test_the_limit_is_in_log_perplexity_and_an_even_data_set_has_no_outliers() -> None:
    config = check(read([f"--model_name_or_path={BASE}"], {}), "data")
    even = np.array([[2.0 + 0.001 * k, 2.0] for k in range(9)])
    assert len([*perplexity.findings(config, "abcdefghi", even)]) == 1
    # median 1.3, deviations 0.3 0.2 0.1 0 0.1 0.2 1.2: MAD 0.2, limit 1.3 + 5 x 0.2 = 2.3
    spread = np.array([[1.0, 1.0], [1.1, 1.0], [1.2, 1.0], [1.3, 1.0], [1.4, 1.0], [3.0, 2.0], [2.5, 1.0]])
    summary, outliers = perplexity.findings(config, "abcdefg", spread)
    assert summary.figures["limit"] == pytest.approx(math.exp(2.3), abs=1e-3)
    assert (list(outliers.rows), outliers.severity) == (["g"], "warning")


def test_answers_with_a_verdict_against_them_are_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"instruction": "q", "output": "good", "label": True},
        {"instruction": "q", "output": "bad", "label": False},
    ]
    data = made(tiny.make_model(tmp_path / "model"), rows, tmp_path)
    assert data.table.stage == "kto" and data.config is not None and data.renderer is not None
    judge = perplexity.loaded(data.config, data.renderer)
    assert [source for source, _, _ in perplexity.scores(data, data.renderer, judge)] == ["rows.json:1"]
