"""Pickles under every name that a checkpoint, an adapter, a model or a data set can carry them, and files
that say they are safetensors and lie. What `luthier` reads of them must be refused with the file's name; what
lies beside honest files as other programs leave it must stay unopened.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tasks
from faults.bench import Bench, Trial
from faults.payload import Case, Scene, trials
from luthier.runs import seal

Words = list[str]
ADAPTER, WEIGHTS = "adapter_model.safetensors", "model.safetensors"


def pickles(bench: Bench, count: int) -> Iterator[Trial]:
    """Every case through the real command: no hidden code runs, and what is refused is named."""
    return trials(bench, count, CASES)


def chat(scene: Scene, model: Path, adapter: Path | None = None) -> Words:
    """Load the model; standard input is at its end, so that nothing is asked of it."""
    return ["chat", f"model_name_or_path={model}", *([f"adapter_name_or_path={adapter}"] if adapter else [])]


def in_adapter(name: str, data: Callable[[Scene], bytes], *, alone: bool = False) -> Callable[[Scene], Words]:
    """An adapter with a file of these bytes; alone: without its honest weights."""

    def make(scene: Scene) -> Words:
        folder = scene.adapter()
        if alone:
            (folder / ADAPTER).unlink()
        (folder / name).write_bytes(data(scene))
        return chat(scene, scene.base, folder)

    return make


def in_model(name: str, data: Callable[[Scene], bytes], without: str = "") -> Callable[[Scene], Words]:
    """A model with a file of these bytes, and without those that the pattern matches."""

    def make(scene: Scene) -> Words:
        folder = scene.model(without=without)
        (folder / name).write_bytes(data(scene))
        return chat(scene, folder)

    return make


def in_checkpoint(name: str, data: Callable[[Scene], bytes]) -> Callable[[Scene], Words]:
    """The only checkpoint of an unfinished run with a file of these bytes, sealed again; it is continued."""

    def make(scene: Scene) -> Words:
        run = scene.copy_of_run()
        newest = run / "checkpoint-2"
        shutil.rmtree(run / "checkpoint-4")
        (newest / name).write_bytes(data(scene))
        facts = json.loads((newest / seal.MANIFEST).read_text())
        seal.seal(newest, **{key: facts[key] for key in facts if key not in ("files", "seal")})
        return ["train", *tasks.words({**scene.settings, "output_dir": str(run)})]

    return make


def lying(
    change: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]],
) -> Callable[[Scene], bytes]:
    """The honest adapter's weights with another header (and data)."""

    def data(scene: Scene) -> bytes:
        whole = (scene.run / "checkpoint-2" / ADAPTER).read_bytes()
        size = int.from_bytes(whole[:8], "little")
        header, rest = change(json.loads(whole[8 : 8 + size]), whole[8 + size :])
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + rest

    return data


def _tensors(header: dict[str, Any]) -> list[dict[str, Any]]:
    found = [value for name, value in header.items() if name != "__metadata__"]
    return sorted(found, key=lambda tensor: tensor["data_offsets"])


def outside(header: dict[str, Any], rest: bytes) -> tuple[dict[str, Any], bytes]:
    _tensors(header)[-1]["data_offsets"][1] += 1 << 40
    return header, rest


def overlapping(header: dict[str, Any], rest: bytes) -> tuple[dict[str, Any], bytes]:
    first, second = _tensors(header)[:2]
    second["data_offsets"] = list(first["data_offsets"])
    second["shape"] = list(first["shape"])
    return header, rest


def other_dtype(header: dict[str, Any], rest: bytes) -> tuple[dict[str, Any], bytes]:
    _tensors(header)[0]["dtype"] = "F64"
    return header, rest


def other_shape(header: dict[str, Any], rest: bytes) -> tuple[dict[str, Any], bytes]:
    _tensors(header)[0]["shape"] = [1 << 62, 1 << 62]
    return header, rest


def huge_header(scene: Scene) -> bytes:
    return (1 << 60).to_bytes(8, "little") + (scene.run / "checkpoint-2" / ADAPTER).read_bytes()[8:]


def truncated(scene: Scene) -> bytes:
    whole = (scene.run / "checkpoint-2" / ADAPTER).read_bytes()
    return whole[: scene.bench.random.randrange(8, len(whole) - 1)]


def of_llama_factory(scene: Scene) -> Words:
    """A checkpoint of a HF-Trainer-based program as an adapter: its pickles lie beside honest weights."""
    folder = scene.adapter()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "adapter_model.bin"):
        (folder / name).write_bytes(scene.torch_zip() if name.endswith("t") else scene.pickled())
    (folder / "trainer_state.json").write_bytes(scene.pickled())
    return chat(scene, scene.base, folder)


