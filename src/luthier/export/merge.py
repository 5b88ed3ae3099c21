"""`luthier export`: merge adapters into their base, write the model, and prove that it is the same one.

Everything is computed in float32. Kept are the adapter model's logits on real prompts, and of the merged
model, which must have the same, the sha256 of each weight as it will be written; then it leaves memory. The
files are made of the base's files, tensor by tensor. The directory appears whole, after what was written has
been loaded again and compared, or not at all.
"""

from __future__ import annotations

import gc
import json
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from luthier import __version__
from luthier.config import Config, load
from luthier.data.render import Renderer
from luthier.errors import ExportError
from luthier.export import card, merge_base, merge_stream, modelfile, parity, upload
from luthier.model import load as loading
from luthier.model import machine, methods
from luthier.model.methods.skeleton import Whole
from luthier.runs import atomic, lock, space
from luthier.streams import say

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

REPORT = "export.json"
GIGABYTE = 10**9


@dataclass
class Work:
    """One export in progress.

    bits: of the base that the adapter was trained on · merged: the model, for as long as it is in memory ·
    expected: the adapter model's logits · report: what will be in export.json.
    """

    config: Config
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer
    prompts: list[parity.Prompt]
    bits: int | None = None
    merged: PreTrainedModel | None = None
    expected: list[torch.Tensor] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


def main(args: list[str]) -> int:
    """`luthier export RUN export_dir=DIR`: prints where the model is, and how equal."""
    config = load(args, "export")
    for note in config.notes:
        say(f"note: {note}")
    upload.check(config)
    report = json.loads((export(config) / REPORT).read_text(encoding="utf-8"))
    print(json.dumps(report, ensure_ascii=False, indent=2) if config.format == "json" else _summary(report))
    upload.push(Path(str(config.export_dir)), config)
    return 0


def export(config: Config) -> Path:
    """Merge, write to `export_dir`, load what was written and compare; returns the directory.

    Raises ExportError when the model differs, and then writes nothing; ModelError,
    TemplateError, RunError as loading and writing do.
    """
    started = time.monotonic()
    out = Path(str(config.export_dir))
    _refuse_occupied(out, config)
    with ExitStack() as held:
        other: atomic.Other = "refused"
        if out.is_dir():  # nobody may begin to write there while the model is being made
            held.callback(lock.Lock.acquire(out).release)
            other = "replaced"
        _export(out, config, other, started)
    return out


def _export(out: Path, config: Config, other: atomic.Other, started: float) -> None:
    bits, config = config.quantization_bit, config.replace(quantization_bit=None)
    tokenizer = loading.tokenizer(config)
    renderer = Renderer.of(config, tokenizer)
    prompts, notes = parity.prompts(config, renderer)
    work = Work(config, tokenizer, renderer, prompts, bits)
    work.report = {
        "luthier": __version__,
        "export_dir": str(out),
        "base": config.model_name_or_path,
        "adapters": list(config.adapter_name_or_path),
        "notes": [*renderer.notes, *notes],
    }
    dtype = _dtype(config)
    _room(config, out, dtype)
    if bits is not None:
        work.report["quantized_base"] = merge_base.choices(config, bits, tokenizer, prompts)
        work.report["notes"].append(merge_base.told(work.report["quantized_base"]))
    work.merged = _merged(work)
    with atomic.directory(out, other=other) as folder:
        _write(work, folder, dtype)
        _verify(work, folder, dtype)
        card.write(folder, work.config, card.Shipped(work.report))
        work.report["seconds"] = round(time.monotonic() - started, 2)
        atomic.write_json(folder / REPORT, work.report)


def _refuse_occupied(out: Path, config: Config) -> None:
    """Raise ExportError before anything is loaded when writing would replace something."""
    if out.exists() and not out.is_dir():
        raise ExportError(f"export_dir: {out} is a file; give a directory")
    for name in (config.model_name_or_path, *config.adapter_name_or_path):
        if Path(str(name)).exists() and Path(str(name)).resolve().is_relative_to(out.resolve()):
            raise ExportError(f"export_dir: {out} holds {name}, which is read for the export; give another")
    if (holder := lock.holder(out)) is not None:
        raise ExportError(f"export_dir: {out} is in use by {holder}; give another")
    entries = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
    if entries and not config.overwrite_output_dir:
        raise ExportError(
            f"export_dir: {out} is not empty ({', '.join(entries[:3])}{', …' if len(entries) > 3 else ''}); "
            "give another, or set overwrite_output_dir: true to replace it"
        )


def _room(config: Config, out: Path, dtype: torch.dtype) -> None:
    """Raise RunError before anything is loaded where the disk is too small; not for a hub's model."""
    if not Path(str(config.model_name_or_path)).is_dir():
        return
    need = merge_stream.count(config) * dtype.itemsize
    space.require(
        space.padded([need]), out.parent, "export_dir", "free some space, or give a directory elsewhere"
    )


def _dtype(config: Config) -> torch.dtype:
    """`infer_dtype`, or the base's own."""
    if config.infer_dtype != "auto":
        return loading.DTYPES[config.infer_dtype]
    return getattr(loading.settings(config), "dtype", None) or torch.float32


def _merged(work: Work) -> PreTrainedModel:
    """The merged model in float32, compared with the adapter model in memory."""
    base = merge_base.load(work.config, work.bits, work.tokenizer)
    model = methods.prepare(base.to(_device(work.config)), work.config, training=False)
    work.expected = parity.logits(model, work.prompts)
    merged = methods.merge(model)
    found = parity.differences(work.expected, parity.logits(merged, work.prompts))
    work.report["merge_max_abs_difference"] = max(found)
    _judge(found, work, "merging")
    return merged


