"""Promise 7: merged = adapter, exported = merged. Checked at every export; here over methods and families."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from luthier.config import Config
from luthier.export import merge
from luthier.model import load, methods

TEXTS = ("Where is my order?", "你好，我可以退货吗？", "One two three four")
CASES = [
    ("qwen3", {}),
    ("qwen3", {"use_dora": True}),
    ("qwen3", {"use_rslora": True, "lora_rank": 6}),
    ("qwen3", {"pissa_init": True}),
    ("qwen3", {"additional_target": ("lm_head",)}),
    ("llama", {}),
    ("mistral", {"use_dora": True}),
    ("gemma3", {}),
    ("gemma3", {"additional_target": ("embed_tokens",)}),
    ("qwen2", {"finetuning_type": "freeze", "freeze_trainable_layers": 1}),
    ("llama", {"finetuning_type": "full"}),
]


@pytest.mark.parametrize(
    ("arch", "keys"), CASES, ids=[f"{a}-{'+'.join(map(str, k)) or 'lora'}" for a, k in CASES]
)
def test_what_is_exported_is_what_was_trained(arch, keys, tmp_path):
    base = tiny.make_model(tmp_path / "base", arch)
    config = Config(model_name_or_path=str(base), **keys)
    model = tiny.disturb(methods.prepare(load.model(config, torch.float32, True), config, True))
    (tmp_path / "tuned").mkdir()
    methods.save(model, tmp_path / "tuned", config)
    adapter = (tmp_path / "tuned/adapter_config.json").is_file()
    if not adapter:
        tiny.make_tokenizer(tmp_path / "tuned")
    asked = Config(
        verb="export",
        model_name_or_path=str(base if adapter else tmp_path / "tuned"),
        adapter_name_or_path=(str(tmp_path / "tuned"),) if adapter else (),
        template="chatml",
        export_dir=str(tmp_path / "out"),
    )
    report = json.loads((merge.export(asked) / merge.REPORT).read_text())
    assert report["merge_max_abs_difference"] <= 1e-4
    assert report["max_abs_difference"] <= 1e-4

    # And seen from outside, without luthier: the libraries that will serve it.
    if adapter:
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(plain, str(tmp_path / "tuned"))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    untouched = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            expected, found, before = (m.eval()(ids).logits for m in (model, exported, untouched))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        assert (found - before).abs().max() > 1e-2
