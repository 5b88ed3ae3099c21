"""Merging tensor by tensor: adapters as PEFT itself writes them, and what PEFT's own merge does to some."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from luthier.config import Config
from luthier.errors import ModelError, RunError
from luthier.export import merge, merge_stream
from luthier.runs import space

LINEAR = ["q_proj", "up_proj"]
IDS = torch.tensor([[2, 40, 41, 42, 43, 44, 60, 61, 5, 6, 7, 350]])


def adapter(base, folder, rows=None, **keys):
    """An adapter of PEFT's own with large random values; `rows`: tokens that it was trained with."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        with torch.random.fork_rng():
            model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.random.fork_rng():
        tuned = get_peft_model(
            model, LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8} | keys)
        )
    tiny.disturb(tuned)
    tuned.save_pretrained(folder)
    tiny.make_tokenizer(folder)
    return folder


def export(base, folder, out, **keys):
    """What `luthier export` writes, and its report."""
    names = folder if isinstance(folder, tuple) else (folder,)
    config = Config(
        verb="export",
        model_name_or_path=str(base),
        adapter_name_or_path=tuple(map(str, names)),
        template="chatml",
        export_dir=str(out),
        **keys,
    )
    return json.loads((merge.export(config) / merge.REPORT).read_text())


def difference(base, folder, out, rows=None):
    """Seen without luthier: the largest difference of the adapter model's and the exported one's logits."""
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        plain.resize_token_embeddings(rows, mean_resizing=False)
    tuned = PeftModel.from_pretrained(plain, str(folder)).eval()
    exported = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.no_grad():
        return float((tuned(IDS).logits - exported(IDS).logits).abs().max())


CASES = {
    "lora": {"target_modules": LINEAR},
    "rslora": {"target_modules": LINEAR, "use_rslora": True},
    "dora": {"target_modules": LINEAR, "use_dora": True},
    "patterns": {"target_modules": LINEAR, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 3}},
    "all-linear": {"target_modules": "all-linear"},
    "head saved": {"target_modules": LINEAR, "modules_to_save": ["lm_head"]},
    "embedding": {"target_modules": [*LINEAR, "embed_tokens"]},
    "embedding by dora": {"target_modules": [*LINEAR, "embed_tokens"], "use_dora": True},
    "head": {"target_modules": [*LINEAR, "lm_head"]},
    "tokens": {"target_modules": LINEAR, "trainable_token_indices": [5, 6]},
}


@pytest.mark.parametrize(
    ("name", "tied"),
    [*((name, True) for name in CASES), ("lora", False), ("embedding", False), ("head", False)],
)
def test_adapters_of_peft(name, tied, tmp_path):
    keys = CASES[name]
    base = tiny.make_model(tmp_path / "base", "llama", tie_word_embeddings=tied)
    folder = adapter(base, tmp_path / "adapter", **keys)
    report = export(base, folder, tmp_path / "out")
    assert report["merge_max_abs_difference"] <= 1e-4 and report["max_abs_difference"] <= 1e-4
    assert not [note for note in report["notes"] if "from memory" in note]
    assert difference(base, folder, tmp_path / "out") <= 1e-4
    of_an_end = "saved" in str(keys) or {"embed_tokens", "lm_head"} & {*keys["target_modules"]}
    settings = json.loads((tmp_path / "out/config.json").read_text())
    assert settings["tie_word_embeddings"] is (tied and not of_an_end and "modules_to_save" not in keys)


