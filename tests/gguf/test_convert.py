"""Conversions that cannot be: each says which weight or file, and nothing half-named is left."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ggufs
import tiny
from luthier import gguf
from luthier.errors import ExportError, LuthierError, ModelError, RunError
from luthier.gguf import read, write
from luthier.gguf.tensors import Tensor


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("sound")
    return ggufs.with_tokenizer(top / "model", tiny.make_tokenizer(top / "tokenizer"), tiny.VOCAB)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy to be spoiled."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


NORM, QUERY = "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"
SPOILED: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "a weight without a place": (lambda w: w.update(surplus=torch.ones(2)), r"surplus.*no place"),
    "no embedding": (lambda w: w.pop("model.embed_tokens.weight"), r"model.embed_tokens.weight.*not among"),
    "whole numbers": (lambda w: w.update({NORM: torch.ones(32).int()}), r"model.norm.weight has type I32"),
    "too large": (lambda w: w[QUERY].fill_(7e4), r"attn_q.weight: .*too large for float16 -> --quant bf16"),
    "no number": (lambda w: w[QUERY].fill_(torch.nan), r"attn_q.weight: .*is no number"),
    "named otherwise": (
        lambda w: w.update({f"language_model.{name}": w.pop(name) for name in list(w)}),
        "model.embed_tokens.weight: is not among the weights",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_weight_that_cannot_be_written_is_named(name: str, folder: Path) -> None:
    edit, why = SPOILED[name]
    change(folder, edit)
    with pytest.raises(ExportError, match=why):
        gguf.convert(folder, folder.with_name("out.gguf"), "f16")
    assert left(folder) == ["model"]


def test_a_large_weight_fits_into_bfloat16(folder: Path) -> None:
    change(folder, lambda weights: weights[QUERY].fill_(7e4))
    head = read.header(gguf.convert(folder, folder.with_name("out.gguf"), "bf16"))
    assert {tensor.name: tensor.type for tensor in head.tensors}["blk.0.attn_q.weight"] == 30


def test_an_expert_that_is_missing_is_said(tmp_path: Path) -> None:
    folder = ggufs.random_model(tmp_path / "model", "qwen3_moe")
    change(folder, lambda weights: weights.pop("model.layers.1.mlp.experts.2.up_proj.weight"))
    with pytest.raises(ExportError, match=r"layers.1.mlp.experts: experts \[0, 1, 3\] are not all there"):
        gguf.convert(folder, tmp_path / "out.gguf")
    assert left(folder) == ["model"]


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (lambda file: os.truncate(file, file.stat().st_size - 100), r"model.safetensors: is damaged"),
    "a pickle": (lambda file: file.write_bytes(b"\x80\x04" + bytes(64)), "a Python pickle"),
    "gone": (lambda file: file.unlink(), r"model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_damaged_are_named(name: str, folder: Path) -> None:
    spoil, why = BROKEN[name]
    spoil(folder / "model.safetensors")
    with pytest.raises(LuthierError, match=why):
        gguf.convert(folder, folder.with_name("out.gguf"))
    assert left(folder) == ["model"]


def test_a_shard_that_is_missing_is_named(folder: Path) -> None:
    ggufs.model(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    first = min(folder.glob("model-*.safetensors"))
    first.unlink()
    with pytest.raises(ModelError, match=first.name):
        gguf.convert(folder, folder.with_name("out.gguf"))


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("source", [torch.float32, torch.float16, torch.bfloat16])
def test_each_value_is_rounded_once(kind: str, source: torch.dtype, folder: Path) -> None:
    """To the nearest number of the format, from whatever the checkpoint has."""
    change(folder, lambda weights: weights.update({n: v.to(source) for n, v in weights.items()}))
    file = gguf.convert(folder, folder.with_name("out.gguf"), kind)  # type: ignore[arg-type]
    place = next(tensor for tensor in read.header(file).tensors if tensor.name == "blk.0.ffn_up.weight")
    target = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    wanted = load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].to(target)
    found = torch.from_numpy(np.fromfile(file, np.uint8, place.bytes, offset=place.offset).copy()).view(
        target
    )
    assert place.shape == wanted.shape and torch.equal(found.reshape(wanted.shape), wanted)


# --- interrupted, and without room


def convert_until(folder: Path, out: Path, size: int, killed: bool) -> int:
    """Convert in a process that may write files of `size` bytes, and is killed there or told so."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 70
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        gguf.convert(folder, out, "f32", say=str)
        status = 0
    except RunError as error:
        status = 3 if str(out) in str(error) else 71
    finally:
        os._exit(status)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_killed_conversion_leaves_no_file_of_that_name(share: float, sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    whole = gguf.convert(sound, tmp_path / "whole.gguf", "f32", say=str).read_bytes()
    assert convert_until(sound, out, int(len(whole) * share), killed=True) == -signal.SIGXFSZ
    assert not out.exists() and len(list(tmp_path.iterdir())) == 2, (
        "what was written waits under another name"
    )
    gguf.convert(sound, out, "f32", say=str)
    assert out.read_bytes() == whole
    assert left(out) == ["out.gguf", "whole.gguf"], "and is cleared by the next conversion"


def test_a_disk_that_fills_up_keeps_the_older_file(sound: Path, tmp_path: Path) -> None:
    out = gguf.convert(sound, tmp_path / "out.gguf", "f16", say=str)
    older = out.read_bytes()
    assert convert_until(sound, out, len(older), killed=False) == 3
    assert out.read_bytes() == older and left(out) == ["out.gguf"]


def test_too_little_room_is_said_before_anything_is_made(tmp_path: Path) -> None:
    asked: list[str] = []
    huge = Tensor("huge", (1 << 40, 1 << 20), "f16", lambda: asked.append("huge") or [])
    with pytest.raises(RunError, match=r"writing out.gguf: need 2.31e\+06 TB, have .*B on .*: free some"):
        write.write(tmp_path / "out.gguf", "llama", {}, [huge], str)
    assert not asked and not list(tmp_path.iterdir())
