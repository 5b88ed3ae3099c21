"""Model folders, adapters and runs whose files name code to run, or ask for more than any honest file does.

`trust_remote_code` is false unless the user wrote it: nothing that lies in a folder may run, whatever that
folder says about trust. Code that is needless (transformers knows the architecture) is passed over with a
note, and the model works; everything else is refused with the name of the file and the key.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tasks
from faults.bench import Bench, Trial
from faults.payload import Case, Scene, edit, plant, python, trials
from faults.pickles import chat
from luthier.runs import seal

Words = list[str]
Change = dict[str, Any]
CODE = {
    "AutoConfig": "configuration_x.XConfig",
    "AutoModelForCausalLM": "modeling_x.XForCausalLM",
    "AutoModel": "modeling_x.XModel",
}
ELSEWHERE = {key: f"evil/repo--{value}" for key, value in CODE.items()}
CATASTROPHE = "(([a-z_0-9.]+)+)+!"
HUB = "evil/attention:forward"


def hooks(bench: Bench, count: int) -> Iterator[Trial]:
    """Every case through the real command: no hidden code runs; refused by name, or works without it."""
    yield from trials(bench, count, CASES)
    if count >= 15:
        yield from fresh_processes(bench)


def fresh_processes(bench: Bench) -> Iterator[Trial]:
    """What only a new interpreter shows: modules in the working directory, named as those of Python and of
    its packages; and that with the user's own word the planted code does run, so that the rest could fail.
    """
    folder = bench.folder()
    tasks.make(folder)
    scene = Scene(bench, folder / "base", Path(), {}, folder, folder / "canary")
    here, hostile = scene.model(), hostile_base(scene)
    for name in ("json", "tokenizers", "sitecustomize", "usercustomize", "safetensors", "torch"):
        (here / f"{name}.py").write_text(python(scene.canary))
    command, module = [str(Path(sys.executable).with_name("luthier"))], [sys.executable, "-m", "luthier"]
    for words, runs in (
        ([*command, "chat", "model_name_or_path=."], False),
        ([*module, "keys", "trust_remote_code"], False),
        ([*command, "chat", f"model_name_or_path={hostile}", "trust_remote_code=true"], True),
    ):
        env = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            words, cwd=here, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        what = " ".join(Path(word).name for word in words)
        if scene.canary.exists() != runs or (done.returncode != 0 and not runs):
            yield Trial(what, f"the planted code {'did not run' if runs else 'ran'}: {done.stderr[-1000:]}")
        else:
            yield Trial(what)


def model(config: Change | None = None, **others: Change) -> Callable[[Scene], Words]:
    """A model whose config.json is changed; others: changes of NAME.json beside it."""

    def make(scene: Scene) -> Words:
        folder = scene.model()
        plant(folder, scene)
        edit(folder / "config.json", **(config or {}))
        for name, changes in others.items():
            edit(folder / f"{name}.json", **changes)
        return chat(scene, folder)

    return make


def adapter(**changes: Any) -> Callable[[Scene], Words]:
    """An adapter whose settings are changed, with the folder as a place for modules to import."""

    def make(scene: Scene) -> Words:
        folder = scene.adapter()
        plant(folder, scene)
        plant(scene.folder, scene)
        edit(folder / "adapter_config.json", **changes)
        return chat(scene, scene.base, folder)

    return make


def trained_further(**changes: Any) -> Callable[[Scene], Words]:
    """The same adapter as the start of a training: PEFT does more where something is to be trained."""

    def make(scene: Scene) -> Words:
        words = adapter(**changes)(scene)
        keys = {
            "output_dir": str(scene.folder / "out"),
            "adapter_name_or_path": str(scene.folder / "adapter"),
        }
        return ["train", *tasks.words({**scene.settings, **keys})] if words else []

    return make


def text(name: str, content: str) -> Callable[[Scene], Words]:
    """A model of which one file has this text."""

    def make(scene: Scene) -> Words:
        folder = scene.model()
        plant(folder, scene)
        (folder / name).write_text(content)
        return chat(scene, folder)

    return make


def twice(scene: Scene) -> Words:
    """model_type stands there twice: who reads the first and who reads the last must not disagree."""
    folder = scene.model()
    plant(folder, scene)
    edit(folder / "config.json", auto_map=CODE)
    honest = (folder / "config.json").read_text()
    (folder / "config.json").write_text('{"model_type": "qwen3", ' + honest[1:-1] + ', "model_type": "x"}')
    return chat(scene, folder)


def hostile_base(scene: Scene) -> Path:
    folder = scene.model("hostile")
    plant(folder, scene)
    edit(folder / "config.json", auto_map=CODE, model_type="x")
    return folder


def base_of_an_adapter(scene: Scene) -> Words:
    """Only the adapter is given; its settings say which base is loaded."""
    folder = scene.adapter()
    edit(folder / "adapter_config.json", base_model_name_or_path=str(hostile_base(scene)))
    return ["chat", f"adapter_name_or_path={folder}", "template=chatml"]


def base_of_a_run(scene: Scene) -> Words:
    """A run whose files all say that the code of its base is trusted."""
    run = scene.copy_of_run()
    base = str(hostile_base(scene))
    edit(run / "config.resolved.json", model_name_or_path=base, trust_remote_code=True)
    edit(run / "luthier.json", base=base, trust_remote_code=True)
    edit(run / "adapter_config.json", base_model_name_or_path=base, trust_remote_code=True)
    with (run / "config.yaml").open("a") as file:
        file.write("trust_remote_code: true\n")
    names = json.loads((run / seal.CHECKSUMS).read_text())["files"]
    seal.seal_result(run, names)
    return ["chat", str(run)]


def run_again(scene: Scene) -> Words:
    """The same, and the run is to be continued from its own config.yaml."""
    base_of_a_run(scene)
    run = scene.folder / "run"
    text = (run / "config.yaml").read_text().replace(str(scene.base), str(scene.folder / "hostile"))
    (run / "config.yaml").write_text(text)
    return ["train", str(run)]


def on_top_of(scene: Scene) -> Words:
    """An adapter whose header says that it was trained on top of one that lies on a hub."""
    folder = scene.adapter()
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header.setdefault("__metadata__", {})["luthier_below"] = json.dumps(["evil/adapter"])
    changed = json.dumps(header).encode()
    file.write_bytes(len(changed).to_bytes(8, "little") + changed + whole[8 + size :])
    return chat(scene, scene.base, folder)


def both(scene: Scene) -> Words:
    """An adapter beside a whole model, which transformers would put on it unasked."""
    folder = scene.model()
    for file in scene.adapter().iterdir():
        shutil.copy(file, folder)
    return chat(scene, folder)


def exported(scene: Scene) -> Words:
    """A model with needless code is exported: what is written must name none."""
    words = model({"auto_map": CODE}, tokenizer_config={"auto_map": {"AutoTokenizer": ["a.B", None]}})(scene)
    adapter = scene.adapter()
    out = scene.folder / "out"
    return ["export", *words[1:], f"adapter_name_or_path={adapter}", f"export_dir={out}", "template=chatml"]


def answers_yes() -> None:
    """Standard input says yes to whatever is asked."""
    read, write = os.pipe()
    os.write(write, b"y\n" * 1000)
    os.close(write)
    os.dup2(read, 0)


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
UNKNOWN = {"model_type": "x", "auto_map": CODE, "architectures": ["XForCausalLM"]}
REFUSED = ("config.json", "auto_map", "trust_remote_code: true")
CASES = (
    Case("auto_map of an architecture that is not known", model(UNKNOWN), REFUSED),
    Case("the same, and standard input answers yes", model(UNKNOWN), REFUSED, before=answers_yes),
    Case(
        "auto_map that leads to another repository",
        model({**UNKNOWN, "auto_map": ELSEWHERE}),
        (*REFUSED, "evil/repo"),
    ),
    Case("auto_map that is not needed", model({"auto_map": CODE}), ("note:", "auto_map"), works=True),
    Case("auto_map elsewhere that is not needed", model({"auto_map": ELSEWHERE}), ("evil/repo",), works=True),
    Case("trust_remote_code: true in config.json", model({**UNKNOWN, "trust_remote_code": True}), REFUSED),
    Case("auto_map in a part of config.json", model({"text_config": UNKNOWN}), REFUSED),
    Case("auto_map that is a list", model({**UNKNOWN, "auto_map": ["a.B"]}), REFUSED),
    Case("model_type that is not known", model({"model_type": "x"}), ("config.json", "model_type")),
    Case("model_type twice", twice, REFUSED),
    Case(
        "auto_map of a tokenizer that is not needed",
        model(
            tokenizer_config={
                "auto_map": {"AutoTokenizer": ["tokenization_x.X", None]},
                "trust_remote_code": True,
            }
        ),
        ("tokenizer_config.json", "auto_map"),
        works=True,
    ),
    Case(
        "auto_map of a tokenizer that is not known",
        model(
            {"model_type": "llama"},
            tokenizer_config={
                "auto_map": {"AutoTokenizer": ["tokenization_x.X", None]},
                "tokenizer_class": "XTokenizer",
            },
        ),
        ("tokenizer_config.json", "auto_map", "trust_remote_code: true"),
    ),
    Case(
        "auto_map of a tokenizer with one entry",
        model(tokenizer_config={"auto_map": {"AutoTokenizer": ["tokenization_x.X"]}}),
        ("auto_map",),
    ),
    Case(
        "tokenizer_class: an Auto class, and standard input answers yes",
        model({"auto_map": CODE}, tokenizer_config={"tokenizer_class": "AutoModel"}),
        ("tokenizer_config.json", "tokenizer_class"),
        before=answers_yes,
    ),
    Case(
        "the code of processors",
        model(
            processor_config={"auto_map": {"AutoProcessor": "evil.X"}},
            preprocessor_config={"auto_map": {"AutoImageProcessor": "evil.X"}},
            feature_extractor_config={"auto_map": {"AutoFeatureExtractor": "evil.X"}},
        ),
        works=True,
    ),
    Case(
        "custom_generate",
        model(generation_config={"custom_generate": ".", "trust_remote_code": True}),
        works=True,
    ),
    Case(
        "a decoding that needs a repository",
        model(generation_config={"penalty_alpha": 0.6, "top_k": 4}),
        works=True,
    ),
    Case(
        "attn_implementation from a hub",
        model({"attn_implementation": HUB}),
        ("config.json", "attn_implementation"),
    ),
    Case(
        "_attn_implementation from a hub",
        model({"_attn_implementation": HUB}),
        ("config.json", "attn_implementation"),
    ),
    Case(
        "experts_implementation from a hub",
        model({"_experts_implementation": HUB}),
        ("config.json", "experts_impl"),
    ),
    Case(
        "use_kernels, kernel_config",
        model({"use_kernels": True, "kernel_config": {"RMSNorm": HUB}}),
        works=True,
    ),
    Case(
        "an unknown quantizer",
        model({"quantization_config": {"quant_method": "evil.Quantizer"}}),
        ("evil",),
        works=True,
    ),
    Case(
        "a pattern without end in quantization_config",
        model(
            {
                "quantization_config": {
                    "quant_method": "bitsandbytes",
                    "load_in_8bit": True,
                    "llm_int8_skip_modules": [CATASTROPHE],
                }
            }
        ),
        ("config.json", "llm_int8_skip_modules"),
    ),
    Case("dtype that is no number format", model({"dtype": "load"}), ("config.json", "dtype")),
    Case(
        "keys named as methods", model({"get_text_config": "x", "to_dict": 1, "sub_configs": 2}), ("model",)
    ),
    Case(
        "an endless number of layers",
        model({"num_hidden_layers": 10**9, "layer_types": None}),
        ("num_hidden_layers",),
    ),
    Case("an endless vocabulary", model({"vocab_size": 10**15}), ("model",)),
    Case("config.json nested without end", text("config.json", DEEP), ("config.json",)),
    Case("config.json nested deeply", text("config.json", '{"a":' * 500 + "1" + "}" * 500), ("config.json",)),
    Case(
        "tokenizer_config.json nested without end",
        text("tokenizer_config.json", DEEP),
        ("tokenizer_config.json",),
    ),
    Case("config.json is a list", text("config.json", "[1, 2]"), ("config.json",)),
    Case("an adapter beside a model", both, ("adapter_config.json", "adapter_name_or_path")),
    Case("an adapter that names a hostile base", base_of_an_adapter, ("names", *REFUSED)),
    Case("a run that says its base is trusted", base_of_a_run, REFUSED),
    Case("a run that is continued, and says so in its config.yaml", run_again, ("not taken over", *REFUSED)),
    Case("an adapter that names one of a hub below it", on_top_of, ("luthier_below",)),
    Case(
        "auto_mapping to any module",
        adapter(task_type=None, auto_mapping={"base_model_class": "X", "parent_library": "evil"}),
        ("auto_mapping", "evil"),
        works=True,
    ),
    Case(
        "megatron_core: any module",
        adapter(megatron_config={"a": 1}, megatron_core="evil"),
        ("adapter_config.json", "megatron"),
    ),
    Case(
        "megatron_core, trained further",
        trained_further(megatron_config={"a": 1}, megatron_core="evil"),
        ("megatron",),
    ),
    Case(
        "prompt tuning with a tokenizer of its own",
        trained_further(
            peft_type="PROMPT_TUNING",
            prompt_tuning_init="TEXT",
            prompt_tuning_init_text="x",
            num_virtual_tokens=1,
            tokenizer_name_or_path="hostile",
            tokenizer_kwargs={"trust_remote_code": True},
        ),
        ("adapter_config.json", "peft_type"),
    ),
    Case(
        "corda_config with a cache",
        trained_further(init_lora_weights="corda", corda_config={"cache_file": "x.pt"}),
        ("corda_config",),
    ),
    Case("layer_replication", adapter(layer_replication=[[0, 10**6]]), ("layer_replication",)),
    Case("an endless rank", adapter(r=10**9), ("adapter_config.json", "r:")),
    Case("a rank that is no number", adapter(r="evil"), ("adapter_config.json", "r:")),
    Case("a pattern without end in target_modules", adapter(target_modules=CATASTROPHE), ("target_modules",)),
    Case(
        "a pattern without end in exclude_modules", adapter(exclude_modules=CATASTROPHE), ("exclude_modules",)
    ),
    Case(
        "a pattern without end in alpha_pattern", adapter(alpha_pattern={CATASTROPHE: 1}), ("alpha_pattern",)
    ),
    Case(
        "a pattern without end in modules_to_save",
        adapter(modules_to_save=[CATASTROPHE]),
        ("modules_to_save",),
    ),
    Case(
        "adapter_config.json nested without end",
        adapter(modules_to_save=None, eva_config=json.loads("[" * 500 + "]" * 500)),
        ("adapter_config.json",),
    ),
    Case(
        "runtime_config, loftq_config",
        adapter(runtime_config={"ephemeral_gpu_offload": True}, loftq_config={"a": "evil"}),
        works=True,
    ),
    Case("export of a model with needless code", exported, ("auto_map",), works=True),
)