@pytest.mark.parametrize(("target", "least"), [("embed_tokens", 5.0), ("lm_head", 1.0)])
def test_pefts_own_merge_of_tied_matrices_is_wrong_and_ours_is_not(target, least, tmp_path):
    base = tiny.make_model(tmp_path / "base", "gemma3")
    folder = adapter(base, tmp_path / "adapter", target_modules=[*LINEAR, target])
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(plain, str(folder)).eval()
    with torch.no_grad():
        right = tuned(IDS).logits
        assert (tuned.merge_and_unload()(IDS).logits - right).abs().max() > least
    export(base, folder, tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        assert (exported(IDS).logits - right).abs().max() <= 1e-4
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert {"model.embed_tokens.weight", "lm_head.weight"} <= set(file.keys())


def test_dora_on_a_bfloat16_base_is_computed_in_float32(tmp_path):
    """PEFT in the base's own numbers is off by far more than the one rounding at the end."""
    base = tiny.make_model(tmp_path / "base", "llama", dtype="bfloat16", initializer_range=0.2)
    folder = adapter(base, tmp_path / "adapter", target_modules=LINEAR, use_dora=True)
    report = export(base, folder, tmp_path / "out", infer_dtype="float32")
    assert report["merge_max_abs_difference"] <= 1e-4
    assert difference(base, folder, tmp_path / "out") <= 1e-4
    half = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(half, str(folder)).merge_and_unload().float().eval()
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        assert (merged(IDS).logits - exported(IDS).logits).abs().max() > 1e-2


@pytest.mark.parametrize("tied", [False, True], ids=["two matrices", "tied"])
@pytest.mark.parametrize("saved", [None, ["embed_tokens", "lm_head"]], ids=["grown", "grown and trained"])
def test_a_grown_vocabulary_comes_with_the_adapter(tied, saved, tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama", tie_word_embeddings=tied)
    folder = adapter(base, tmp_path / "adapter", rows=464, target_modules=LINEAR, modules_to_save=saved)
    plain = AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(plain, str(folder))
    report = export(base, folder, tmp_path / "out")
    assert report["max_abs_difference"] <= 1e-4
    assert difference(base, folder, tmp_path / "out", rows=464) <= 1e-4
    assert json.loads((tmp_path / "out/config.json").read_text())["vocab_size"] == 464


def test_half_a_grown_vocabulary_is_refused(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    folder = adapter(base, tmp_path / "adapter", rows=464, target_modules=LINEAR)
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"464 tokens, the base has 400.*does not bring lm_head along"):
        export(base, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_adapters_one_after_the_other(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    first = adapter(base, tmp_path / "first", target_modules=LINEAR)
    export(base, first, tmp_path / "between")
    second = adapter(tmp_path / "between", tmp_path / "second", target_modules=LINEAR, use_dora=True)
    report = export(base, (first, second), tmp_path / "out")
    assert report["max_abs_difference"] <= 1e-4
    assert difference(tmp_path / "between", second, tmp_path / "out") <= 1e-4


def test_transposed_weights(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size": 400, "n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(**shape, eos_token_id=2, bos_token_id=2))
    model.save_pretrained(tmp_path / "base")
    base = tiny.make_tokenizer(tmp_path / "base")
    folder = adapter(base, tmp_path / "adapter", target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    report = export(base, folder, tmp_path / "out")
    assert report["max_abs_difference"] <= 1e-4
    assert not [note for note in report["notes"] if "from memory" in note]
    assert difference(base, folder, tmp_path / "out") <= 1e-4


def test_experts_lie_in_the_files_as_they_did(tmp_path):
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    keys = {**tiny.GEOMETRY, "vocab_size": 400, "moe_intermediate_size": 16, "num_experts": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**keys, num_experts_per_tok=2, eos_token_id=2))
    model.save_pretrained(tmp_path / "base")
    base = tiny.make_tokenizer(tmp_path / "base")
    folder = adapter(base, tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    report = export(base, folder, tmp_path / "out")
    assert report["max_abs_difference"] <= 1e-4
    assert not [note for note in report["notes"] if "from memory" in note]
    with (
        safe_open(base / "model.safetensors", "pt") as old,
        safe_open(tmp_path / "out/model.safetensors", "pt") as new,
    ):
        assert set(old.keys()) == set(new.keys())
        name = "model.layers.1.mlp.experts.3.down_proj.weight"
        assert torch.equal(old.get_tensor(name), new.get_tensor(name))


def test_what_cannot_be_done_tensor_by_tensor_is_done_in_memory_and_said(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    folder = adapter(base, tmp_path / "adapter", target_modules=LINEAR, bias="all")
    report = export(base, folder, tmp_path / "out")
    assert report["max_abs_difference"] <= 1e-4
    assert "adapter is an adapter that trains biases" in " ".join(report["notes"])


def test_qlora_is_measured_both_ways(tmp_path):
    pytest.importorskip("bitsandbytes")
    base = tiny.make_model(tmp_path / "base", hidden_size=64, head_dim=16, intermediate_size=128)
    folder = adapter(base, tmp_path / "adapter", target_modules=LINEAR)
    found = {}
    for into in ("original", "quantized"):
        report = export(base, folder, tmp_path / into, quantization_bit=4, merge_into=into)
        assert report["max_abs_difference"] <= 1e-4
        found[into] = report["quantized_base"]
    one = found["original"]
    assert one["recommended"] == "quantized" and one["merged_into"] == "original"
    assert one["quantized"]["mean_kl"] < 1e-7 < 1e-5 < one["original"]["mean_kl"]
    assert one["quantized"]["max_abs_difference"] <= 1e-4 < 1e-2 < one["original"]["max_abs_difference"]
    assert found["quantized"]["mean_kl"] == one["quantized"]["mean_kl"]
    kept = [AutoModelForCausalLM.from_pretrained(tmp_path / into).state_dict() for into in found]
    name = "model.layers.0.self_attn.k_proj.weight"  # it has no adapter
    assert torch.equal(kept[0][name], AutoModelForCausalLM.from_pretrained(base).state_dict()[name])
    assert len(kept[1][name].unique()) < len(kept[0][name].unique()) / 4


def test_what_is_written_is_a_safetensors_file(tmp_path):
    """Numbers of several widths; each begins where its kind must, and a shard is never larger than asked."""
    values = {
        "a": torch.arange(3, dtype=torch.uint8),
        "b": torch.randn(5, 3).bfloat16(),
        "c": torch.tensor(7),
        "d": torch.randn(2, 3),
        "e": torch.tensor([True, False, True]),
    }
    pieces = [
        merge_stream.Piece(name, tuple(value.shape), value.dtype, lambda value=value: value)
        for name, value in values.items()
    ]
    merge_stream.write(pieces, tmp_path, 1 << 20)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name, value in values.items():
            assert torch.equal(file.get_tensor(name), value)
    (tmp_path / "shards").mkdir()
    merge_stream.write(pieces, tmp_path / "shards", 40)
    index = json.loads((tmp_path / "shards/model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_parameters": 28, "total_size": 68}
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "shards" / file, "pt") as opened:
            assert torch.equal(opened.get_tensor(name), values[name])


def test_a_disk_that_is_too_small_is_known_before_anything_is_loaded(tmp_path, monkeypatch):
    base = tiny.make_model(tmp_path / "base", "llama")
    folder = adapter(base, tmp_path / "adapter", target_modules=LINEAR)
    monkeypatch.setattr(space, "free", lambda _: 100_000)
    monkeypatch.setattr(merge, "_merged", lambda _: pytest.fail("loaded"))
    with pytest.raises(RunError, match=r"export_dir: need 0\.\d+ MB, have 0\.1 MB"):
        export(base, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_exported_tokenizer_is_the_adapters(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    folder = adapter(base, tmp_path / "adapter", target_modules=LINEAR)
    export(base, folder, tmp_path / "out")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == 400
