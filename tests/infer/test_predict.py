"""Predictions of a data set: LLaMA-Factory's files, the right rows, and what a stopped run leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from luthier.config import load
from luthier.data.render import Renderer
from luthier.errors import DataError
from luthier.infer import predict as predicting
from luthier.infer.engine import Generation, text_of
from luthier.infer.hf import HFEngine
from luthier.infer.predict import main, predict, predict_with
from luthier.runs import Run
from luthier.types import Message

SCORES = {"rouge-1", "rouge-2", "rouge-l", "bleu-4", "exact_match"}
CLOSED = {"accuracy", "macro_f1", "outside_labels"}
COUNTS = {"rows", "runtime", "samples_per_second"}


def request(place: Path, folder: Path, **keys: Any) -> Any:
    """A request to predict with the base; results go to `folder`."""
    words = {
        "model_name_or_path": str(place / "base"),
        "template": "qwen",
        "output_dir": str(folder),
        "max_new_tokens": 6,
        **keys,
    }
    if not {"dataset", "eval_dataset"} & set(keys):
        words["dataset"] = str(place / "train.json")
    return load(words, "predict")


def records(folder: Path, name: str = "generated_predictions.jsonl") -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return str(path)


def names(results: dict[str, float]) -> set[str]:
    return {name.removeprefix("predict_") for name in results}


def test_files_have_the_names_and_keys_of_llama_factory(place: Path, tmp_path: Path) -> None:
    (tmp_path / "all_results.json").write_text('{"train_loss": 1.5}', encoding="utf-8")
    config = request(place, tmp_path)
    results = predict(config)
    assert names(results) == SCORES | CLOSED | COUNTS
    assert json.loads((tmp_path / "predict_results.json").read_text()) == results
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"train_loss": 1.5, **results}
    tokenizer = tiny.tokenizer()
    renderer = Renderer.of(config, tokenizer)
    engine = HFEngine(tiny.build("qwen3"), tokenizer)
    options = Generation(max_new_tokens=6, stop_ids=frozenset(renderer.stop_ids))
    rows = json.loads((place / "train.json").read_text(encoding="utf-8"))
    prompts = [renderer.prompt([Message("user", row["instruction"])]) for row in rows]
    assert records(tmp_path) == [
        {
            "prompt": tokenizer.decode(prompt),
            "predict": text_of(tokenizer, ids, options),
            "label": row["output"],
            "source": f"train.json:{number}",
        }
        for number, (prompt, ids, row) in enumerate(
            zip(prompts, engine.generate(prompts, options), rows, strict=True), start=1
        )
    ]
    assert sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith(".")) == [
        "all_results.json",
        "generated_predictions.jsonl",
        "predict_results.json",
    ]


def test_a_run_predicts_on_what_it_held_out_unless_told_otherwise(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(place / "run"), "max_new_tokens=3", "--format", "json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["predict_rows"] == 2
    assert "2 rows that val_size held out" in err
    sources = {record["source"] for record in records(place / "run")}
    assert len(sources) == 2
    assert all("Answer with one word." in record["prompt"] for record in records(place / "run"))
    other = write(tmp_path / "other.json", [{"instruction": "a", "output": "b"}])
    assert main([*words, "--dataset", other, "--output_dir", str(tmp_path / "out")]) == 0
    assert [record["source"] for record in records(tmp_path / "out")] == ["other.json:1"]
    assert Run.open(place / "run").status == "complete"


def test_a_data_set_on_the_command_line_wins_over_the_files_of_a_yaml(place: Path, tmp_path: Path) -> None:
    write(tmp_path / "e.json", [{"instruction": "a", "output": "b"}])
    yaml = tmp_path / "train.yaml"
    yaml.write_text(
        f"model_name_or_path: {place / 'base'}\ntemplate: qwen\ndataset: {place / 'train.json'}\n"
        f"eval_dataset: {tmp_path / 'e.json'}\nmax_new_tokens: 2\noutput_dir: {tmp_path / 'out'}\n",
        encoding="utf-8",
    )
    assert predict(load([str(yaml)], "predict"))["predict_rows"] == 1
    assert predict(load([str(yaml), "--dataset", str(place / "train.json")], "predict"))["predict_rows"] == 6


def test_the_table_shows_shares_in_per_cent(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(place / "base"), "template=qwen", "max_new_tokens=2", f"dataset={place / 'train.json'}"]
    assert main([*words, f"output_dir={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rouge-1", "0.0000"]
    assert ["exact_match", "0.00", "%"] in [line.split() for line in lines]


def test_greedy_unless_told_otherwise(place: Path, tmp_path: Path) -> None:
    predict(request(place, tmp_path / "a"))
    predict(request(place, tmp_path / "b", seed=1))
    predict(request(place, tmp_path / "c", seed=1, do_sample=True, temperature=2.0, top_p=1.0))
    first, again, drawn = (records(tmp_path / name) for name in "abc")
    assert first == again
    assert first != drawn


def test_the_model_stays_as_it_was_after_training(place: Path, tmp_path: Path) -> None:
    from luthier.model import attention

    config = request(place, tmp_path)
    tokenizer, model = tiny.tokenizer(), tiny.build("qwen3").train()
    attention.enable(model)  # as training leaves it
    run = Run.join(tmp_path / "run")
    said: list[str] = []
    results = predict_with(model, tokenizer, Renderer.of(config, tokenizer), config, run, said.append)
    run.close()
    assert model.training
    assert results["predict_rows"] == 6
    predict(config)
    assert records(tmp_path / "run") == records(tmp_path)


def test_what_is_finished_survives_ctrl_c(place: Path, tmp_path: Path) -> None:
    config = request(place, tmp_path, per_device_eval_batch_size=2)
    tokenizer, model = tiny.tokenizer(), tiny.build("qwen3")
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1 + 6 + 2:  # what is shared, one batch of two rows, and a little of the second
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    run = Run.join(tmp_path)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        predict_with(model, tokenizer, Renderer.of(config, tokenizer), config, run, said.append)
    run.close()
    partial = records(tmp_path, predicting.PARTIAL)
    assert f"stopped after {len(partial)} of 6 rows" in said[-1]
    assert len(partial) == 2
    assert not (tmp_path / predicting.PREDICTIONS).exists()
    predict(config)
    whole = records(tmp_path)
    assert all(record in whole for record in partial)
    assert not (tmp_path / predicting.PARTIAL).exists()


def test_rows_that_only_ask_are_answered_and_not_scored(place: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": ""}, {"instruction": "b", "output": ""}]
    results = predict(request(place, tmp_path, dataset=write(tmp_path / "ask.json", rows)))
    assert names(results) == COUNTS
    assert [record["label"] for record in records(tmp_path)] == ["", ""]


def test_conversations_are_answered_at_their_last_turn(place: Path, tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
    predict(
        request(place, tmp_path, dataset=write(tmp_path / "t.json", [{"messages": talk}]), system="Be brief.")
    )
    (record,) = records(tmp_path)
    assert record["label"] == "four"
    assert record["prompt"] == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\none<|im_end|>\n"
        "<|im_start|>assistant\ntwo<|im_end|>\n<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\n"
    )


def test_labels_are_what_training_would_have_the_model_write(place: Path, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "find", "arguments": '{"order": 7}'}}
    talk = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    data = write(tmp_path / "t.json", [{"messages": talk}])
    predict(request(place, tmp_path, dataset=data, template="qwen3"))
    (record,) = records(tmp_path)
    assert record["label"] == (
        '<think>\n\n</think>\n\n<tool_call>\n{"name": "find", "arguments": {"order": 7}}\n</tool_call>'
    )


def test_a_right_answer_is_right_whatever_was_thought_before_it() -> None:
    pairs = [
        ("<think>\nhm\n</think>\n\nsport", "<think>\n\n</think>\n\nsport"),
        ("<think>\nhm, sport", "sport"),
    ]
    results = predicting._results(pairs, ("<think>\n", "\n</think>\n\n"), 2.0)
    assert results["predict_exact_match"] == 0.5
    assert results["predict_samples_per_second"] == 1.0
    assert results["predict_rouge-1"] < 100


def test_too_many_bad_rows_stop_before_anything_is_generated(place: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}, {"question": "a", "output": "c"}]
    data = write(tmp_path / "bad.json", rows)
    with pytest.raises(DataError, match=r"1 of 2 rows are bad[\s\S]*bad\.json:2"):
        predict(request(place, tmp_path / "out", dataset=data))
    assert not (tmp_path / "out").exists()
    said: list[str] = []
    config = request(place, tmp_path / "out", dataset=data, on_bad_rows="skip")
    assert predict(config, said.append)["predict_rows"] == 1
    assert f"{data}: 2 rows = 1 kept + 1 dropped" in said


def test_every_prompt_that_is_too_long_is_named(place: Path, tmp_path: Path) -> None:
    rows = [{"instruction": text, "output": "b"} for text in ("nine " * 600, "a", "ten " * 600)]
    data = write(tmp_path / "long.json", rows)
    with pytest.raises(DataError, match=r"2 of 3 prompts.*reads 512 tokens:\s+long\.json:1.*\s+long\.json:3"):
        predict(request(place, tmp_path / "out", dataset=data))
    assert not (tmp_path / "out").exists()


def test_generation_on_a_trained_layout_equals_the_plain_one() -> None:
    from luthier.model import attention

    plain, blocks = tiny.build("qwen3"), tiny.build("qwen3")
    attention.enable(blocks)
    prompts = [[5, 6, 7, 8, 9], [5, 6, 7, 20], [5, 6, 30, 31, 32, 33]]
    options = Generation(max_new_tokens=10)
    tokenizer = tiny.tokenizer()
    expected = HFEngine(plain, tokenizer).generate(prompts, options)
    assert HFEngine(blocks, tokenizer).generate(prompts, options) == expected