def beside_the_model(scene: Scene) -> Words:
    folder = scene.model()
    for name in ("training_args.bin", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"):
        (folder / name).write_bytes(scene.pickled())
    return chat(scene, folder)


def index(target: Callable[[Scene], str]) -> Callable[[Scene], Words]:
    """A sharded model whose index names one file for everything."""

    def make(scene: Scene) -> Words:
        (scene.folder / "elsewhere").mkdir()
        whole = (scene.base / WEIGHTS).read_bytes()
        (scene.folder / "elsewhere" / WEIGHTS).write_bytes(whole)
        folder = scene.model(without="*.safetensors")
        (folder / "pytorch_model.bin").write_bytes(scene.torch_zip())
        size = int.from_bytes(whole[:8], "little")
        names = [name for name in json.loads(whole[8 : 8 + size]) if name != "__metadata__"]
        table = {"metadata": {}, "weight_map": {name: target(scene) for name in names}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(table))
        return chat(scene, folder)

    return make


def named_weights(scene: Scene) -> Words:
    """config.json says in which file the weights are: transformers takes one .bin name at its word."""
    folder = scene.model()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "adapter_model.bin"}))
    (folder / "adapter_model.bin").write_bytes(scene.torch_zip())
    return chat(scene, folder)


def full_checkpoint(scene: Scene) -> Words:
    """A whole model is trained, and the weights of its checkpoint become a pickle, sealed again."""
    keys = {"finetuning_type": "full", "output_dir": str(scene.folder / "full"), "max_steps": 2}
    words = ["train", *tasks.words({**scene.settings, **keys})]
    done = scene.bench.luthier(words)
    if done.code:
        raise AssertionError(done.err)
    newest = scene.folder / "full" / "checkpoint-2"
    (newest / WEIGHTS).write_bytes(scene.pickled())
    facts = json.loads((newest / seal.MANIFEST).read_text())
    seal.seal(newest, **{key: facts[key] for key in facts if key not in ("files", "seal")})
    return words


def beside_a_checkpoint(scene: Scene) -> Words:
    """Pickles in a checkpoint of ours that nobody listed: it is continued without them."""
    run = scene.copy_of_run()
    for folder in run.glob("checkpoint-*"):
        for name in ("optimizer.pt", "rng_state.pth"):
            (folder / name).write_bytes(scene.torch_zip())
    return ["train", *tasks.words({**scene.settings, "output_dir": str(run)})]


