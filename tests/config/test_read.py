"""What words and files mean, and where each value was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.config import KEYS
from luthier.config.coerce import coerce
from luthier.config.read import Loaded, read


def write(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


def problems(loaded: Loaded) -> list[str]:
    return [str(p) for p in loaded.problems]


def test_every_way_of_writing_a_key_mixed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "lora_rank: 4\nlearning_rate: 1e-4\nstage: sft\n")
    words = ["lora_rank=16", file, "--lora_alpha", "32", "--template=qwen", "--do_train", "--bf16", "True"]
    loaded = read([*words, "--learning-rate", "2e-4", "--no_double_quantization"], {})
    assert loaded.values == {
        "lora_rank": 16,
        "learning_rate": 2e-4,
        "stage": "sft",
        "lora_alpha": 32,
        "template": "qwen",
        "do_train": True,
        "bf16": True,
        "double_quantization": False,
    }
    assert loaded.where == {
        "lora_rank": "lora_rank",
        "learning_rate": "--learning_rate",
        "stage": f"{file}:3",
        "lora_alpha": "--lora_alpha",
        "template": "--template",
        "do_train": "--do_train",
        "bf16": "--bf16",
        "double_quantization": "--no_double_quantization",
    }
    assert problems(loaded) == []


def test_the_last_one_wins_on_the_command_line_and_among_files(tmp_path: Path) -> None:
    first, second = (
        write(tmp_path / "1.yaml", "seed: 1\ntop_k: 1\n"),
        write(tmp_path / "2.json", '{\n"seed": 2}'),
    )
    loaded = read([first, second, "top_p=0.1", "--top_p", "0.2"], {})
    assert loaded.values == {"seed": 2, "top_k": 1, "top_p": 0.2}
    assert loaded.where["seed"] == f"{second}:2"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("5e-05", 5e-5),
        ("1e3", 1000.0),
        ("12", 12),
        ("true", True),
        ("null", None),
        ("qwen", "qwen"),
        ("[a,b]", ["a", "b"]),
        ("'007'", "007"),
    ],
)
def test_values_mean_what_they_mean_to_llama_factory(tmp_path: Path, text: str, value: object) -> None:
    assert read([f"x={text}"], {}).values["x"] == value
    assert read([write(tmp_path / "a.yaml", f"x: {text}\n")], {}).values["x"] == value


def test_interpolation_sees_the_command_line_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_TEST_NAME", "ada")
    file = write(
        tmp_path / "a.yaml", "output_dir: saves/${seed}\nseed: 1\nrun_name: ${oc.env:LUTHIER_TEST_NAME}\n"
    )
    loaded = read([file, "seed=7"], {})
    assert (loaded.values["output_dir"], loaded.values["run_name"]) == ("saves/7", "ada")


def test_each_failing_interpolation_is_named_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "a: ${b}\nc: ${oc.env:LUTHIER_NOT_SET}\nd: ???\ne: 1\n")
    loaded = read([file], {})
    assert [p.where for p in loaded.problems] == [f"{file}:1", f"{file}:2", f"{file}:4"[:-1] + "3"]
    assert "Interpolation key 'b' not found" in loaded.problems[0].what
    assert loaded.values == {"e": 1}


def test_all_duplicate_keys_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "seed: 1\ntop_k: 1\nseed: 2\nlr_scheduler_kwargs:\n  a: 1\n  a: 2\n")
    assert problems(read([file], {})) == [
        f"{file}:3: `seed` is given twice -> one of the two",
        f"{file}:6: `a` is given twice -> one of the two",
    ]
    assert read([file], {}).values == {"seed": 1, "top_k": 1, "lr_scheduler_kwargs": {"a": 1}}
    file = write(tmp_path / "a.json", '{"seed": 1,\n"seed": 2}')
    assert problems(read([file], {})) == [f"{file}:2: `seed` is given twice -> one of the two"]


def test_text_that_is_no_yaml_stays_text() -> None:
    loaded = read(["--system", "Answer: {short} a: b: c", "default_system=你好: 世界"], {})
    assert loaded.raw == {"system": "Answer: {short} a: b: c", "default_system": "你好: 世界"}


def test_mappings_as_json_or_with_dots() -> None:
    kwargs = {"min_lr": 1e-6, "num_cycles": 2}
    assert read(["--lr_scheduler_kwargs", '{"min_lr": 1e-6, "num_cycles": 2}'], {}).values == {
        "lr_scheduler_kwargs": kwargs
    }
    words = ["lr_scheduler_kwargs.min_lr=1e-6", "lr_scheduler_kwargs.num_cycles=2"]
    assert read(words, {}).values == {"lr_scheduler_kwargs": kwargs}


def test_a_flag_leaves_the_word_after_it_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "seed: 1\n")
    loaded = read(["--do_train", file, "--use_unsloth", "--plot_loss", "lora_rank=2"], {})
    assert loaded.values == {
        "seed": 1,
        "do_train": True,
        "use_unsloth": True,
        "plot_loss": True,
        "lora_rank": 2,
    }


def test_negative_numbers_are_values() -> None:
    assert read(["--max_steps", "-1", "--freeze_trainable_layers=-2"], {}).values == {
        "max_steps": -1,
        "freeze_trainable_layers": -2,
    }


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.yaml", "a: [1\n", ":2: is not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a.yaml", "- a\n", ":1: is not made of `key: value` lines"),
        ("a.yaml", "just words\n", ":1: is not made of `key: value` lines"),
        ("a.json", '{"a": 1,\n', ":2: is not valid JSON: Expecting property name"),
        ("a.json", "[1]", ":1: is not made of `key: value` lines"),
    ],
)
def test_a_broken_file_is_one_problem_with_its_line(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    file = write(tmp_path / name, text)
    (problem,) = problems(read([file], {}))
    assert problem.startswith(file + expected)


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("system: 你好".encode("gbk"))
    (problem,) = problems(read([str(tmp_path / "a.yaml")], {}))
    assert "is not UTF-8" in problem and "save it as UTF-8" in problem
    (tmp_path / "b.yaml").write_bytes(b"\xef\xbb\xbf" + "system: 你好".encode())
    assert read([str(tmp_path / "b.yaml")], {}).values == {"system": "你好"}


def test_empty_files_ask_for_nothing(tmp_path: Path) -> None:
    assert read([write(tmp_path / "a.yaml", ""), write(tmp_path / "b.yaml", "# nothing\n")], {}).values == {}


def test_words_that_are_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "")
    words = ["missing.yaml", "saves/none", str(tmp_path), str(tmp_path / "a.txt"), "--lora_rank"]
    assert problems(read(words, {})) == [
        "saves/none: no such file or directory -> a config file, a run directory, key=value or --key value",
        f"{tmp_path}: is a directory without luthier.json, config.json or adapter_config.json "
        "-> a run directory",
        f"{tmp_path / 'a.txt'}: is no configuration -> a .yaml, .yml or .json file, or key=value",
        "--lora_rank: has no value -> --lora_rank VALUE",
        "missing.yaml: cannot be read: No such file or directory -> the path of a config file",
    ]


def test_a_model_or_adapter_directory_by_itself(tmp_path: Path) -> None:
    for name in ("model", "adapter"):
        (tmp_path / name).mkdir()
    write(tmp_path / "model" / "config.json", "{}")
    write(tmp_path / "adapter" / "adapter_config.json", "{}")
    loaded = read([str(tmp_path / "model"), str(tmp_path / "adapter")], {})
    assert loaded.values == {
        "model_name_or_path": str(tmp_path / "model"),
        "adapter_name_or_path": [str(tmp_path / "adapter")],
    }


def test_a_mapping_instead_of_words() -> None:
    loaded = read({"lora_rank": 4, "lora_target": ["q_proj"], "lr_scheduler_kwargs": {"min_lr": 1e-6}}, {})
    assert loaded.values["lora_target"] == ["q_proj"]
    assert loaded.where["lora_rank"] == "argument"


def test_the_environment_comes_last() -> None:
    env = {"USE_MODELSCOPE_HUB": "1", "WANDB_PROJECT": "shop", "HF_ENDPOINT": "https://mirror", "USE_V1": "0"}
    loaded = read([], env)
    assert loaded.values == {"hub": "modelscope", "project": "shop"}
    assert loaded.where == {"hub": "$USE_MODELSCOPE_HUB", "project": "$WANDB_PROJECT"}
    assert read(["project=mine"], env).values["project"] == "mine"
    assert (loaded.notes, loaded.problems) == ([], [])


def test_variables_without_effect_are_named_together_and_refused_ones_are_problems() -> None:
    loaded = read(
        [], {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "4", "USE_OPENMIND_HUB": "1", "HOSTNAME": "me"}
    )
    (note,) = loaded.notes
    assert note.startswith(
        "$FORCE_TORCHRUN, $NPROC_PER_NODE: ignored, because Luthier does not start processes"
    )
    (problem,) = problems(loaded)
    assert problem.startswith("$USE_OPENMIND_HUB: is refused, because the Modelers hub is not supported -> ")


def test_names_are_text_however_they_look(tmp_path: Path) -> None:
    write(
        tmp_path / "names.yaml",
        "output_dir: 007\ndataset: [1e5, yes, x]\nmodel_name_or_path: 1_000\ntokenized_path: ~/t\n"
        "resume_from_checkpoint: true\nlearning_rate: 1e-4\n",
    )
    loaded = read([str(tmp_path / "names.yaml"), "dataset_dir=#a", "template=[a]", "export_dir=./~"], {})
    found = {k: coerce(KEYS[k], v, loaded.raw.get(k)) for k, v in loaded.values.items()}
    assert found == {
        "output_dir": "007",
        "dataset": ("1e5", "yes", "x"),
        "model_name_or_path": "1_000",
        "tokenized_path": str(Path.home() / "t"),
        "resume_from_checkpoint": "last",
        "learning_rate": 1e-4,
        "dataset_dir": "#a",
        "template": "[a]",
        "export_dir": "./~",
    }
    loaded = read(["dataset=a, b", "output_dir=null"], {})
    assert coerce(KEYS["dataset"], loaded.values["dataset"], loaded.raw["dataset"]) == ("a", "b")
    assert coerce(KEYS["dataset"], ["a,b", " c "]) == ("a,b", " c ")
    assert coerce(KEYS["output_dir"], loaded.values["output_dir"], loaded.raw["output_dir"]) is None
