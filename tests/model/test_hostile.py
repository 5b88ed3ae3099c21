"""What the files of a model or adapter may name, and what is made of it when it is loaded all the same.

The attacks themselves go through the real command in tests/faults (pickles.py, models.py).
"""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from luthier.config import Config
from luthier.errors import ModelError
from luthier.model import files, load, trust

CODE = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"}
LLAMA_FACTORY = r"^(?!.*visual).*(?:q_proj|k_proj|v_proj|gate_proj).*"
UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|mlp).*?(?:q_proj|v_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|v_proj)))"
)


def copy(base, folder, **changes):
    """A copy of the base whose NAME.json have these changes."""
    shutil.copytree(base, folder)
    for name, change in changes.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return Config(model_name_or_path=str(folder))


def adapter(folder, rank=4, **settings):
    """An adapter of one layer."""
    folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    tensors = {f"{name}A.weight": torch.zeros(rank, 32), f"{name}B.weight": torch.zeros(32, rank)}
    save_file(tensors, folder / "adapter_model.safetensors")
    given = {"peft_type": "LORA", "r": rank, "target_modules": ["q_proj"], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(given))
    return folder


def refused(folder, **settings):
    """What is said of an adapter with these settings; "" when it is taken."""
    try:
        trust.adapter(adapter(folder, **settings))
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("pattern", [LLAMA_FACTORY, UNSLOTH, "all-linear", r".*\.layers\.\d+\.mlp\.[a-z_]+"])
def test_patterns_that_other_programs_write_are_taken(tmp_path, pattern):
    assert refused(tmp_path / "a", target_modules=pattern, alpha_pattern={pattern: 8}) == ""


SLOW = [
    "(a+)+b",
    "(?:a|a)*b",
    "(a{1,9}){1,9}",
    "(((a?){9}))",
    "a?" * 30 + "a" * 30,
    ".*" * 9,
    "(",
    "a" * 10_001,
]


@pytest.mark.parametrize("pattern", SLOW)
def test_patterns_that_could_take_forever_or_are_none(tmp_path, pattern):
    assert "adapter_config.json: exclude_modules" in refused(tmp_path / "a", exclude_modules=pattern)


def test_the_slowest_pattern_that_is_taken_ends_soon():
    import re

    slowest = ".*" * trust.MOST_QUANTIFIERS + "!"
    trust.tame("adapter_config.json", "target_modules", slowest)
    began = time.perf_counter()
    assert re.fullmatch(slowest, "model.language_model.layers.27.self_attn.q_proj") is None
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("ranks", [{"r": 5}, {"rank_pattern": {"q_proj": 5}}, {"r": 0}, {"r": True}])
def test_a_rank_beyond_the_weights_is_refused(tmp_path, ranks):
    assert "no rank of the weights (the largest is 4)" in refused(tmp_path / "a", **ranks)


def test_names_of_code_that_was_not_run_are_not_passed_on(base, tmp_path):
    tokens = {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}, "trust_remote_code": True}
    config = copy(base, tmp_path / "m", config={"auto_map": CODE}, tokenizer_config=tokens)
    load.tokenizer(config).save_pretrained(tmp_path / "saved")
    load.model(config, torch.float32, training=False).save_pretrained(tmp_path / "saved")
    for file in ("config.json", "tokenizer_config.json"):
        saved = json.loads((tmp_path / "saved" / file).read_text())
        assert "auto_map" not in saved and "trust_remote_code" not in saved


def test_the_weights_are_those_of_the_file_where_code_is_passed_over(base, tmp_path):
    config = copy(base, tmp_path / "m", config={"auto_map": CODE})
    model = load.model(config, torch.float32, training=False)
    assert torch.equal(model.lm_head.weight, load_file(base / "model.safetensors")["lm_head.weight"])


def test_a_model_of_the_hub_is_looked_at_like_a_folder(base, tmp_path):
    """In the hub's cache: a repository whose code would be needed, and one with an adapter beside it."""
    for name, change in (("evil/code", {"model_type": "x", "auto_map": CODE}), ("evil/both", {})):
        place = tmp_path / f"models--{name.replace('/', '--')}"
        commit = "0" * 40
        copy(base, place / "snapshots" / commit, config=change)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
        if not change:
            (place / "snapshots" / commit / "adapter_config.json").write_text("{}")
    evil = Config(model_name_or_path="evil/code", cache_dir=str(tmp_path))
    for loader in (load.tokenizer, load.settings):
        with pytest.raises(ModelError, match=r"(?s)config.json: auto_map.*trust_remote_code: true"):
            loader(evil)
    with pytest.raises(ModelError, match="both a model and an adapter"):
        load.settings(evil.replace(model_name_or_path="evil/both"))


def test_attention_that_config_json_asks_for_is_not_fetched(base, tmp_path, caplog):
    if load.importlib.util.find_spec("flash_attn"):
        pytest.skip("flash_attn is installed here")
    config = copy(base, tmp_path / "m", config={"_attn_implementation": "flash_attention_2"})
    assert load.model(config, torch.float32, training=False).config._attn_implementation == "sdpa"
    assert "flash_attention_2 needs the package" in caplog.text


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pytorch_model.bin", "not safetensors"),
        ("../model.safetensors", "leads out"),
        ("/model.safetensors", "leads out"),
        ("a\\model.safetensors", "leads out"),
        ("..", "not safetensors"),
        (7, "leads out"),
        (None, "leads out"),
    ],
)
def test_an_index_names_files_beside_it(tmp_path, name, why):
    (tmp_path / files.INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ModelError, match=f"index.json: weight_map: lm_head.weight: .*{why}"):
        files.weights(tmp_path)


def test_all_files_of_an_index_are_looked_at(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "1.safetensors")
    (tmp_path / "2.safetensors").write_bytes(b"\x80\x04}.")
    table = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / files.INDEX).write_text(json.dumps(table))
    with pytest.raises(ModelError, match=r"2\.safetensors: is a Python pickle"):
        files.weights(tmp_path)
    save_file({"b": torch.zeros(3, 4)}, tmp_path / "2.safetensors", {"note": "x"})
    assert files.weights(tmp_path) == [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    assert files.header(tmp_path / "2.safetensors") == ({"note": "x"}, {"b": (3, 4)})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[1]", "holds a list"),
        (b"", "not JSON"),
        (b"\x80\x04}.", "Python pickle"),
        (b"PK\x03\x04", "zip archive"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "65 levels"),
        (b'{"a":' * 10**6, "nested without end"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_settings_that_are_none(tmp_path, data, says):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ModelError, match=f"config.json: .*{says}"):
        files.read_json(tmp_path / "config.json")


def test_a_damaged_checkpoint_of_a_whole_model_decides_nothing_but_its_weights(base, tmp_path):
    """Its config.json is not read: the model is built as the base says."""
    from luthier.model.methods import select

    config = copy(base, tmp_path / "m", config={"model_type": "x", "auto_map": CODE, "rope_theta": 1.0})
    model = load.model(Config(model_name_or_path=str(base)), torch.float32, training=True)
    before = model.config.to_dict()
    tiny.disturb(model)
    again = select.load(model, [str(config.model_name_or_path)], Config(finetuning_type="full"), True)
    assert torch.equal(again.lm_head.weight, load_file(base / "model.safetensors")["lm_head.weight"])
    assert again.config.to_dict() == before