def token_store(scene: Scene) -> Words:
    """A column of the kept tokens becomes an array of objects, sealed again."""
    keys = {"output_dir": str(scene.folder / "run"), "tokenized_path": str(scene.folder / "tokens")}
    words = ["train", *tasks.words({**scene.settings, **keys, "max_steps": 1, "save_strategy": "no"})]
    done = scene.bench.luthier(words)
    if done.code:
        raise AssertionError(done.err)
    column = next((scene.folder / "tokens").rglob("pieces.npy"))
    header = repr({"descr": "|O", "fortran_order": False, "shape": (1,)}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    column.write_bytes(start + header + scene.pickled())
    facts = json.loads((column.parent / seal.MANIFEST).read_text())
    seal.seal(column.parent, **{key: facts[key] for key in facts if key not in ("files", "seal")})
    return [*words, "overwrite_output_dir=true"]


def data(name: str) -> Callable[[Scene], Words]:
    """A data set whose file is a pickle."""

    def make(scene: Scene) -> Words:
        (scene.folder / name).write_bytes(scene.pickled())
        keys = {"dataset": name, "dataset_dir": str(scene.folder), "output_dir": str(scene.folder / "out")}
        gone = ("tokenized_path",)
        settings = {key: value for key, value in scene.settings.items() if key not in gone}
        return ["train", *tasks.words({**settings, **keys})]

    return make


def export(scene: Scene) -> Words:
    folder = scene.adapter()
    (folder / ADAPTER).write_bytes(scene.torch_zip())
    words = chat(scene, scene.base, folder)[1:]
    return ["export", *words, f"export_dir={scene.folder / 'exported'}", "template=chatml"]


def predict(scene: Scene) -> Words:
    folder = scene.model()
    (folder / WEIGHTS).write_bytes(scene.pickled())
    keys = [f"{key}={scene.settings[key]}" for key in ("dataset", "dataset_dir", "template")]
    return ["predict", *chat(scene, folder)[1:], *keys, f"output_dir={scene.folder / 'out'}"]


def pickled(scene: Scene) -> bytes:
    return scene.pickled()


def zipped(scene: Scene) -> bytes:
    return scene.zipped()


def torch_zip(scene: Scene) -> bytes:
    return scene.torch_zip()


CASES = (
    Case(
        "adapter_model.bin alone",
        in_adapter("adapter_model.bin", torch_zip, alone=True),
        ("adapter_model.bin",),
    ),
    Case("an adapter's safetensors are a pickle", in_adapter(ADAPTER, pickled), (ADAPTER, "pickle")),
    Case("an adapter's safetensors are torch.save's zip", in_adapter(ADAPTER, torch_zip), (ADAPTER, "zip")),
    Case("an adapter's safetensors are a zip with Python", in_adapter(ADAPTER, zipped), (ADAPTER, "zip")),
    Case("an adapter's safetensors end early", in_adapter(ADAPTER, truncated), (ADAPTER,)),
    Case("a header of 2^60 bytes", in_adapter(ADAPTER, huge_header), (ADAPTER,)),
    Case("offsets outside of the file", in_adapter(ADAPTER, lying(outside)), (ADAPTER,)),
    Case("tensors that overlap", in_adapter(ADAPTER, lying(overlapping)), (ADAPTER,)),
    Case("a dtype that lies", in_adapter(ADAPTER, lying(other_dtype)), (ADAPTER,)),
    Case("a shape whose size overflows", in_adapter(ADAPTER, lying(other_shape)), (ADAPTER,)),
    Case(
        "adapter_config.json is a pickle",
        in_adapter("adapter_config.json", pickled),
        ("adapter_config.json",),
    ),
    Case("pickles beside an honest adapter", of_llama_factory, works=True),
    Case(
        "pytorch_model.bin alone",
        in_model("pytorch_model.bin", torch_zip, "*.safetensors"),
        ("pytorch_model.bin",),
    ),
    Case("model.safetensors is a pickle", in_model(WEIGHTS, pickled), (WEIGHTS, "pickle")),
    Case("model.safetensors is torch.save's zip", in_model(WEIGHTS, torch_zip), (WEIGHTS, "zip")),
    Case(
        "an index that names a .bin",
        index(lambda s: "pytorch_model.bin"),
        ("index.json", "pytorch_model.bin"),
    ),
    Case(
        "an index that leads to ../", index(lambda s: f"../elsewhere/{WEIGHTS}"), ("index.json", "elsewhere")
    ),
    Case(
        "an index with a path from /", index(lambda s: str(s.folder / "elsewhere" / WEIGHTS)), ("index.json",)
    ),
    Case("transformers_weights: adapter_model.bin", named_weights, ("config.json", "adapter_model.bin")),
    Case("tokenizer.json is a pickle", in_model("tokenizer.json", pickled), ("tokenizer.json", "pickle")),
    Case(
        "tokenizer.model is a pickle",
        in_model("tokenizer.model", pickled, "tokenizer.json"),
        ("tokenizer.model", "pickle"),
    ),
    Case(
        "vocab.json is a pickle", in_model("vocab.json", pickled, "tokenizer.json"), ("vocab.json", "pickle")
    ),
    Case("config.json is a pickle", in_model("config.json", pickled), ("config.json", "pickle")),
    Case(
        "generation_config.json is a pickle",
        in_model("generation_config.json", pickled),
        ("generation_config",),
    ),
    Case(
        "tokenizer_config.json is a pickle", in_model("tokenizer_config.json", pickled), ("tokenizer_config",)
    ),
    Case("pickles beside an honest model", beside_the_model, works=True),
    Case(
        "the optimizer's moments are a pickle",
        in_checkpoint("optimizer.safetensors", pickled),
        ("optimizer",),
    ),
    Case(
        "the optimizer's settings are a pickle", in_checkpoint("optimizer.json", pickled), ("optimizer.json",)
    ),
    Case(
        "trainer_state.json is a pickle",
        in_checkpoint("trainer_state.json", pickled),
        ("trainer_state.json",),
    ),
    Case("a checkpoint's adapter is a pickle", in_checkpoint(ADAPTER, torch_zip), (ADAPTER,)),
    Case("a checkpoint's whole model is a pickle", full_checkpoint, (WEIGHTS,)),
    Case("pickles put into our checkpoints", beside_a_checkpoint, works=True),
    Case("an array of objects in the token store", token_store, works=True),
    Case("a data set of .pkl", data("rows.pkl"), ("rows.pkl",)),
    Case("a data set .json that is a pickle", data("rows.json"), ("rows.json",)),
    Case("a data set .parquet that is a pickle", data("rows.parquet"), ("rows.parquet",)),
    Case("export of an adapter that is a pickle", export, (ADAPTER,)),
    Case("predict with a model that is a pickle", predict, (WEIGHTS,)),
)
