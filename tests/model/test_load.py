"""From a config to tokenizer and base model, and what is said when that fails."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from luthier.config import Config
from luthier.errors import MissingPackage, ModelError
from luthier.model import load, locate


def test_the_model_has_the_weights_of_the_file_in_the_dtype_asked_for(base):
    config = Config(model_name_or_path=str(base))
    saved = load_file(base / "model.safetensors")
    model = load.model(config, torch.float32, training=False)
    assert torch.equal(model.model.embed_tokens.weight, saved["model.embed_tokens.weight"])
    assert model.config.use_cache and not model.training
    half = load.model(config, torch.bfloat16, training=True)
    assert half.model.embed_tokens.weight.dtype is torch.bfloat16
    assert not half.config.use_cache and half.training
    assert half.name_or_path == str(base)


@pytest.mark.parametrize(
    ("asked", "name"), [("auto", "sdpa"), ("disabled", "eager"), ("sdpa", "sdpa"), ("fa2", "sdpa")]
)
def test_attention(base, asked, name):
    config = Config(model_name_or_path=str(base), flash_attn=asked)
    if asked == "fa2" and load.importlib.util.find_spec("flash_attn"):
        pytest.skip("flash_attn is installed here")
    assert load.model(config, torch.float32, training=False).config._attn_implementation == name


@pytest.mark.parametrize(
    ("keys", "training", "expected"),
    [
        ({}, True, torch.float32),
        ({"bf16": True}, True, torch.bfloat16),
        ({"pure_bf16": True}, True, torch.bfloat16),
        ({"fp16": True}, True, torch.float16),
        ({"bf16": True, "infer_dtype": "float16"}, False, torch.float16),
        ({"infer_dtype": "float32"}, False, torch.float32),
    ],
)
def test_dtype(base, keys, training, expected):
    assert load.dtype(Config(model_name_or_path=str(base), **keys), training) is expected


def test_on_a_cpu_auto_means_float32(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is an accelerator")
    base = tiny.make_model(tmp_path, dtype="bfloat16")
    assert load.dtype(Config(model_name_or_path=str(base)), training=False) is torch.float32


def test_from_scratch_needs_no_weights_and_depends_on_the_seed_alone(base, tmp_path):
    shutil.copytree(base, tmp_path / "plan", ignore=shutil.ignore_patterns("*.safetensors"))
    config = Config(model_name_or_path=str(tmp_path / "plan"), train_from_scratch=True, seed=7)
    torch.manual_seed(1)
    first = load.model(config, torch.float32, training=True)
    torch.manual_seed(2)
    after = torch.random.get_rng_state()
    second = load.model(config, torch.float32, training=True)
    assert torch.equal(torch.random.get_rng_state(), after)
    other = load.model(config.replace(seed=8), torch.float32, training=True)
    weight = "lm_head.weight"
    assert torch.equal(first.state_dict()[weight], second.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


def test_added_tokens_grow_the_embeddings_by_the_same_noise_each_time(base):
    config = Config(model_name_or_path=str(base), add_tokens=("lute",), add_special_tokens=("<|tune|>",))
    tokenizer = load.tokenizer(config)
    assert tokenizer.tokenize("a lute<|tune|>")[-2:] == ["lute", "<|tune|>"]
    assert (
        "<|tune|>" in tokenizer.all_special_tokens or tokenizer.decode([401], skip_special_tokens=True) == ""
    )
    model = load.model(config, torch.float32, training=True, tokenizer=tokenizer)
    rows = model.get_input_embeddings().weight
    assert rows.shape == (448, 32) and model.config.vocab_size == 448
    old = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(rows[:400], old)
    assert (rows[400:].std() - 32**-0.5).abs() < 0.02
    again = load.model(config, torch.float32, training=False)
    assert torch.equal(again.get_input_embeddings().weight, rows)
    assert torch.equal(again.get_output_embeddings().weight, model.get_output_embeddings().weight)


def test_the_tokenizer_kept_with_an_adapter_comes_first(base, tmp_path):
    other = tiny.tokenizer()
    other.add_tokens(["lute"])
    other.save_pretrained(str(tmp_path))
    config = Config(model_name_or_path=str(base), adapter_name_or_path=(str(tmp_path),))
    assert len(load.tokenizer(config)) == 401
    assert len(load.tokenizer(config.replace(adapter_name_or_path=(str(tmp_path / "none"),)))) == 400


def test_a_tokenizer_without_pad_token_pads_with_its_end(base, tmp_path):
    shutil.copytree(base, tmp_path / "m")
    settings = json.loads((tmp_path / "m/tokenizer_config.json").read_text())
    del settings["pad_token"]
    (tmp_path / "m/tokenizer_config.json").write_text(json.dumps(settings))
    assert load.tokenizer(Config(model_name_or_path=str(tmp_path / "m"))).pad_token == "<|im_end|>"


def check_refused(config, *words):
    with pytest.raises(ModelError) as caught:
        load.tokenizer(config)
        load.model(config, torch.float32, training=False)
    for word in words:
        assert word in str(caught.value), f"{word!r} not in {caught.value}"


def test_a_directory_without_config_is_no_model(base, tmp_path):
    shutil.copytree(base, tmp_path / "m", ignore=shutil.ignore_patterns("config.json"))
    check_refused(Config(model_name_or_path=str(tmp_path / "m")), "no config.json", "model.safetensors")


def test_a_directory_without_tokenizer(base, tmp_path):
    shutil.copytree(base, tmp_path / "m", ignore=shutil.ignore_patterns("token*", "chat*"))
    check_refused(Config(model_name_or_path=str(tmp_path / "m")), "no tokenizer", "tokenizer.json")


def test_a_path_to_nothing_is_never_asked_of_the_hub(tmp_path):
    check_refused(Config(model_name_or_path=str(tmp_path / "none")), "no such directory")
    check_refused(Config(model_name_or_path="./models/none"), "no such directory")


def test_a_gguf_file(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    check_refused(Config(model_name_or_path=str(tmp_path / "m.gguf")), "GGUF", "config.json")


def test_an_adapter_given_as_model(base, tmp_path):
    tiny.make_tokenizer(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    check_refused(Config(model_name_or_path=str(tmp_path)), "holds an adapter", "adapter_name_or_path")


def test_a_hub_name_while_offline(tmp_path):
    config = Config(model_name_or_path="luthier-tests/none", cache_dir=str(tmp_path))
    check_refused(config, "luthier-tests/none", "HF_HUB_OFFLINE", "local directory")


def test_an_unreachable_hub_names_the_ways_around(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    message = str(locate.explain("a/b", OSError("We couldn't connect to 'https://huggingface.co'")))
    for word in ("HF_ENDPOINT", "USE_MODELSCOPE_HUB", "local directory", "couldn't connect"):
        assert word in message


def test_modelscope_is_a_package_of_its_own():
    if load.importlib.util.find_spec("modelscope"):
        pytest.skip("modelscope is installed here")
    with pytest.raises(MissingPackage, match=r"luthier\[modelscope\]"):
        load.tokenizer(Config(model_name_or_path="Qwen/Qwen3-0.6B", hub="modelscope"))


def test_pickled_weights_are_not_read(base, tmp_path):
    shutil.copytree(base, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    config = Config(model_name_or_path=str(tmp_path / "m"))
    check_refused(config, "no weights", "train_from_scratch")
    (tmp_path / "m/pytorch_model.bin").write_bytes(b"\x80\x04.")
    check_refused(config, "pytorch_model.bin", "pickle")


def test_missing_weights_are_not_made_up(base, tmp_path):
    shutil.copytree(base, tmp_path / "m")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "m/model.safetensors", metadata={"format": "pt"})
    check_refused(Config(model_name_or_path=str(tmp_path / "m")), "lack 1", "layers.1.mlp.up_proj")


def test_damaged_weights(base, tmp_path):
    shutil.copytree(base, tmp_path / "m")
    whole = (base / "model.safetensors").read_bytes()
    (tmp_path / "m/model.safetensors").write_bytes(whole[: len(whole) // 2])
    check_refused(Config(model_name_or_path=str(tmp_path / "m")), "model.safetensors", "damaged")


def test_an_unknown_architecture(base, tmp_path):
    shutil.copytree(base, tmp_path / "m")
    settings = json.loads((base / "config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps(settings | {"model_type": "lute9"}))
    check_refused(Config(model_name_or_path=str(tmp_path / "m")), "lute9")
