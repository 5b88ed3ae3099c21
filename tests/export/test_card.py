"""The model card: what it says, what it does not know, and what may not be in it."""

import json

import pytest
import yaml

import reports
import tiny
from luthier.config import Config
from luthier.export import card, card_facts
from luthier.runs import Run, hashing

REPORT = {
    "merge_max_abs_difference": 6.2e-6,
    "max_abs_difference": 3.1e-3,
    "dtype": "bfloat16",
    "prompts": [{"source": "orders.json:1", "text": "…", "max_abs_difference": 1e-6}] * 10,
}
PROOF = {
    "file": "run-q8_0.gguf",
    "cases": 80,
    "ok": True,
    "logits": {"max_abs_difference": 0.0123, "mean_kl": 7e-5, "same_top": 0.9875},
    "answers": {"same": 78, "of": 80},
}
APACHE = (
    "                                 Apache License\n                           Version 2.0, January 2004\n"
)


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "models--Qwen--Qwen3-tiny" / "snapshots" / "0123abc"
    tiny.make_tokenizer(folder)
    (folder / "config.json").write_text("{}")
    (folder / "LICENSE").write_text(APACHE)
    return folder


@pytest.fixture
def run(base, tmp_path):
    """A finished run of nine rows, an evaluation of its weights and one of older ones."""
    rows = [
        {"instruction": f"Where is the order {k}?", "output": "It is on its way to you."} for k in range(9)
    ]
    file = tmp_path / "orders.json"
    file.write_text(json.dumps(rows))
    told = Config(
        model_name_or_path=str(base), dataset=(str(file),), use_dora=True, lora_rank=4, learning_rate=3e-4
    )
    data = [{"path": str(file), "bytes": 1, "sha256": hashing.sha256_file(file)}]
    with Run.create(tmp_path / "run") as made:
        made.describe("", told.as_dict(), {"data": data})
        line = {"dataset": str(file), "rows_in": 9, "kept": 8, "dropped": {"no answer": 1}}
        made.write_json("ledger.json", [line])
        with made.result() as folder:
            (folder / "adapter_model.safetensors").write_bytes(b"weights")
            (folder / "adapter_config.json").write_text("{}")
        made.write_marker(base=str(base), adapter=True)
    for name, digest in {
        "news": hashing.sha256_file(made.path / "adapter_model.safetensors"),
        "old": "0" * 64,
    }.items():
        report = reports.whole()
        report["systems"]["after"]["weights"] = {"run": {"adapter_model.safetensors": digest}}
        (made.path / "eval" / name).mkdir(parents=True)
        (made.path / "eval" / name / "report.json").write_text(json.dumps(report))
    return made.path


def request(run, base, **keys):
    return Config(
        verb="export",
        run=str(run),
        model_name_or_path=str(base),
        adapter_name_or_path=(str(run),),
        **keys,
    )


def parts(text):
    """(front matter, body) of a card."""
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body.replace("\N{NO-BREAK SPACE}", " ")


