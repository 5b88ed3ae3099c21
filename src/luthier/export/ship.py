"""From a run to files that other programs serve, each proved to be the model that was trained."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import __version__, gguf
from luthier.config import Config
from luthier.errors import ExportError, MissingPackage
from luthier.export import (
    card,
    gate,
    importance,
    merge,
    mixtures,
    ollama,
    places,
    proof,
    quantize,
    serving,
)
from luthier.export.cases import cases
from luthier.runs import atomic
from luthier.streams import say

if TYPE_CHECKING:
    from luthier.data.render import Renderer

EVEN = ("f32", "f16", "bf16")
KINDS = (*EVEN, *mixtures.kinds())
PARITY = "parity.json"
_FAILED = ".failed"


@dataclass(frozen=True)
class Order:
    """targets: of `cli.TARGETS` · kinds: of GGUF · weigh: with an importance matrix · gate: what the task's
    metric may lose, such as "accuracy -1%", on `gate_dataset` or the rows that the run held out · create: the
    name under which Ollama imports the best file · install: a program of `places.PLACES` that gets it."""

    targets: tuple[str, ...]
    kinds: tuple[str, ...] = ("f16",)
    weigh: bool = False
    gate: str | None = None
    gate_dataset: str | None = None
    create: str | None = None
    install: str | None = None


def ship(config: Config, order: Order) -> dict[str, Any]:
    """Write what is asked for into `export_dir`; returns what --format json prints: files, parity, gate.

    A file whose proof fails keeps its content under a name that ends in ".failed". Raises ExportError,
    ModelError, MissingPackage (before anything is merged), RunError.
    """
    needs()
    for kind in set(order.kinds) - set(EVEN):
        mixtures.check(kind, order.weigh)
    if order.gate is not None:
        gate.parse(order.gate)
    if order.create is not None:
        ollama.check(order.create)
    if "lora-gguf" in order.targets:
        serving.adapter(config)
    out = Path(str(config.export_dir))
    began = time.monotonic()
    if "hf" in order.targets:
        merge.export(config.replace(export_dir=str(out / "hf")))
    out.mkdir(parents=True, exist_ok=True)
    with atomic.scratch(out / "merged") as folder:
        exact = folder / _name(config)
        merge.export(config.replace(export_dir=str(exact), infer_dtype="float32"))
        told = atomic.read_json(exact / merge.REPORT)
        parity, gated = _files(config, out, exact, order)
    parity |= {
        "luthier": __version__,
        "merge_max_abs_difference": told["merge_max_abs_difference"],
        "ok": all(one["ok"] for one in parity["files"])
        and parity.get("ollama", {}).get("create", {}).get("ok", True),
        "seconds": round(time.monotonic() - began, 2),
    }
    atomic.write_json(out / PARITY, parity)
    card.write(out, config, card.Shipped(told, parity["files"], "hf" if "hf" in order.targets else None))
    files = [str(out / name) for one in parity["files"] for name in (one["file"], one.get("base")) if name]
    files += [str(out / "hf")] if "hf" in order.targets else []
    if order.install is not None and "ollama" in parity:
        best = out / parity["ollama"]["file"]
        files.append(str(places.install(order.install, best, _name(config))))
    result = {"files": list(dict.fromkeys(files)), "parity": parity, "gate": gated}
    return {**result, "next": serving.commands(config, out, order.targets, result)}


def table(result: dict[str, Any]) -> str:
    """What was written and how equal it is, for a terminal."""
    parity = result["parity"]
    lines = [f"merged: logits differ by {parity['merge_max_abs_difference']:.1e} from those of the adapter"]
    lines.append(
        f"{'file':<36} {'prompts':>9} {'difference':>11} {'KL':>8} {'top-1':>6} {'answers':>9}  proof"
    )
    for one in parity["files"]:
        prompts, logits, answers = one["prompts"], one["logits"], one["answers"]
        same = min(prompts["same_text"], prompts["same_tokens"])
        lines.append(
            f"{one['file']:<36} {same:>4}/{one['cases']:<4} {logits['max_abs_difference']:>11.1e}"
            f" {logits['mean_kl']:>8.1e} {logits['same_top']:>6.1%} {answers['same']:>4}/{answers['of']:<4}"
            f"  {'holds' if one['ok'] else 'FAILED'}"
        )
        lines += [f"    {problem}" for problem in one["problems"][:5]]
    lines += [f"note: {note}" for note in parity["notes"]]
    lines += gate.table(result["gate"])
    lines += _imported(parity.get("ollama", {}).get("create"))
    lines += ["", *(f"written: {place}" for place in result["files"])]
    chosen = [one for one in result["gate"] if one["recommended"]] or [
        one for one in parity["files"] if one["ok"]
    ]
    best = next((one["file"] for one in chosen if "base" not in one), None)
    next_ = [f"luthier chat {Path(result['files'][0]).parent / best}"] if best else []
    lines += [f"{'' if i else 'Go on:':<7} {command}" for i, command in enumerate([*next_, *result["next"]])]
    return "\n".join(lines)


def _imported(told: dict[str, Any] | None) -> list[str]:
    """What Ollama made of it."""
    if told is None:
        return []
    if not told["created"] and told["ok"]:
        return [f"note: not imported, because {told['why']}"]
    asked = (
        f"ollama {told['name']}: {told['same']} of {told['asked']} answers as trained"
        if "same" in told
        else ""
    )
    return [*([asked] if asked else []), *(f"    {problem}" for problem in told["problems"])]


def needs() -> None:
    """Raise MissingPackage before an hour of work, not after it."""
    import importlib.util

    for name in ("gguf", "xllamacpp"):
        if importlib.util.find_spec(name) is None:
            raise MissingPackage(name, "exporting to GGUF and proving it", "gguf")


def _name(config: Config) -> str:
    """What the files are called: as the run, or as the model."""
    place = config.run or config.model_name_or_path
    return Path(str(place)).resolve().name if Path(str(place)).exists() else Path(str(place)).name


def _files(
    config: Config, out: Path, exact: Path, order: Order
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The GGUF files of a merged model, with their proofs, and what the gate says of them."""
    from luthier.infer import loading
    from luthier.infer.engine import generation

    source = Config(
        verb="chat",
        model_name_or_path=str(exact),
        infer_dtype="float32",
        enable_thinking=config.enable_thinking,
    )
    tokenizer, renderer = loading.text(source, lambda _: None)
    ready = loading.model(source, tokenizer, renderer)
    options = generation(source.replace(max_new_tokens=proof.ANSWER, repetition_penalty=1.0), renderer, False)
    asked, notes = cases(config, renderer, ready.engine.context - proof.ANSWER)
    if not asked:
        raise ExportError("no prompt fits into the model, so nothing could be proved: " + "; ".join(notes))
    say(f"proving on {len(asked)} prompts")
    wanted = proof.expected(ready.engine.model, ready.engine, asked, options)  # type: ignore[attr-defined]
    texts = [(*case.ids, *answer) for case, answer in zip(asked, wanted.answers, strict=True)]
    weights = importance.collect(ready.engine.model, texts) if order.weigh else None  # type: ignore[attr-defined]
    longest = ready.engine.context
    paper = marks = None
    if order.gate is not None:
        paper = gate.exam(gate.parse(order.gate), config, order.gate_dataset, renderer, longest)
        marks = gate.take(paper, ready.engine)
    del ready
    gc.collect()
    variables = {} if config.enable_thinking is None else {"enable_thinking": config.enable_thinking}
    proofs = []
    for kind in order.kinds if "gguf" in order.targets else ():
        file = out / f"{exact.name}-{kind}.gguf"
        if kind in EVEN:
            gguf.convert(exact, file, kind, template=renderer.template.text)  # type: ignore[arg-type]
        else:
            quantize.quantize(source_of(exact, renderer), file, kind, importance=weights)
        found = proof.prove(file, kind, asked, wanted, variables)
        if not found["ok"]:
            file = file.replace(file.with_name(file.name + _FAILED))
        proofs.append({**found, "file": file.name, "bytes": file.stat().st_size})
    gated = []
    if paper is not None and marks is not None:
        files = [(out / one["file"], one) for one in proofs if one["ok"]]
        gated = gate.judge(paper, marks, files, config.seed)
    best = [one for one in gated if one["recommended"]] or [one for one in proofs if one["ok"]]
    bench = serving.Bench(asked, wanted, renderer, variables)
    told: dict[str, Any] = {}
    if best:
        told["ollama"], more = serving.beside(config, out, best[0], bench, order.create)
        notes += more
    if "lora-gguf" in order.targets:
        proofs += serving.adapters(config, out, exact.name, order.kinds, bench)
    return {"files": proofs, "notes": [*renderer.notes, *notes], **told}, gated


def source_of(exact: Path, renderer: Renderer) -> Path:
    """The model in float32, which quantized files are made of; beside the merged one, for as long as that."""
    file = exact.with_name(f"{exact.name}-f32.gguf")
    if not file.is_file():
        gguf.convert(exact, file, "f32", template=renderer.template.text)
    return file
