"""An adapter for another base is found before it talks nonsense."""

import json
import logging
import shutil

import pytest
import torch

import tiny
from luthier.config import Config
from luthier.errors import ModelError
from luthier.model import load, methods
from luthier.runs import manifest


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapter")
    config = Config(model_name_or_path=str(base))
    methods.save(methods.prepare(load.model(config, torch.float32, True), config, True), path, config)
    return path


def use(base, adapter, **keys):
    config = Config(model_name_or_path=str(base), adapter_name_or_path=(str(adapter),), **keys)
    return methods.prepare(load.model(config, torch.float32, False), config, False)


def test_the_right_base(base, adapter, caplog):
    with caplog.at_level(logging.WARNING, logger="luthier"):
        assert use(base, adapter).peft_config["default"].r == 8
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"hidden_size": 64, "head_dim": 16}, "is 8x32 where the base wants 64"),
        ({"num_hidden_layers": 1}, "the base has no model.layers.1."),
        ({"intermediate_size": 96}, "lora_B.weight is 64x8 where the base wants 96"),
    ],
)
def test_other_shapes(base, adapter, tmp_path, size, words):
    other = tiny.make_model(tmp_path / "other", **size)
    with pytest.raises(ModelError) as caught:
        use(other, adapter)
    for word in (str(other), str(base), str(adapter), words):
        assert word in str(caught.value)


def test_equal_shapes_but_other_weights_than_the_run_recorded(base, adapter, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(adapter, run / "checkpoint-2")
    (run / "manifest.json").write_text(json.dumps(manifest.build({}, base_dir=base)))
    other = tiny.make_model(tmp_path / "other", seed=1)
    assert use(base, run / "checkpoint-2") is not None
    with pytest.raises(ModelError) as caught:
        use(other, run / "checkpoint-2")
    for word in (str(other), str(base), "model.safetensors", "confirm_changes"):
        assert word in str(caught.value)
    with caplog.at_level(logging.WARNING, logger="luthier"):
        use(other, run / "checkpoint-2", confirm_changes=True)
    assert "other weights" in caplog.text


def test_a_moved_base_is_the_same_base(base, adapter, tmp_path, caplog):
    moved = shutil.copytree(base, tmp_path / "moved")
    with caplog.at_level(logging.WARNING, logger="luthier"):
        use(moved, adapter)
    assert f"names {base} as its base; the base given is {moved}" in caplog.text
    run = shutil.copytree(adapter, tmp_path / "run")
    (run / "manifest.json").write_text(json.dumps(manifest.build({}, base_dir=base)))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="luthier"):
        use(moved, run)
    assert caplog.text == ""


def test_what_is_no_adapter(base, tmp_path):
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        use(base, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"adapter_model\.bin.* can run code"):
        use(base, tmp_path)
    with pytest.raises(ModelError, match="no such directory"):
        use(base, tmp_path / "none")
