"""Every method: what it trains, and that what is saved is what was trained."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import tiny
from luthier.config import Config
from luthier.errors import ModelError
from luthier.model import load, methods

IDS = torch.arange(80, 96)[None]
LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def start(config, resume_from=None):
    return methods.prepare(load.model(config, torch.float32, True), config, True, resume_from)


def learn(model, steps=2):
    """A few plain gradient steps, large enough to see."""
    model.eval()
    for _ in range(steps):
        model(IDS, labels=IDS).loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.5 * parameter.grad
                    parameter.grad = None
    return model


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def used(config, *directories):
    asked = config.replace(adapter_name_or_path=tuple(map(str, directories)))
    return methods.prepare(load.model(asked, torch.float32, False), asked, False)


ROWS = [
    {},
    {"lora_dropout": 0.1, "lora_alpha": 8, "lora_rank": 4},
    {"lora_target": ("q_proj", "v_proj")},
    {"lora_target": ("model.layers.1.mlp.up_proj",)},
    {"use_rslora": True, "lora_rank": 6},
    {"use_dora": True},
    {"pissa_init": True, "pissa_iter": -1},
    {"pissa_init": True, "use_rslora": True, "lora_rank": 6},
    {"pissa_init": True, "use_dora": True},
    {"additional_target": ("embed_tokens", "lm_head")},
    {"additional_target": ("norm",), "pissa_init": True},
    {"add_special_tokens": ("<|tune|>",)},
]
NAMES = ["+".join(row) or "plain" for row in ROWS]


CASES = [("base", row) for row in ROWS] + [("tied", row) for row in (ROWS[0], *ROWS[-3:])]


@pytest.mark.parametrize(("which", "keys"), CASES, ids=[f"{w}-{'+'.join(k) or 'plain'}" for w, k in CASES])
def test_an_adapter_works_on_the_original_base_merges_and_trains_on(which, keys, request, tmp_path):
    config = Config(model_name_or_path=str(request.getfixturevalue(which)), **keys)
    trained = learn(start(config))
    expected = logits(trained)
    assert (expected - logits(load.model(config, torch.float32, False))).abs().max() > 1e-4
    methods.save(trained, tmp_path, config)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]

    again = used(config, tmp_path)
    assert not any(p.requires_grad for p in again.parameters())
    torch.testing.assert_close(logits(again), expected, atol=2e-6, rtol=0)
    merged = methods.merge(again)
    assert not hasattr(merged, "peft_config")
    assert not any("lora" in name for name in merged.state_dict())
    torch.testing.assert_close(logits(merged), expected, atol=2e-6, rtol=0)

    resumed = start(config, resume_from=tmp_path)
    then, now = trained.state_dict(), resumed.state_dict()
    assert [name for name in then if not torch.equal(then[name], now[name])] == []
    wanted = {n for n, p in trained.named_parameters() if p.requires_grad}
    assert {n for n, p in resumed.named_parameters() if p.requires_grad} == wanted


@pytest.mark.parametrize("keys", ROWS[:-1], ids=NAMES[:-1])
def test_plain_peft_loads_what_is_saved(keys, base, tmp_path):
    config = Config(model_name_or_path=str(base), **keys)
    trained = learn(start(config))
    methods.save(trained, tmp_path, config)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(plain, str(tmp_path))
    torch.testing.assert_close(logits(loaded), logits(trained), atol=2e-6, rtol=0)


def test_the_files_of_an_adapter(base, tmp_path):
    config = Config(model_name_or_path=str(base))
    methods.save(start(config), tmp_path, config)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)
    assert (settings["peft_type"], settings["task_type"], settings["inference_mode"]) == (
        "LORA",
        "CAUSAL_LM",
        True,
    )
    assert (settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (8, 16, 0.0)
    assert settings["target_modules"] == LINEAR
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * len(LINEAR)
    assert tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape == (8, 32)
    first = (tmp_path / "adapter_model.safetensors").read_bytes(), settings
    methods.save(start(config), tmp_path, config)
    second = (tmp_path / "adapter_model.safetensors").read_bytes()
    assert (second, json.loads((tmp_path / "adapter_config.json").read_text())) == first


def test_a_pissa_adapter_is_written_as_plain_lora_of_twice_the_rank(base, tmp_path):
    config = Config(model_name_or_path=str(base), pissa_init=True, lora_rank=4)
    model = start(config)
    original = load.model(config, torch.float32, False)
    torch.testing.assert_close(logits(model), logits(original), atol=2e-6, rtol=0)
    residual = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
    assert (residual - original.model.layers[0].self_attn.q_proj.weight).norm() > 0.1
    methods.save(model, tmp_path, config)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["init_lora_weights"]) == (8, 16, True)
    torch.testing.assert_close(logits(used(config, tmp_path)), logits(original), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "keys", [{}, {"pissa_init": True}, {"finetuning_type": "full", "train_from_scratch": True}]
)
def test_initial_values_depend_on_the_seed_alone(keys, base):
    config = Config(model_name_or_path=str(base), seed=3, **keys)
    torch.manual_seed(1)
    first = start(config).state_dict()
    torch.manual_seed(2)
    second = start(config).state_dict()
    assert [n for n in first if not torch.equal(first[n], second[n])] == []
    if not keys.get("pissa_init"):
        other = start(config.replace(seed=4)).state_dict()
        assert any(not torch.equal(first[n], other[n]) for n in first)


def test_the_last_adapter_is_trained_on_the_others_merged(base, tmp_path):
    config = Config(model_name_or_path=str(base))
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.mkdir()
    methods.save(learn(start(config)), one, config)
    onto = config.replace(adapter_name_or_path=(str(one),), create_new_adapter=True)
    second = learn(start(onto))
    methods.save(second, two, onto)
    for given in ((one, two), (two,)):
        torch.testing.assert_close(logits(used(config, *given)), logits(second), atol=2e-6, rtol=0)
    resumed = start(onto, resume_from=two).state_dict()
    assert [n for n, t in second.state_dict().items() if not torch.equal(t, resumed[n])] == []
    further = start(config.replace(adapter_name_or_path=(str(one), str(two))))
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight"
    assert torch.equal(further.state_dict()[name], second.state_dict()[name])
    assert further.get_parameter(name).requires_grad
    torch.testing.assert_close(logits(further), logits(second), atol=2e-6, rtol=0)


def test_merging_rounds_once(base, tmp_path):
    """The bf16 weight is the rounded float32 sum, not a sum of rounded terms."""
    config = Config(model_name_or_path=str(base))
    methods.save(learn(start(config), 4), tmp_path, config)
    asked = config.replace(adapter_name_or_path=(str(tmp_path),))
    half = methods.merge(methods.prepare(load.model(asked, torch.bfloat16, False), asked, False))
    whole = load.model(asked, torch.bfloat16, False).float()
    exact = methods.merge(methods.prepare(whole, asked, False)).to(torch.bfloat16)
    then, now = exact.state_dict(), half.state_dict()
    assert [n for n in then if not torch.equal(then[n], now[n])] == []


def test_full_trains_everything_and_saves_a_model_with_its_cache_on(base, tmp_path):
    config = Config(model_name_or_path=str(base), finetuning_type="full")
    model = learn(start(config))
    assert methods.trainable_parameters(model) == (44224, 44224)
    assert methods.merge(model) is model
    methods.save(model, tmp_path, config)
    assert not model.config.use_cache
    assert json.loads((tmp_path / "config.json").read_text())["use_cache"] is True
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(saved), logits(model), atol=1e-6, rtol=0)
    resumed = start(config, resume_from=tmp_path).state_dict()
    assert [n for n, t in model.state_dict().items() if not torch.equal(t, resumed[n])] == []


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"freeze_trainable_layers": 1}, ["layers.1."]),
        ({"freeze_trainable_layers": -1}, ["layers.0."]),
        ({"freeze_trainable_layers": 9}, ["layers.0.", "layers.1."]),
        ({"freeze_trainable_layers": 1, "freeze_trainable_modules": ("mlp",)}, ["layers.1.mlp."]),
        (
            {"freeze_trainable_layers": -1, "freeze_extra_modules": ("lm_head", "norm")},
            ["layers.0.", "lm_head.", "model.norm."],
        ),
        ({"freeze_trainable_layers": 0, "freeze_extra_modules": ("embed_tokens",)}, ["embed_tokens."]),
    ],
)
def test_freeze_trains_the_layers_and_modules_that_are_named(base, keys, expected, tmp_path):
    config = Config(model_name_or_path=str(base), finetuning_type="freeze", **keys)
    model = start(config)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == any(part in name for part in expected), name
    methods.save(learn(model), tmp_path, config)
    resumed = start(config, resume_from=tmp_path)
    assert {n: p.requires_grad for n, p in resumed.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert torch.equal(logits(resumed), logits(model))


@pytest.mark.parametrize("kind", ["lora", "full", "freeze"])
def test_trained_weights_are_float32_on_a_half_precision_base(kind, base, tmp_path):
    config = Config(model_name_or_path=str(base), finetuning_type=kind, freeze_trainable_layers=1)
    model = methods.prepare(load.model(config, torch.bfloat16, True), config, True)
    kinds = {p.dtype for p in model.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} <= {torch.bfloat16}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 1e-4  # lost in bfloat16
    methods.save(model, tmp_path, config)
    resumed = methods.prepare(load.model(config, torch.bfloat16, True), config, True, tmp_path).state_dict()
    assert [n for n, t in model.state_dict().items() if not torch.equal(t, resumed[n])] == []
    pure = config.replace(pure_bf16=True)
    full = methods.prepare(load.model(pure, torch.bfloat16, True), pure, True)
    if kind != "lora":
        assert {p.dtype for p in full.parameters()} == {torch.bfloat16}


def check_refused(config, *words):
    with pytest.raises(ModelError) as caught:
        start(config)
    for word in words:
        assert word in str(caught.value), f"{word!r} not in {caught.value}"


def test_names_that_the_model_does_not_have(base):
    config = Config(model_name_or_path=str(base))
    check_refused(
        config.replace(lora_target=("q_prj", "wv")), 'no module "q_prj"', '"q_proj"', 'no module "wv"'
    )
    check_refused(config.replace(additional_target=("embed_token",)), 'did you mean "embed_tokens"')
    frozen = config.replace(finetuning_type="freeze")
    check_refused(frozen.replace(freeze_trainable_modules=("self_atn",)), 'did you mean "self_attn"', "mlp")
    check_refused(frozen.replace(freeze_extra_modules=("lm_haed",)), 'did you mean "lm_head"')
    check_refused(frozen.replace(freeze_trainable_layers=0), "nothing to train")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_lora_on_a_shared_matrix_is_refused(tied, base, target):
    config = Config(model_name_or_path=str(tied), lora_target=("q_proj", target))
    check_refused(config, target, "shares its matrix", f"additional_target: {target}")
    model = start(config.replace(model_name_or_path=str(base)))
    assert any(target in n and p.requires_grad for n, p in model.named_parameters())


def test_a_model_that_adapters_do_not_fit_is_refused(tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(str(tmp_path))
    asked = Config(model_name_or_path=str(tmp_path), lora_target=("all",))
    with pytest.raises(ModelError, match=r"lora_target: .*conv1d"):
        methods.prepare(load.model(asked, torch.float32, True), asked, True)


def test_an_adapter_for_full_tuning_and_an_unknown_method(base, tmp_path):
    config = Config(
        model_name_or_path=str(base), adapter_name_or_path=(str(tmp_path),), finetuning_type="full"
    )
    check_refused(config, "full has no adapters", "luthier export")
    with pytest.raises(ModelError, match='did you mean "freeze"'):
        methods.get("freze")


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mistral", "qwen2"])
def test_other_families(arch, tmp_path):
    config = Config(model_name_or_path=str(tiny.make_model(tmp_path / "base", arch)))
    trained = learn(start(config))
    (tmp_path / "adapter").mkdir()
    methods.save(trained, tmp_path / "adapter", config)
    merged = methods.merge(used(config, tmp_path / "adapter"))
    torch.testing.assert_close(logits(merged), logits(trained), atol=5e-6, rtol=0)
