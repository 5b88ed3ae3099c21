"""Every name that a user of LLaMA-Factory may write has one status; the page that says so is fresh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.config import KEYS, compat, table
from luthier.config.cli import main_keys
from luthier.config.schema import OWN
from luthier.errors import UsageError

ROOT = Path(__file__).parents[2]
NAMES = [n for n in (Path(__file__).parent / "lf_keys.txt").read_text().splitlines() if not n.startswith("#")]
# Environment variables that LLaMA-Factory 0.9.5 reads.
VARIABLES = """
ACCELERATE_MIXED_PRECISION ACCELERATE_USE_FSDP ALLOW_EXTRA_ARGS ALLOW_EXTRA_KEYS ALLOW_LOCAL_FILES
API_HOST API_KEY API_MODEL_NAME API_PORT API_VERBOSE AUDIO_PLACEHOLDER COMPUTERNAME DEMO_BACKEND
DEMO_MODEL DEMO_TEMPLATE DISABLE_VERSION_CHECK DOWNSAMPLE_MODE FASTAPI_ROOT_PATH FORCE_CHECK_IMPORTS
FORCE_TORCHRUN FP8_BACKEND FP8_ENABLE_FSDP_FLOAT8_ALL_GATHER FSDP_VERSION GRADIO_IPV6
GRADIO_SERVER_NAME GRADIO_SHARE HF_HUB_OFFLINE HF_REVISION HOSTNAME IMAGE_PLACEHOLDER
LLAMABOARD_ENABLED LLAMABOARD_WORKDIR LLAMAFACTORY_VERBOSITY LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR
MASTER_PORT MAX_CONCURRENT MAX_NNODES MAX_RESTARTS MIN_NNODES NNODES NODE_RANK NPROC_PER_NODE
NPU_JIT_COMPILE OPTIM_TORCH RANK RDZV_ID RECORD_VRAM SAFE_MEDIA_PATH TRANSFORMERS_OFFLINE USE_KT
USE_MCA USE_MODELSCOPE_HUB USE_OPENMIND_HUB USE_RAY USE_V1 VIDEO_PLACEHOLDER
VLLM_WORKER_MULTIPROC_METHOD WANDB_PROJECT WORLD_SIZE no_proxy CUDA_VISIBLE_DEVICES HF_ENDPOINT
HF_HOME
""".split()


def test_the_list_is_whole() -> None:
    assert len(NAMES) == len(set(NAMES)) == 426
    assert {"lora_rank", "evaluation_strategy", "tokenizer_name", "no_cuda", "reserved_label_len"} <= set(
        NAMES
    )


def test_every_foreign_name_has_exactly_one_status() -> None:
    rows = compat.keys()
    assert [n for n in NAMES if (n in KEYS) == (n in rows)] == []


def test_every_environment_variable_has_a_status() -> None:
    assert [n for n in VARIABLES if n not in compat.environment()] == []


def test_keys_that_are_not_foreign_are_marked_as_own() -> None:
    assert set(KEYS) - set(NAMES) == OWN


def test_every_row_says_why_and_what_instead() -> None:
    for row in [*compat.keys().values(), *compat.environment().values()]:
        if row.status == "translated":
            assert row.to in KEYS
            assert set(row.values) <= {"true", "false", "sequential", "adafactor", "1", "y"}
        else:
            assert len(row.because) > 5, row.name
            assert not row.because.endswith("."), row.name
        assert bool(row.use) == (row.status == "refused"), row.name


def test_every_key_has_help_in_whole_sentences() -> None:
    for key in KEYS.values():
        assert key.help[0].isupper() or key.help.startswith(("freeze:", "null")), key.name
        assert key.help.endswith("."), key.name


def test_defaults_are_those_of_llama_factory() -> None:
    expected = {
        "cutoff_len": 2048,
        "dataset_dir": "data",
        "buffer_size": 16384,
        "lora_rank": 8,
        "lora_dropout": 0.0,
        "lora_target": ("all",),
        "pissa_iter": 16,
        "loraplus_lr_embedding": 1e-6,
        "freeze_trainable_layers": 2,
        "stage": "sft",
        "finetuning_type": "lora",
        "temperature": 0.95,
        "top_p": 0.7,
        "top_k": 50,
        "max_new_tokens": 1024,
        "do_sample": True,
        "export_size": 5,
        "export_device": "cpu",
        "learning_rate": 5e-5,
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 8,
        "max_grad_norm": 1.0,
        "seed": 42,
        "save_steps": 500,
        "logging_steps": 500,
        "lr_scheduler_type": "linear",
        "adam_epsilon": 1e-8,
        "quantization_type": "nf4",
        "double_quantization": True,
        "enable_thinking": True,
        "val_size": 0,
    }
    assert {name: KEYS[name].default for name in expected} == expected


def test_the_page_in_docs_is_fresh() -> None:
    assert (ROOT / "docs" / "keys.md").read_text("utf-8") == table.markdown(), (
        "luthier keys --markdown > docs/keys.md"
    )


def test_one_key_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_keys(["evaluation_strategy"]) == 0
    assert capsys.readouterr().out.split() == ["evaluation_strategy", "translated", "means", "eval_strategy"]
    assert main_keys(["lora_rank"]) == 0
    assert "same" in (out := capsys.readouterr().out) and "[8] Rank of the adapters." in out


def test_one_key_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_keys(["--deepspeed", "--format", "json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["status"] == "refused"
    assert entry["text"] == "models are not sharded over devices"
    assert "quantization_bit 4" in entry["instead"]


def test_all_keys_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_keys(["format=json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {e["status"] for e in entries} == {"own", "same", "translated", "ignored", "refused"}
    assert set(NAMES) <= {e["name"] for e in entries}


def test_a_part_of_a_name_finds_all_that_contain_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_keys(["galore", "--format=json"]) == 0
    assert [e["name"] for e in json.loads(capsys.readouterr().out)] == [
        "galore_layerwise",
        "galore_proj_type",
        "galore_rank",
        "galore_scale",
        "galore_target",
        "galore_update_interval",
        "use_galore",
    ]


def test_an_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no key is called lora_rnk; did you mean lora_rank"):
        main_keys(["lora_rnk"])
