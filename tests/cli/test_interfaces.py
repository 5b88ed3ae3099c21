"""What others rely on: the shapes of JSON answers, which stream they go to, and runs as arguments."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from desk import QUICK, Luthier, write

# --- luthier check


def test_check_says_whether_it_would_run(luthier: Luthier, desk: Path) -> None:
    (desk / "train.yaml").write_text(
        "model_name_or_path: base\ndataset: rows.json\noutput_dir: saves/run\nquantization_bit: 4\n"
        "report_to: wandb\nuse_unsloth: true\n"
    )
    code, out, err = luthier("check", "train.yaml", "lora_rank=4", "--format", "json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert {"ok", "problems", "notes", "resolved"} <= set(told)
    assert (told["ok"], told["problems"]) == (True, [])
    assert any("use_unsloth" in note for note in told["notes"])
    assert (told["resolved"]["lora_rank"], told["resolved"]["lora_alpha"]) == (4, 8)
    assert told["resolved"]["output_dir"] == "saves/run"
    code, out, _ = luthier("check", "train.yaml", "lora_rank=x", "stage=rm", "--format=json")
    told = json.loads(out)
    assert (code, told["ok"]) == (2, False)
    assert [set(problem) for problem in told["problems"]] == [{"where", "what", "instead"}] * 2
    assert [problem["where"] for problem in told["problems"]] == ["lora_rank", "stage"]
    assert not (desk / "saves").exists()


def test_check_takes_a_run_and_what_other_verbs_want(luthier: Luthier, shop: Path) -> None:
    for words in ([shop / "run"], [shop / "run", "export_dir=x"], [shop / "run", "--verb", "predict"]):
        code, out, _ = luthier("check", *words, "--format", "json")
        told = json.loads(out)
        assert (code, told["ok"]) == (0, True)
        assert told["resolved"]["model_name_or_path"] == str(shop / "base")


# --- luthier data show

ALPACA = {"instruction": "Where is it?", "input": "Order 7", "output": "On its way."}
TALK = [("user", "Hi"), ("assistant", "Hello."), ("user", "Name?"), ("assistant", "Ada.")]
SHAREGPT = {"conversations": [{"from": {"user": "human"}.get(r, "gpt"), "value": c} for r, c in TALK]}
OPENAI = {"messages": [{"role": r, "content": c} for r, c in TALK]}
LEARNT = ["Hello.<|im_end|>", "Ada.<|im_end|>"]


@pytest.mark.parametrize(
    ("name", "text", "learnt"),
    [
        ("a.json", json.dumps([ALPACA, ALPACA]), [["On its way.<|im_end|>"]] * 2),
        ("a.jsonl", f"{json.dumps(ALPACA)}\n{json.dumps(ALPACA)}\n", [["On its way.<|im_end|>"]] * 2),
        (
            "a.csv",
            "instruction,output\nWhere?,Here.\n你在哪,这里\n",
            [["Here.<|im_end|>"], ["这里<|im_end|>"]],
        ),
        ("s.json", json.dumps([SHAREGPT]), [LEARNT]),
        ("o.jsonl", json.dumps(OPENAI), [LEARNT]),
        ("t.txt", "one\ntwo\n", [["one<|im_end|>"], ["two<|im_end|>"]]),
    ],
)
def test_data_show(luthier: Luthier, desk: Path, name: str, text: str, learnt: list[list[str]]) -> None:
    (desk / name).write_text(text, encoding="utf-8")
    words = ["data", "show", name, "--model", "base", "--template", "chatml", "--format", "json"]
    code, out, err = luthier(*words)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["source"] for row in rows] == [f"{name}:{number}" for number in range(1, len(learnt) + 1)]
    assert [[row["text"][a:b] for a, b in row["trained"]] for row in rows] == learnt
    assert all(set(row) == {"source", "text", "trained"} for row in rows)
    assert f"note: {name}: read as" in err


def test_data_show_says_what_cannot_be_used(luthier: Luthier, desk: Path) -> None:
    write(desk / "d.json", [ALPACA, {"instruction": "x"}])
    code, out, _ = luthier("data", "show", "d.json", "--model", "base", "--format", "json")
    good, bad = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert good["text"].endswith("On its way.<|im_end|>\n")
    reason = "missing; the row has instruction"
    assert bad == {"source": "d.json:2", "field": "output", "reason": reason}
    code, out, _ = luthier("data", "show", "d.json", "--model", "base", "--max_samples", "1")
    assert code == 0
    assert out.startswith("--- d.json:1\n<|im_start|>user\nWhere is it?\nOrder 7<|im_end|>\n")
    assert out.endswith("<|im_start|>assistant\n[[On its way.<|im_end|>]]\n\n")


def test_data_show_of_a_registered_data_set_with_the_template_of_a_run(
    luthier: Luthier, desk: Path, shop: Path
) -> None:
    write(desk / "data" / "d.json", [{"q": "Where?", "a": "Here."}])
    columns = {"prompt": "q", "response": "a"}
    write(desk / "data" / "dataset_info.json", {"mine": {"file_name": "d.json", "columns": columns}})
    code, out, _ = luthier("data", "show", "mine", "--model", shop / "run", "dataset_dir=data", "format=json")
    assert code == 0
    assert json.loads(out)["text"] == (  # the run was trained with default_system: Be brief.
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n"
        "<|im_start|>assistant\nHere.<|im_end|>\n"
    )


def test_data_show_of_text_as_llama_factory_lists_it(luthier: Luthier, desk: Path) -> None:
    (desk / "data").mkdir()
    (desk / "data" / "wiki.txt").write_text("one\n")
    write(
        desk / "data" / "dataset_info.json", {"w": {"file_name": "wiki.txt", "columns": {"prompt": "text"}}}
    )
    code, out, _ = luthier("data", "show", "w", "--model", "base", "--format", "json")
    assert code == 0
    assert json.loads(out) == {"source": "wiki.txt:1", "text": "one<|im_end|>", "trained": [[0, 13]]}


def test_data_show_of_pairs_and_verdicts(luthier: Luthier, desk: Path) -> None:
    write(desk / "pairs.json", [{"instruction": "a", "chosen": "good", "rejected": "bad"}])
    write(desk / "kto.json", [{"instruction": "a", "output": "b", "kto_tag": False}])
    _, out, _ = luthier("data", "show", "pairs.json", "--model", "base", "--format", "json")
    pair = json.loads(out)
    assert pair["text"][slice(*pair["trained"][0])] == "good<|im_end|>"
    assert pair["rejected"]["text"][slice(*pair["rejected"]["trained"][0])] == "bad<|im_end|>"
    _, out, _ = luthier("data", "show", "kto.json", "--model", "base", "--format", "json")
    assert json.loads(out)["verdict"] is False
    _, out, _ = luthier("data", "show", "pairs.json", "--model", "base")
    assert out.endswith(
        "--- rejected\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[bad<|im_end|>]]\n\n"
    )


# --- numbers to stdout, everything else to stderr; a run directory for every verb


def test_train_prints_where_the_run_is(luthier: Luthier, desk: Path) -> None:
    words = ["train", "model_name_or_path=base", "dataset=rows.json", "output_dir=saves/run", *QUICK]
    code, out, err = luthier(*words, "--format", "json", "overwrite_output_dir=true")
    told = json.loads(out)
    assert (code, told["run"], told["epoch"]) == (0, "saves/run", 0.3333)
    assert told["train_loss"] > 0
    assert "done: loss" in err
    code, out, err = luthier("train", "saves/run")
    assert (code, out) == (0, "saves/run\n")
    assert "continuing from saves/run/checkpoint-1 (step 1)" in err


def test_predict(luthier: Luthier, desk: Path, shop: Path) -> None:
    words = ["predict", shop / "run", "--dataset", "rows.json", "max_new_tokens=2", "output_dir=out"]
    code, out, err = luthier(*words, "--format", "json")
    told = json.loads(out)
    assert (code, told["predict_rows"]) == (0, 12)
    assert told == json.loads((desk / "out" / "predict_results.json").read_bytes())
    assert f"base {shop}/base · adapter {shop}/run · template qwen" in err
    code, out, _ = luthier(*words)
    assert code == 0
    assert out.splitlines()[0].split() == ["rouge-1", f"{told['predict_rouge-1']:.4f}"]


def test_export(luthier: Luthier, desk: Path, shop: Path) -> None:
    code, out, _ = luthier("export", shop / "run", "export_dir=merged", "--format", "json")
    told = json.loads(out)
    assert (code, told["export_dir"], told["adapters"]) == (0, "merged", [str(shop / "run")])
    assert told["max_abs_difference"] <= told["tolerance"] == 1e-4
    assert told == json.loads((desk / "merged" / "export.json").read_bytes())


def test_chat(luthier: Luthier, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n/clear\nHi\n/exit\n"))
    code, out, err = luthier("chat", shop / "run", "max_new_tokens=3", "do_sample=false", "--format", "json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(answers) == 2
    assert [answer.pop("seconds") > 0 for answer in answers] == [True, True]
    assert answers[0] == answers[1]
    assert "template qwen" in err


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_checkpoint_can_be_used_as_a_run(
    luthier: Luthier, desk: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    words = ["train", "model_name_or_path=base", "dataset=rows.json", "output_dir=run", "template=qwen"]
    assert luthier(*words, "max_steps=2", "save_steps=1", f"finetuning_type={method}").code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    code, out, err = luthier("chat", "run/checkpoint-1", "max_new_tokens=2")
    assert (code, "template qwen" in err) == (0, True)
    assert f"{'adapter' if method == 'lora' else 'base'} run/checkpoint-1 · " in err
    code, out, _ = luthier("export", "run/checkpoint-1", "export_dir=merged", "--format", "json")
    assert (code, json.loads(out)["dtype"]) == (0, "float32")


def test_runs(luthier: Luthier, shop: Path) -> None:
    code, out, err = luthier("runs", shop, "--format", "json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    assert (row["path"], row["status"]) == (str(shop / "run"), "complete")
    code, out, _ = luthier("runs", "show", shop / "run", "--format", "json")
    told: dict[str, Any] = json.loads(out)
    assert (code, told["status"], told["template"]) == (0, "complete", "qwen")
    code, out, _ = luthier("runs", "compare", shop / "run", shop / "run", "--format", "json")
    told = json.loads(out)
    assert (code, told["config"], told["data"], told["results"]) == (0, [], [], [])


@pytest.mark.parametrize("verb", ["train", "predict", "export"])
def test_only_our_own_words_are_printed(luthier: Luthier, desk: Path, shop: Path, verb: str) -> None:
    """Bars and advertisements of the libraries below are neither results nor anything to act on."""
    words = {
        "train": ["model_name_or_path=base", "dataset=rows.json", "output_dir=run", "quantization_bit=8"],
        "predict": [shop / "run", "--dataset", "rows.json", "max_new_tokens=1", "output_dir=out"],
        "export": [shop / "run", "export_dir=merged"],
    }[verb]
    code, out, err = luthier(verb, *words, *(QUICK if verb == "train" else []))
    assert code == 0
    for noise in ("Loading weights", "Writing model shards", "Failed to load", "Warning", "it/s]"):
        assert noise not in out + err
    if verb == "train":
        assert "note: 8-bit products are computed in float16, whatever the other number formats are\n" in err
