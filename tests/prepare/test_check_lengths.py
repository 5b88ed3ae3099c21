"""Length in tokens: what is said of rows is what training would do to them, and the bound in bytes holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from luthier.config import check, read
from luthier.data import prepare
from luthier.data.ledger import Ledger
from luthier.data.render import Renderer
from luthier.model import load
from luthier.prepare.check import table_of
from luthier.prepare.checks import Data, lengths, tokens
from luthier.prepare.opened import opened
from luthier.prepare.report import Finding
from luthier.types import BadRow, Example, Message, Rendered, Tokens

Made = Callable[..., Data]
WORDS = "你好 请问 order where is my 订单 hello fine thank you naïve 😀".split()
WORDS += ["\u0958", "\u1e9b\u0323", "\ufb01", "\U0001d160"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def made(tmp_path: Path, model: Path) -> Made:
    """Data of some rows, and a configuration's keys."""

    def data(rows: list[dict[str, Any]], stage: str = "sft", **keys: object) -> Data:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        words = [f"--{k}={v}" for k, v in {"model_name_or_path": model, "dataset": path, **keys}.items()]
        config = check(read(words, {}), "data").replace(stage=stage)
        source = opened(str(path), {"stage": stage})
        table = table_of(source, print)
        renderer = Renderer.of(config, load.tokenizer(config))
        return Data(str(path), table, config=config, renderer=renderer)

    return data


def some_rows(count: int = 60, seed: int = 1) -> list[dict[str, Any]]:
    """Rows of very different lengths; some of their characters grow when they are composed (NFC)."""
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.02, size=(count, 2)).tolist()
    return [
        {"instruction": " ".join(rng.choice(WORDS, a)), "output": " ".join(rng.choice(WORDS, b))}
        for a, b in sizes
    ]


def found(data: Data, name: str) -> list[Finding]:
    return [one for one in lengths.lengths(data) if one.check == name]


def examples(data: Data) -> list[Example]:
    return [meant for _, meant in tokens.rows_of(data.table) if isinstance(meant, Example)]


def test_rows_and_tokens_beyond_the_cutoff_are_those_of_training(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "SAMPLE", 7)  # so that nearly all rows are told by their bytes alone
    data = made(some_rows(), cutoff_len=300)
    assert data.renderer is not None and data.config is not None
    whole = tokens.Ruler(data.renderer).whole.examples(examples(data))
    sizes = {one[0].source: lengths.size_of(one)[0] for one in whole if isinstance(one, list)}
    ledger, rejected = Ledger("rows"), list[BadRow]()
    kept = list(prepare.rendered(examples(data), data.renderer, ledger, rejected))
    measured = lengths.measure(data, data.renderer, seed=3)
    assert len(measured.sizes) == 7 and len(sizes) == 60
    assert measured.long == {source: size for source, size in sizes.items() if size > 300}
    assert 5 < len(measured.long) < 50
    assert sum(prompt + answer for _, prompt, answer in measured.cut) == ledger.cut > 0
    assert [bad.source for bad in measured.dropped] == [bad.source for bad in rejected]
    assert {source for source, _, _ in measured.cut} == {part.source for part in kept if part.cut}
    whole_answers = {source for source, _, answer in measured.cut if answer == 0}
    assert whole_answers and whole_answers != {source for source, _, _ in measured.cut}


def test_each_consequence_of_the_cutoff_is_a_finding(made: Made) -> None:
    rows = [
        {"instruction": "hello " * 90, "output": "fine"},
        {"instruction": "hello", "output": "fine " * 90},
        {"instruction": "hello", "output": "fine"},
    ]
    prompts, answers = found(made(rows, cutoff_len=64), "cutoff")
    assert (prompts.severity, list(prompts.rows)) == ("note", ["rows.json:1"])
    assert (answers.severity, list(answers.rows)) == ("warning", ["rows.json:2"])
    for policy, severity in (("drop", "warning"), ("error", "error")):
        (one,) = found(made(rows, cutoff_len=64, cutoff_policy=policy), "cutoff")
        assert (one.severity, list(one.rows)) == (severity, ["rows.json:1", "rows.json:2"])
        longest = max(size[0] for size in lengths.measure(made(rows), made(rows).renderer, 1).sizes)  # type: ignore[arg-type]
        assert one.fix.startswith(f"cutoff_len={-(-longest // 64) * 64}")
    assert found(made(rows, cutoff_len=2048), "cutoff") == []


@pytest.mark.parametrize("cutoff", [64, 100, 5000])
def test_the_suggested_cutoff_leaves_99_percent_whole_and_no_smaller_one_does(
    made: Made, cutoff: int
) -> None:
    data = made(some_rows(300, seed=5), cutoff_len=cutoff)
    (one,) = found(data, "lengths")
    sizes = np.array([size[0] for size in lengths.measure(made(some_rows(300, 5)), data.renderer, 1).sizes])  # type: ignore[arg-type]
    suggested = one.figures["suggested_cutoff_len"]
    assert suggested % 64 == 0
    assert (sizes <= suggested).mean() >= 0.99 > (sizes <= suggested - 64).mean()