def test_everything_that_is_known_is_in_the_card(run, base, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    text = card.write(out, request(run, base), card.Shipped(REPORT, [PROOF], "hf")).read_text()
    front, body = parts(text)
    assert front == {
        "base_model": "Qwen/Qwen3-tiny",
        "license": "apache-2.0",
        "language": ["en"],
        "tags": ["luthier", "conversational", "sft", "lora", "gguf"],
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
    }
    assert (out / "LICENSE").read_text() == APACHE
    digest = hashing.sha256_file(tmp_path / "orders.json")
    assert f"| orders.json | 9 | 8 | `{digest}` |" in body
    assert "| method | DoRA |" in body and "| rank, alpha, dropout | 4, 0.0 |" in body
    assert "| learning rate | 0.0003, linear |" in body
    assert "| accuracy | 55.0 % | 80.0 % | +25.0 | +17.0 to +33.0 | 40 | ▲ improved |" in body
    assert "General abilities: Arithmetic 50.0 % → 25.0 %, 95 % interval −35.0 to −15.0" in body
    assert "| run-q8\\_0.gguf | 80 prompts | 1.2e-02 | 7.0e-05 | 98.8% | 78 of 80 | holds |" in body
    assert "| adapter merged, float32 | 10 prompts | 6.2e-06 (allowed 1e-04) |" in body
    assert "llama-server -m run-q8_0.gguf --jinja" in body and "ollama create run -f Modelfile" in body
    assert "vllm serve hf" in body and 'from_pretrained("hf")' in body
    assert "the evaluation old is of other weights than these" in body
    assert "## 中文说明" in body and "训练数据共 8 条" in body and "准确率" in body


def test_no_path_of_this_machine_and_no_secret(run, base, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "s3cr3t-of-the-shop")
    report = reports.whole()
    report["systems"]["after"]["weights"] = json.loads((run / "eval/news/report.json").read_text())[
        "systems"
    ]["after"]["weights"]
    report["tasks"]["s3cr3t-of-the-shop"] = report["tasks"].pop("news")
    report["details"]["s3cr3t-of-the-shop"] = report["details"].pop("news")
    (run / "eval/news/report.json").write_text(json.dumps(report))
    text = card.text(request(run, base), card.Shipped(REPORT), card_facts.base(request(run, base)))
    assert str(tmp_path) not in text and "/tmp" not in text and "0123abc" not in text
    assert "s3cr3t" not in text and "…" in text


def test_what_was_not_measured_is_said(base, tmp_path):
    config = Config(verb="export", model_name_or_path=str(base))
    (base / "LICENSE").unlink()
    front, body = parts(card.text(config, card.Shipped(REPORT), card_facts.base(config)))
    assert "license" not in front and front["library_name"] == "transformers"
    assert "Not measured: no evaluation of these weights" in body
    assert "No licence lies with the base" in body and "尚未评测" in body
    assert "| weights in bfloat16 | 10 prompts | 3.1e-03 |" in body


@pytest.mark.parametrize(
    ("files", "licence", "more"),
    [
        ({"README.md": "---\nlicense: mit\nlanguage: en\n---\n# Hi"}, "mit", {}),
        (
            {
                "README.md": "---\nlicense: other\nlicense_name: house\nlicense_link: LICENSE\n---\n",
                "LICENSE": "Ours.",
            },
            "other",
            {"license_name": "house", "license_link": "LICENSE"},
        ),
        ({"README.md": "---\nlicense: [mit\n---\n"}, "", {}),
        ({"README.md": "no front matter"}, "", {}),
        ({"LICENSE": "Ours alone."}, "other", {"license_name": "of-the-base", "license_link": "LICENSE"}),
        ({"LICENSE.txt": "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT"}, "llama3.2", {}),
        ({"LICENSE": "MIT License\n\nCopyright"}, "mit", {}),
    ],
)
def test_the_licence_of_the_base(files, licence, more, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = card_facts.base(Config(model_name_or_path=str(tmp_path)))
    assert (found.licence, dict(found.more)) == (licence, more)
    assert found.id == "" and found.name == tmp_path.name


def test_a_base_of_a_hub_is_named():
    found = card_facts.base(Config(model_name_or_path="Qwen/Qwen3-0.6B"))
    assert (found.id, found.name, found.files) == ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", ())


@pytest.mark.parametrize(
    ("texts", "codes"),
    [
        (["Where is the order that I made on Monday?", "It is on the way to you."], ["en"]),
        (["我上周买的耳机到哪儿了？", "您的订单已经发货"], ["zh"]),
        (["我上周买的耳机到哪儿了？", "It is on the way to you, and it will be there."], ["zh", "en"]),
        (["ヘッドホンはどこですか？", "注文は発送されました"], ["ja"]),
        (["Où est la commande que j'ai passée lundi ?"], []),
        (["12 + 30 = 42"], []),
    ],
)
def test_languages(texts, codes):
    assert card_facts.languages(texts) == codes
