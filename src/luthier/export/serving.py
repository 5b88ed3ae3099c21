"""What goes beside proved files: Modelfiles, an adapter for its base, and the commands that serve them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import gguf
from luthier.errors import ExportError
from luthier.export import lora, merge, mixtures, modelfile, ollama, places, proof, quantize
from luthier.model import load as loading
from luthier.model import locate
from luthier.runs import atomic
from luthier.streams import say

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer
    from luthier.export.cases import Case

MODELFILE, LORA_MODELFILE = "Modelfile", "Modelfile.lora"


@dataclass(frozen=True)
class Bench:
    """What files are proved on. variables: what the chat template was given besides the messages."""

    asked: Sequence[Case]
    wanted: proof.Expected
    renderer: Renderer
    variables: Mapping[str, Any]


def adapter(config: Config) -> lora.Adapter:
    """The one adapter of a request, as GGUF can say it. Raises ExportError, before anything is merged."""
    names = config.adapter_name_or_path
    if len(names) != 1:
        raise ExportError(
            f"--to lora-gguf: there are {len(names)} adapters, and the file holds one -> --to gguf merges"
            " whatever there is"
        )
    return lora.load(locate.adapter(str(names[0]), config))


def adapters(
    config: Config, out: Path, name: str, kinds: Sequence[str], bench: Bench
) -> list[dict[str, Any]]:
    """NAME-lora.gguf and its base in each of `kinds`, proved together against the merged model.

    A base that is there already is used as it is, so that several adapters share one. Returns their proofs,
    with "base"; a Modelfile is written for the first that holds.
    """
    loaded = adapter(config)
    file = out / f"{name}-lora.gguf"
    proofs = []
    with atomic.scratch(out / "base") as folder:
        plain = folder / f"{Path(str(config.model_name_or_path)).name}-base"
        request = config.replace(adapter_name_or_path=(), export_dir=str(plain), infer_dtype="float32")
        merge.export(request)
        lora.convert(loaded, gguf.settings(plain), file)
        for kind in kinds:
            base = out / f"{plain.name}-{kind}.gguf"
            _base(plain, base, kind, bench.renderer)
            found = proof.prove(base, kind, bench.asked, bench.wanted, dict(bench.variables), lora=file)
            proofs.append({**found, "file": file.name, "base": base.name, "bytes": file.stat().st_size})
    best = next((one for one in proofs if one["ok"]), None)
    if best is None:
        file.replace(file.with_name(f"{file.name}.failed"))
        return [{**one, "file": f"{file.name}.failed"} for one in proofs]
    made, _, _ = modelfile.of(out / best["base"], config, bench.renderer, bench.asked)
    made = dataclasses.replace(made, adapter=f"./{file.name}")
    atomic.write_text(out / LORA_MODELFILE, made.text())
    return proofs


def _base(plain: Path, file: Path, kind: str, renderer: Renderer) -> None:
    if file.is_file():
        say(f"{file.name}: is there already and is used; delete it to have it made anew")
    elif kind in mixtures.kinds():
        exact = plain.with_name(f"{plain.name}-f32.gguf")
        if not exact.is_file():
            gguf.convert(plain, exact, "f32", template=renderer.template.text)
        quantize.quantize(exact, file, kind)
    else:
        gguf.convert(plain, file, kind, template=renderer.template.text)  # type: ignore[arg-type]


def beside(
    config: Config, out: Path, one: Mapping[str, Any], bench: Bench, create: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Write the Modelfile of a proved file, and import it into Ollama under the name `create`, where given.

    Returns what parity.json says under "ollama", and notes.
    """
    made, report, notes = modelfile.of(out / str(one["file"]), config, bench.renderer, bench.asked)
    atomic.write_text(out / MODELFILE, made.text())
    report = {"modelfile": MODELFILE, "file": one["file"], **report}
    if create is not None:
        tokenizer = bench.renderer.tokenizer
        answers = [str(tokenizer.decode(list(ids), skip_special_tokens=True)) for ids in bench.wanted.answers]
        share = one["answers"]["same"] / max(one["answers"]["of"], 1)
        served = ollama.Served(
            out / MODELFILE, bench.asked, answers, proof.ANSWER, share, config.enable_thinking
        )
        report["create"] = ollama.create(create, served)
    return report, notes


def commands(config: Config, out: Path, targets: Sequence[str], result: Mapping[str, Any]) -> list[str]:
    """What to type next, by target."""
    told = result["parity"].get("ollama") or {}
    found = []
    if "ollama" in targets and told and not told.get("create", {}).get("created"):
        found += ollama.commands(out / MODELFILE, told.get("create", {}).get("name") or _called(out))
    if "gguf" in targets and told:
        found += places.serve(out / told["file"], modelfile.CONTEXT)
    if "lora-gguf" in targets and (out / LORA_MODELFILE).is_file():
        found += ollama.commands(out / LORA_MODELFILE, _called(out))[:1]
    if "vllm" in targets:
        found.append(vllm(config, out / "hf", _called(out)))
    return found


def vllm(config: Config, folder: Path, name: str = "") -> str:
    """The command that serves a merged directory, under its own name where no other is given."""
    told = loading.settings(config.replace(model_name_or_path=str(folder), adapter_name_or_path=()))
    longest = getattr(told.get_text_config(), "max_position_embeddings", None)
    trained = config.cutoff_len if config.run is not None else None
    return places.vllm(folder, modelfile.context(trained, longest), name or _called(folder))


def _called(folder: Path) -> str:
    return folder.resolve().name.lower().replace(" ", "-")