def _device(config: Config) -> torch.device:
    return machine.device() if config.export_device == "auto" else torch.device("cpu")


def _write(work: Work, folder: Path, dtype: torch.dtype) -> None:
    """Everything that belongs to the model. Afterwards it is no longer in memory."""
    merged, work.merged = work.merged, None
    assert merged is not None
    _settle(merged, work)
    work.report["weights"] = parity.fingerprints(merged, dtype)
    work.report["parameters"] = sum(p.numel() for p in merged.parameters())
    work.report["dtype"] = str(dtype).removeprefix("torch.")
    longest = getattr(merged.config.get_text_config(), "max_position_embeddings", None)
    largest = int(work.config.export_size * GIGABYTE)
    try:
        if work.report.get("quantized_base", {}).get("merged_into") == "quantized":
            raise Whole("it is merged into dequantized weights, which no file has")
        pieces = merge_stream.plan(merged, work.config, dtype)
    except Whole as why:
        work.report["notes"].append(f"the model was written from memory, not tensor by tensor: {why}")
        merged.to(dtype).save_pretrained(str(folder), max_shard_size=largest)
        del merged
    else:
        merge_stream.describe(merged, folder, dtype)
        del merged
        gc.collect()
        merge_stream.write(pieces, folder, largest)
    work.tokenizer.save_pretrained(str(folder))
    stops = [str(work.tokenizer.convert_ids_to_tokens(i)) for i in _stop_ids(work)]
    stops += work.renderer.stop_strings
    reads = modelfile.context(None, longest)
    made = modelfile.Modelfile(".", stops, reads, longest=longest, system=work.config.system or "")
    atomic.write_text(folder / "Modelfile", made.text())


def _settle(model: PreTrainedModel, work: Work) -> None:
    """Let other programs stop where training stopped: every token that ends a turn is an end token."""
    generation = model.generation_config
    if generation is None:
        return
    old = generation.eos_token_id
    known = old if isinstance(old, list) else [] if old is None else [old]
    stops = list(dict.fromkeys([*_stop_ids(work), *known]))
    generation.eos_token_id = stops[0] if len(stops) == 1 else stops
    generation.pad_token_id = work.tokenizer.pad_token_id
    model.config.get_text_config().use_cache = True


def _stop_ids(work: Work) -> list[int]:
    """The end of text first, then the template's other ends of a turn."""
    end = work.tokenizer.eos_token_id
    rest = sorted(set(work.renderer.stop_ids) - {end})
    return ([] if end is None else [int(end)]) + rest


def _verify(work: Work, folder: Path, dtype: torch.dtype) -> None:
    """Load the directory as anybody would, and compare. Raises ExportError."""
    _verify_tokenizer(work, folder)
    written = loading.model(Config(model_name_or_path=str(folder)), dtype, training=False)
    expected = work.report.pop("weights")
    found = parity.fingerprints(written, dtype)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise ExportError(
            f"{len(wrong)} of {len(expected)} weights are not what was merged ({', '.join(wrong[:3])}), so "
            "nothing was written. Disk or memory may be damaged; if it happens again, please report it"
        )
    written = written.float().to(_device(work.config))
    differences = parity.differences(work.expected, parity.logits(written, work.prompts))
    work.report |= {
        "max_abs_difference": max(differences),
        "tolerance": parity.TOLERANCE if dtype is torch.float32 else None,
        "prompts": [
            {
                "source": p.source,
                "text": work.tokenizer.decode(p.ids),
                "tokens": len(p.ids),
                "max_abs_difference": d,
            }
            for p, d in zip(work.prompts, differences, strict=True)
        ],
    }
    if dtype is torch.float32:
        _judge(differences, work, "writing")
    else:
        work.report["notes"].append(
            f"written in {work.report['dtype']}: each weight is the float32 one, rounded (checked bit by "
            "bit), which alone makes the difference of the logits"
        )


def _verify_tokenizer(work: Work, folder: Path) -> None:
    written = loading.tokenizer(Config(model_name_or_path=str(folder)))
    same = written.chat_template == work.tokenizer.chat_template
    for prompt in work.prompts:
        text = work.tokenizer.decode(prompt.ids)
        same = same and written.encode(text) == work.tokenizer.encode(text)
    if not same:
        raise ExportError(
            "the tokenizer, loaded again, does not give the tokens of training, so nothing was written. "
            "Export with the versions of transformers and tokenizers that the run was trained with"
        )


def _judge(differences: list[float], work: Work, doing: str) -> None:
    worst = max(differences)
    if worst <= parity.TOLERANCE:
        return
    prompt = work.prompts[differences.index(worst)]
    raise ExportError(
        f"{doing} changed the model: logits differ by {worst:.3g} where {parity.TOLERANCE:g} is allowed, on "
        f"{prompt.source}. Nothing was written; the adapter and its base are as they were"
    )


def _summary(report: dict[str, Any]) -> str:
    lines = [f"{report['export_dir']}: {report['parameters']:,} weights in {report['dtype']}"]
    lines += [
        f"  logits of {len(report['prompts'])} prompts, largest difference from the adapter model:",
        f"    merged, float32           {report['merge_max_abs_difference']:.2e} "
        f"(allowed {parity.TOLERANCE:g})",
        f"    written and loaded again  {report['max_abs_difference']:.2e} ({report['dtype']})",
    ]
    return "\n".join(lines + [f"  note: {note}" for note in report["notes"]])
