"""`luthier runs reproduce RUN`: train a run again, and say that the same came out, or where it differs.

Bit for bit the same is what the same program on the same machine gives. The configuration is the resolved
one, so nothing is derived anew from this machine; the number of threads, the tokens of a pass and the day
that a chat template writes are those of the run, because each of them can change the last digits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from luthier.config import Config, load
from luthier.data.render import Renderer
from luthier.errors import RunError, UsageError
from luthier.model import load as loading
from luthier.runs import Run, atomic, compare, hashing, reproduce
from luthier.runs.cli import Parser
from luthier.runs.run import CONFIG, RESOLVED
from luthier.runs.seal import CHECKSUMS, MANIFEST
from luthier.streams import say
from luthier.train.observe import STATE
from luthier.train.run import train
from luthier.train.screen import tell

_SHOWN = 5  # tensors that are named
Result = dict[str, Any]


def main(args: Sequence[str]) -> int:
    """0 when the run came out equal (or could be trained again, with --dry-run), 1 when something differs.

    What was said of an interrupted reproduction's training holds: the same command goes on. Raises RunError
    for a run that is not finished, UsageError, and all that `train` raises.
    """
    request = _parse(args)
    run = Run.open(Path(request.run).absolute())
    out = Path(request.out or f"{run.path}-again").absolute()
    if out.resolve() == run.path.resolve():
        raise UsageError(f"--out {out}: is the run itself -> another directory")
    differences, notes = reproduce.unchanged(run)
    if not request.dry_run:
        differences += reproduce.finished(run) + _processes(run)
    result: Result = {"ok": not differences, "run": str(run.path), "again": str(out)}
    if request.dry_run:
        result["config"] = (run.path / CONFIG).read_text("utf-8")
    result |= {"command": reproduce.command(run, out), "differences": differences, "notes": notes}
    if not request.dry_run and (not differences or request.anyway):
        for line in (*(f"differs: {one}" for one in differences), *(f"note: {one}" for one in notes)):
            say(line)
        again = _train(run, out, request)
        if os.environ.get("RANK", "0") != "0":
            return 0
        result |= compared(run, again)
        result["causes"] = [] if result["ok"] else [*differences, *result["causes"]]
    tell(json.dumps(result, ensure_ascii=False, indent=2) if request.format == "json" else _lines(result))
    return 0 if result["ok"] else 1


def compared(run: Run, again: Run) -> Result:
    """ok: weights and logged losses are equal · weights: {"sha256": [then, now], "tensors": their number,
    "differ": [{"tensor", "max_abs", "differing"}], the most different first} · losses, causes: see
    runs/reproduce."""
    tensors, losses = weights(run.path, again.path), reproduce.losses(run, again)
    ok = len(set(tensors["sha256"])) == 1 and losses["first"] is None
    found = [] if ok else reproduce.causes(run, again)
    return {"ok": ok, "weights": tensors, "losses": losses, "causes": found}


def weights(first: Path, again: Path) -> Result:
    """The final weights of two runs, tensor by tensor; never more than one tensor of each is in memory."""
    then, now = _places(first), _places(again)
    digests, differ = (hashlib.sha256(), hashlib.sha256()), []
    for name in sorted(then.keys() | now.keys()):
        sides = [_tensor(files.get(name), name) for files in (then, now)]
        raw = [_bytes(tensor) for tensor in sides]
        for digest, tensor, data in zip(digests, sides, raw, strict=True):
            if tensor is not None:
                digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode() + data)
        if raw[0] != raw[1]:
            differ.append({"tensor": name, **_apart(*sides)})
    differ.sort(key=lambda one: -one["max_abs"] if one["max_abs"] is not None else float("-inf"))
    return {
        "sha256": [digest.hexdigest() for digest in digests],
        "tensors": len(then),
        "differ": differ,
    }


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser("reproduce")
    parser.add_argument("run")
    parser.add_argument("--out")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--anyway", action="store_true")
    parser.add_argument("--trust-remote-code", "--trust_remote_code", action="store_true")
    return parser.parse_args(list(args))


def _processes(run: Run) -> list[str]:
    """The examples of a step are shared among the processes, so their number must be that of the run."""
    then, now = int(_process(run).get("world", 1)), int(os.environ.get("WORLD_SIZE", "1"))
    if then == now:
        return []
    return [f"{then} processes then, {now} now -> torchrun --nproc_per_node {then} -m luthier runs reproduce"]


def _process(run: Run) -> Mapping[str, Any]:
    found: Mapping[str, Any] = run.read_json(MANIFEST).get("process") or {}
    return found


def _train(run: Run, out: Path, request: argparse.Namespace) -> Run:
    """Train, or go on with what an interrupted reproduction left in `out`; one that is finished is taken."""
    kept = run.read_json(MANIFEST)
    there = kept.get("cwd", ".")
    if not os.path.isdir(there):
        raise RunError(f"{run.path}: was started in {there}, which is gone, so its paths mean nothing")
    os.chdir(there)
    config = _config(run, out, request.trust_remote_code)
    if _is_there(config, out):
        say(f"note: {out} is finished already, and compared as it is")
        return Run.open(out)
    if not request.anyway:
        _same_template(config, kept)
    if threads := _process(run).get("threads"):
        torch.set_num_threads(int(threads))
    return train(config, date.fromisoformat(kept["day"]) if "day" in kept else None)


def _config(run: Run, out: Path, trusted: bool) -> Config:
    """The configuration as it was used. Whether code may run is said by the user, never by a folder."""
    keys = {
        k: v
        for k, v in run.read_json(RESOLVED).items()
        if k not in reproduce.OWN | {"run_name", "logging_dir"}
    }
    if keys.pop("trust_remote_code", False) and not trusted:
        raise UsageError(
            f"{run.path}: ran code that came with its model -> --trust-remote-code, if you trust that code"
        )
    state = run.path / STATE
    budget = atomic.read_json(state).get("micro_batch_tokens") if state.is_file() else None
    keys["micro_batch_tokens"] = keys.get("micro_batch_tokens") or budget or None
    own = {"output_dir": str(out), "report_to": ["none"], "do_predict": False, "trust_remote_code": trusted}
    return load({**keys, **own}, "train", {})


def _is_there(config: Config, out: Path) -> bool:
    """Whether `out` holds a finished reproduction. Raises UsageError when it holds another run."""
    if not Run.is_run(out) or not (out / RESOLVED).is_file():
        return False
    run = Run.open(out)
    wanted, found = (json.loads(json.dumps(one)) for one in (config.as_dict(), run.read_json(RESOLVED)))
    differing = [key for key in wanted if key not in compare.PLACES and wanted[key] != found.get(key)]
    if differing:
        raise UsageError(f"{out}: holds another run ({', '.join(differing[:5])} differ) -> --out DIRECTORY")
    return run.status == "complete" and (out / CHECKSUMS).is_file()


def _same_template(config: Config, kept: Mapping[str, Any]) -> None:
    text = Renderer.of(config, loading.tokenizer(config)).template.text
    if hashing.sha256_text(text) != kept.get("template"):
        raise RunError(
            f"the template {config.template or 'of the tokenizer'} is not what the run was trained with"
            " -> --anyway to train with it all the same"
        )


# --- weights


def _places(folder: Path) -> dict[str, Path]:
    """Tensor -> its file, of the final weights."""
    names = atomic.read_json(folder / CHECKSUMS)["files"]
    found = {}
    for file in (folder / name for name in names if name.endswith(".safetensors")):
        with safe_open(file, "pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    return found


def _tensor(file: Path | None, name: str) -> Tensor | None:
    if file is None:
        return None
    with safe_open(file, "pt") as opened:
        tensor: Tensor = opened.get_tensor(name)
        return tensor


def _bytes(tensor: Tensor | None) -> bytes | None:
    return None if tensor is None else tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _apart(then: Tensor | None, now: Tensor | None) -> Result:
    """max_abs: the largest difference, null where one has no such tensor · differing: how many elements."""
    if then is None or now is None or then.shape != now.shape:
        return {"max_abs": None, "differing": None}
    gap = (then.double() - now.double()).abs()
    return {"max_abs": float(gap.max()), "differing": int((gap != 0).sum())}


# --- what is said


def _lines(result: Mapping[str, Any]) -> str:
    return "\n".join(_told(result))


def _told(result: Mapping[str, Any]) -> Iterator[str]:
    if "config" in result:
        yield result["command"]
    if "weights" not in result:
        yield from (f"differs: {one}" for one in result["differences"])
        yield from (f"note: {one}" for one in result["notes"])
        if result["ok"]:
            yield "data, template, tokenizer and base weights are those of the run"
        elif "config" not in result:
            yield "not trained: undo these, or --anyway"
        return
    tensors, losses = result["weights"], result["losses"]
    if result["ok"]:
        yield f"equal: {tensors['tensors']} tensors (sha256 {tensors['sha256'][0][:12]})"
        yield f"equal: {losses['compared']} logged values"
        return
    yield f"differs: {result['run']} and {result['again']}"
    yield from _parted(losses)
    yield from _moved(tensors)
    if result["causes"]:
        yield "what differs and may be the cause, the likeliest first:"
        yield from (f"  {one}" for one in result["causes"])
    else:
        yield "nothing that is recorded of the two differs: " + (
            "the weights were changed after the training" if losses["first"] is None else
            "the device adds in an order of its own, or a file was changed after the training"
        )  # fmt: skip


def _parted(losses: Mapping[str, Any]) -> Iterator[str]:
    one = losses["first"]
    if one is None:
        yield f"losses: all {losses['compared']} logged values are equal"
        return
    values = f"{_number(one['then'])} then, {_number(one['now'])} now"
    gap = f" ({one['delta']:+.3g})" if one["delta"] is not None else ""
    yield f"losses: the first that differs is {one['key']} at step {one['step']}: {values}{gap}"


def _moved(tensors: Mapping[str, Any]) -> Iterator[str]:
    differ = tensors["differ"]
    if not differ:
        yield f"weights: all {tensors['tensors']} tensors are equal"
        return
    yield f"weights: {len(differ)} of {tensors['tensors']} tensors differ; most:"
    for one in differ[:_SHOWN]:
        gap = "only one run has it" if one["max_abs"] is None else f"by up to {one['max_abs']:.3g}"
        yield f"  {one['tensor']}: {gap}" + (f" in {one['differing']} elements" if one["differing"] else "")


def _number(value: float | None) -> str:
    return "not logged" if value is None else f"{value:.9g}"