def test_percentiles_and_shares_are_those_of_the_tokens(made: Made) -> None:
    data = made(some_rows())
    assert data.renderer is not None
    parts = [part for one in data.renderer.examples(examples(data)) if isinstance(one, list) for part in one]
    answer = np.array([part.branches[0].mask.sum() for part in parts], int)
    row = np.array([len(part.trunk) + len(part.branches[0]) for part in parts])
    figures = found(data, "lengths")[0].figures
    assert figures["row"]["max"] == row.max() and figures["answer"]["max"] == answer.max()
    for p in (50, 90, 95, 99):
        assert figures["prompt"][f"p{p}"] == np.percentile(row - answer, p, method="inverted_cdf")
    assert figures["trained_share"] == pytest.approx(answer.sum() / row.sum(), abs=1e-4)
    assert sum(figures["histogram"]["counts"]) == len(row)


def test_a_template_that_cannot_write_a_row_is_said(made: Made) -> None:
    turns = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "fine"}]
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
    tool = [turns[0], call, {"from": "observation", "value": "1"}, turns[1]]
    data = made([{"conversations": turns}, {"conversations": tool}])
    (one,) = found(data, "template")
    assert (one.severity, list(one.rows)) == ("error", ["rows.json:2"])
    assert "tool" in one.what and found(data, "lengths")[0].figures["sample"] == 1


def test_rows_without_anything_to_learn_are_told(made: Made) -> None:
    turns = [("human", "a", None), ("gpt", "b", 1), ("human", "c", None), ("gpt", "d", 0)]
    messages = [{"from": role, "value": text, "weight": weight} for role, text, weight in turns]
    rows = [{"conversations": messages}, {"conversations": messages[:2]}]
    (one,) = found(made(rows, mask_history="true"), "unlearnt")
    assert list(one.rows) == ["rows.json:1"]
    assert found(made(rows), "unlearnt") == []


def test_long_texts_of_pretraining_are_not_cut(made: Made) -> None:
    data = made([{"text": "hello where " * 200}, {"text": "fine"}], "pt", cutoff_len=64)
    assert [one.check for one in lengths.lengths(data)] == ["lengths", "savings"]


def rendered(*ids: list[int]) -> list[Rendered]:
    """One example for each list: its last token is learnt."""
    empty = Tokens(np.zeros(0, np.int32), np.zeros(0, np.float32))
    masks = [np.array([0.0] * (len(one) - 1) + [1.0], np.float32) for one in ids]
    pieces = [Tokens(np.array(one, np.int32), mask) for one, mask in zip(ids, masks, strict=True)]
    return [Rendered(empty, (piece,), source=str(k)) for k, piece in enumerate(pieces)]


def test_what_sharing_saves_is_counted_from_the_batches_of_training(made: Made) -> None:
    trunk = list(range(20))
    rows = rendered([*trunk, 30], [*trunk, 31, 32, 33], [50, 51, 52], [60, 61])
    config = made(some_rows(2)).config
    assert config is not None
    both = config.replace(per_device_train_batch_size=2, disable_shuffling=True)
    assert lengths.computed(both, rows) == {"padded": 46 + 6, "packed": 44 + 5, "prefix_shared": 24 + 5}
    alone = both.replace(prefix_sharing=False)
    assert lengths.computed(alone, rows)["prefix_shared"] == 49
    step = both.replace(per_device_train_batch_size=1, gradient_accumulation_steps=2)
    assert lengths.computed(step, rows) == {"padded": 49, "packed": 49, "prefix_shared": 29}


# -- the bound -------------------------------------------------------------------------------------


def spoilt(normalizer: Any = None, before: Any = None) -> Any:
    """The tiny tokenizer with another normaliser or splitter."""
    tokenizer = tiny.tokenizer()
    if normalizer is not None:
        tokenizer.backend_tokenizer.normalizer = normalizer
    if before is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = before
    return tokenizer


def test_the_bound_is_used_only_where_it_holds() -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    level = pre_tokenizers.ByteLevel
    assert tokens.bounded(tiny.tokenizer()) == (True, False)
    assert tokens.bounded(spoilt(normalizers.NFC())) == (True, True)
    split = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    assert tokens.bounded(spoilt(before=pre_tokenizers.Sequence([split, level(add_prefix_space=False)])))[0]
    assert not tokens.bounded(spoilt(before=pre_tokenizers.Sequence([split, level(add_prefix_space=True)])))[
        0
    ]
    for normalizer in (normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("a", "aaaa")):
        assert tokens.bounded(spoilt(normalizer)) == (False, False)


@pytest.mark.parametrize("composes", [False, True])
def test_no_row_has_more_tokens_than_its_bound(made: Made, composes: bool) -> None:
    from tokenizers import normalizers

    data = made(some_rows(200, seed=9))
    assert data.renderer is not None
    tokenizer = spoilt(normalizers.NFC() if composes else None)
    ruler = tokens.Ruler(Renderer(data.renderer.template, tokenizer))
    rows = examples(data)
    exact = [lengths.size_of(parts)[0] for parts in ruler.whole.examples(rows) if isinstance(parts, list)]
    most = [ruler.at_most(row)[0] for row in rows]
    assert len(exact) == len(most) == 200
    assert all(a <= b < 2 * a + 400 for a, b in zip(exact, most, strict=True))


def test_the_longer_of_two_endings_counts(model: Path) -> None:
    renderer = Renderer.of(check(read([f"--model_name_or_path={model}"], {}), "data"), tiny.tokenizer())
    short, long = (Message("assistant", text, 1.0) for text in ("a", "b" * 500))
    row = Example((Message("user", "?"),), ((short,), (long,)))
    assert tokens.Ruler(renderer).at_most(row)[0] > 500
