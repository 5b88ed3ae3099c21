"""`luthier export`: what is written, what is refused, and that a difference is caught."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from luthier.config import Config, load
from luthier.data.render import Renderer
from luthier.errors import ConfigError, ExportError
from luthier.export import merge, parity
from luthier.model import load as loading
from luthier.model import methods
from luthier.runs import Run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.make_model(tmp_path_factory.mktemp("base"))


def trained(config, directory):
    """An adapter with large random values in place of training."""
    model = methods.prepare(loading.model(config, torch.float32, True), config, True)
    directory.mkdir(exist_ok=True)
    methods.save(tiny.disturb(model), directory, config)
    return directory


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return trained(Config(model_name_or_path=str(base)), tmp_path_factory.mktemp("adapter"))


def request(base, adapter, out, *more):
    words = [
        "--model_name_or_path", str(base), "--adapter_name_or_path", str(adapter), "--template", "chatml",
        "--finetuning_type", "lora", "--export_dir", str(out), "--export_size", "2", "--export_device", "cpu",
        "--export_legacy_format", "False",
    ]  # fmt: skip
    return [*words, *more]


def test_the_flags_of_llama_factory(base, adapter, tmp_path, capsys):
    out = tmp_path / "merged"
    assert merge.main(request(base, adapter, out)) == 0
    text = capsys.readouterr().out
    assert str(out) in text and "44,224 weights in float32" in text and "allowed 0.0001" in text
    report = json.loads((out / "export.json").read_text())
    assert report["max_abs_difference"] <= 1e-4 and report["merge_max_abs_difference"] <= 1e-4
    assert (report["dtype"], report["parameters"]) == ("float32", 44224)
    assert [p["source"] for p in report["prompts"]] == ["built-in"] * 4
    assert report["prompts"][0]["text"].endswith("Who are you?<|im_end|>\n<|im_start|>assistant\n")
    names = {p.name for p in out.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "Modelfile"} <= names
    assert {"model.safetensors", "chat_template.jinja", "export.json"} <= names
    assert not any(name.startswith(".") or name.endswith(".bin") for name in names)

    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.tensor([AutoTokenizer.from_pretrained(out).encode("Where is my order?")])
    config = Config(model_name_or_path=str(base), adapter_name_or_path=(str(adapter),))
    tuned = methods.prepare(loading.model(config, torch.float32, False), config, False)
    torch.testing.assert_close(merged(ids).logits, tuned(ids).logits, atol=1e-5, rtol=0)
    assert (merged(ids).logits - plain(ids).logits).abs().max() > 0.05


def test_the_template_and_the_stops_go_along(base, adapter, tmp_path):
    shutil.copytree(base, tmp_path / "bare")
    (tmp_path / "bare/chat_template.jinja").unlink()
    merge.main(request(tmp_path / "bare", adapter, tmp_path / "out"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    conversation = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    settings = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert settings["eos_token_id"] == [2, 1] and settings["pad_token_id"] == 0  # chatml stops at both
    assert json.loads((tmp_path / "out/config.json").read_text())["use_cache"] is True
    lines = (tmp_path / "out/Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ."
    assert 'PARAMETER stop "<|im_end|>"' in lines and "PARAMETER num_ctx 512" in lines
    assert not any(line.startswith("TEMPLATE") for line in lines)


def test_a_run_knows_its_base_template_and_data(base, tmp_path, capsys):
    rows = [{"instruction": f"Where is order {k}?", "output": "On its way."} for k in range(9)]
    (tmp_path / "orders.json").write_text(json.dumps(rows))
    keys = {"dataset": (str(tmp_path / "orders.json"),), "template": "chatml", "default_system": "Be kind."}
    config = Config(model_name_or_path=str(base), **keys)
    with Run.create(tmp_path / "run") as run:
        tokenizer = loading.tokenizer(config)
        run.write_text("template.jinja", Renderer.of(config, tokenizer).template.text)
        run.describe("", config.as_dict(), {})
        with run.result() as folder:
            trained(config, folder)
        run.write_marker(base=str(base), adapter=True, template="chatml", system="Be kind.")
    assert merge.main([str(tmp_path / "run"), f"export_dir={tmp_path / 'out'}", "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["adapters"] == [str(tmp_path / "run")] and report["base"] == str(base)
    assert [p["source"].split("/")[-1] for p in report["prompts"]] == [
        *(f"orders.json:{k}" for k in range(1, 7)),
        *(["built-in"] * 4),
    ]
    assert (
        "Be kind." in report["prompts"][0]["text"] and "On its way.<|im_end|>" in report["prompts"][0]["text"]
    )
    assert 'SYSTEM """Be kind."""' in (tmp_path / "out/Modelfile").read_text()
    kept = (tmp_path / "run/template.jinja").read_text()
    assert (tmp_path / "out/chat_template.jinja").read_text() == kept

    (tmp_path / "orders.json").unlink()
    assert merge.main([str(tmp_path / "run"), f"export_dir={tmp_path / 'again'}"]) == 0
    assert "only built-in prompts" in capsys.readouterr().out


def test_json_on_stdout_and_shards(base, adapter, tmp_path, capsys):
    words = request(base, adapter, tmp_path / "out", "--format", "json")
    assert merge.main(words) == 0
    assert json.loads(capsys.readouterr().out)["max_abs_difference"] <= 1e-4
    config = load([*words, "overwrite_output_dir=true"], "export").replace(export_size=0.00005)
    out = merge.export(config)
    shards = sorted(out.glob("model-*.safetensors"))
    assert len(shards) > 2 and max(p.stat().st_size for p in shards) < 70_000
    assert (out / "model.safetensors.index.json").is_file()


@pytest.mark.parametrize("keys", [[], ["infer_dtype=bfloat16"]])
def test_half_precision_is_the_float32_sum_rounded_once(adapter, base, keys, tmp_path):
    half = tiny.make_model(tmp_path / "half", dtype="float32" if keys else "bfloat16")
    merge.main(request(half, adapter, tmp_path / "out", *keys))
    report = json.loads((tmp_path / "out/export.json").read_text())
    assert report["dtype"] == "bfloat16" and report["tolerance"] is None
    assert report["merge_max_abs_difference"] <= 1e-4 < report["max_abs_difference"] < 0.1
    assert "rounded" in " ".join(report["notes"])
    config = Config(model_name_or_path=str(half), adapter_name_or_path=(str(adapter),))
    exact = methods.merge(methods.prepare(loading.model(config, torch.float32, False), config, False))
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).state_dict()
    for name, tensor in exact.state_dict().items():
        assert torch.equal(tensor.to(torch.bfloat16), written[name]), name


def test_qlora_goes_into_the_unrounded_base_and_says_how_far_that_is(tmp_path):
    pytest.importorskip("bitsandbytes")
    base = tiny.make_model(tmp_path / "base", hidden_size=64, head_dim=16, intermediate_size=128)
    config = Config(model_name_or_path=str(base), quantization_bit=4)
    directory = trained(config, tmp_path / "adapter")
    merge.main(request(base, directory, tmp_path / "out", "--quantization_bit", "4"))
    report = json.loads((tmp_path / "out/export.json").read_text())
    assert report["max_abs_difference"] <= 1e-4
    assert report["quantized_base"]["bits"] == 4
    assert 1e-6 < report["quantized_base"]["mean_kl"] < 1
    assert "in 4 bits" in " ".join(report["notes"])
    assert (tmp_path / "out/config.json").read_text().find("quantization") == -1


@pytest.mark.parametrize(
    "keys", [{"add_special_tokens": ("<|tune|>",)}, {"additional_target": ("embed_tokens",)}]
)
def test_grown_and_retrained_embeddings(keys, base, tmp_path):
    for arch in ("qwen3", "gemma3"):
        own = tiny.make_model(tmp_path / arch, arch)
        config = Config(model_name_or_path=str(own), **keys)
        directory = trained(config, tmp_path / f"{arch}-adapter")
        out = merge.export(
            config.replace(
                verb="export",
                adapter_name_or_path=(str(directory),),
                export_dir=str(tmp_path / f"{arch}-out"),
                template="chatml",
            )
        )
        assert json.loads((out / "export.json").read_text())["max_abs_difference"] <= 1e-4
        rows = AutoModelForCausalLM.from_pretrained(out).get_input_embeddings().weight.shape[0]
        assert rows == (448 if "add_special_tokens" in keys else 400)
        assert len(AutoTokenizer.from_pretrained(out)) == (401 if "add_special_tokens" in keys else 400)


def test_a_merge_that_differs_is_not_written(base, adapter, tmp_path, monkeypatch):
    """Damage the merge as a wrong scale would: the adapter's own effect is far above the tolerance."""
    honest = methods.merge

    def careless(model):
        merged = honest(model)
        with torch.no_grad():
            merged.model.layers[1].mlp.up_proj.weight *= 1.01
        return merged

    monkeypatch.setattr(methods, "merge", careless)
    with pytest.raises(ExportError, match=r"merging changed the model: logits differ by .* where 0\.0001"):
        merge.main(request(base, adapter, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_differs_is_not_kept(base, adapter, tmp_path, monkeypatch):
    honest = merge._write

    def damaged(work, folder, dtype):
        honest(work, folder, dtype)
        file = folder / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)

    monkeypatch.setattr(merge, "_write", damaged)
    with pytest.raises(ExportError, match="1 of 25 weights are not what was merged"):
        merge.main(request(base, adapter, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken(base, adapter, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ExportError, match=r"not empty \(mine\.txt\).*overwrite_output_dir"):
        merge.main(request(base, adapter, out))
    assert (out / "mine.txt").read_text() == "keep"
    with pytest.raises(ExportError, match="which is read for the export"):
        merge.main(request(base, adapter, base, "overwrite_output_dir=true"))
    with pytest.raises(ExportError, match="is a file"):
        merge.main(request(base, adapter, base / "config.json"))
    assert merge.main(request(base, adapter, out, "overwrite_output_dir=true")) == 0
    assert not (out / "mine.txt").exists() and (out / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--export_legacy_format", "True"], "pickled"),
        (["--export_quantization_bit", "4"], "quantized on export"),
    ],
)
def test_what_is_refused(base, adapter, tmp_path, words, what):
    given = [
        w for w in request(base, adapter, tmp_path / "out") if w not in ("--export_legacy_format", "False")
    ]
    with pytest.raises(ConfigError, match=what):
        merge.main([*given, *words])


def test_parity_counts_what_is_not_finite_as_different():
    one, other = [torch.zeros(2, 3)], [torch.zeros(2, 3)]
    other[0][1, 2] = float("nan")
    assert parity.differences(one, other) == [float("inf")]
    assert parity.differences(one, [torch.full((2, 3), 0.5)]) == [0.5]
    assert parity.divergence(one, one) == 0.0
