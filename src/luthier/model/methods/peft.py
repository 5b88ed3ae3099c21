"""Low-rank adapters: the door to PEFT.

What is written is always a plain LoRA (rsLoRA, DoRA) adapter of the base as the user has it, which PEFT
loads without luthier. PiSSA takes part of the base's weights into the adapter while it trains; its adapter
is written as the difference between trained and initial product, which has twice the rank and needs no
change of the base: s B A - s B0 A0 = s [B, -B0] [A; A0] (https://arxiv.org/abs/2404.02948, appendix C).
The halves of that are the exact trained and initial matrices, so training continues from it bit by bit.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners import lora
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save as to_safetensors

from luthier.errors import LuthierError, ModelError
from luthier.model import files, fit, locate, trust, vocabulary
from luthier.model.methods import Method
from luthier.model.names import not_found
from luthier.model.quantize import is_quantized
from luthier.model.seeds import seeded
from luthier.runs import atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier.config import Config

log = logging.getLogger(__name__)

NAME = "default"
PISSA = "luthier_pissa"
"""In the header of a converted adapter: rank, alpha and rsLoRA flag that it had while it trained, as JSON."""
BELOW = "luthier_below"
"""In the header of an adapter that was trained on top of others: their directories, in order, as JSON."""
START = "luthier_pissa_start"
"""Attribute of a model that trains PiSSA: its initial lora_A and lora_B, on the CPU, by parameter name."""
SCALE = ("r", "lora_alpha", "use_rslora")
MERGED_ALONE = (lora.Linear, lora.Embedding)
"""Adapted layers whose merged weight depends on the layer's own weight alone."""
OUTPUT_LAYERS = ("lm_head", "output_layer", "embed_out")


def attach(model: PreTrainedModel, config: Config) -> PreTrainedModel:
    """New adapters, whose initial values depend on `seed` alone. Raises ModelError for names not found."""
    if config.pissa_init and is_quantized(model):
        raise ModelError(
            "pissa_init: needs the base's own weights. Leave quantization_bit out, or pissa_init"
        )
    additional = _additional(model, config)
    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora_rank,
        lora_alpha=_number(config.lora_alpha or 2 * config.lora_rank),
        lora_dropout=config.lora_dropout,
        target_modules=_targets(model, config),
        modules_to_save=additional or None,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        init_lora_weights=_initial(config),
        ensure_weight_tying=_tied(model) and any(_matches(n, additional) for n in _embedding_names(model)),
    )
    with seeded(config.seed), _quiet():
        try:
            tuned = get_peft_model(model, settings)
        except ValueError as error:
            raise ModelError(f"lora_target: {error}") from error
    if config.pissa_init:
        setattr(tuned, START, {k: v.detach().cpu().clone() for k, v in _matrices(tuned).items()})
    return tuned


def save(model: PreTrainedModel, directory: Path, config: Config) -> None:
    """Write adapter_config.json and adapter_model.safetensors, each whole or not at all."""
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    settings = copy.deepcopy(model.peft_config[NAME])
    header = {"format": "pt"}
    start = getattr(model, START, None)
    if start is not None:
        header[PISSA] = json.dumps({key: getattr(settings, key) for key in SCALE})
        tensors, settings = _converted(model, tensors, settings)
    below = config.adapter_name_or_path if config.create_new_adapter else config.adapter_name_or_path[:-1]
    if below:
        header[BELOW] = json.dumps([str(path) for path in chain(below, config)])
    settings.base_model_name_or_path = str(config.model_name_or_path)
    settings.inference_mode = True
    own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    data = _steady(to_safetensors(own, metadata=header))
    atomic.write_bytes(directory / locate.ADAPTER_WEIGHTS, data)
    atomic.write_json(directory / locate.ADAPTER_CONFIG, _plain(settings))


def _steady(data: bytes) -> bytes:
    """The same safetensors file with its header's notes in order, which the library leaves to chance."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def load(
    model: PreTrainedModel, directories: Sequence[str | Path], config: Config, trainable: bool
) -> PreTrainedModel:
    """Put adapters on the base, in order: all but the last are merged into it, the last stays apart.

    One that was trained on top of others brings them along. Raises ModelError when one was made for another
    base, or several meet a quantized one.
    """
    *below, last = chain(directories, config)
    if is_quantized(model) and below:
        raise ModelError(
            "adapter_name_or_path: a quantized base takes one adapter, because merging the others into "
            "rounded weights is inexact. Export them merged first, or leave quantization_bit out"
        )
    for path in below:
        model = merge(_put(model, path, config, False))
    return _put(model, last, config, trainable)


def chain(directories: Sequence[str | Path], config: Config) -> list[Path]:
    """The adapters in these directories, each after those that it was trained on top of, none twice."""
    found: list[Path] = []
    for name in directories:
        path = _trusted(str(name), config)
        for below in _below(path):
            if Path(below) not in found:
                log.warning("%s was trained on top of %s, which is merged first", path, below)
                found.append(_trusted(below, config))
        if path not in found:
            found.append(path)
    return found


def _trusted(name: str, config: Config) -> Path:
    path = locate.adapter(name, config).resolve()
    trust.adapter(path)
    return path


def _below(path: Path) -> list[str]:
    """Directories only: a file does not decide what is fetched from a hub."""
    named = _noted(path, BELOW, [])
    if isinstance(named, list) and all(isinstance(n, str) and Path(n).is_absolute() for n in named):
        return named
    raise ModelError(
        f"{path / locate.ADAPTER_WEIGHTS}: {BELOW}: {str(named)[:200]} is no list of folders. {files.AGAIN}"
    )


def _noted(path: Path, key: str, default: Any = None) -> Any:
    """What luthier wrote into the header of an adapter's weights under `key`. Raises ModelError."""
    text = files.header(path / locate.ADAPTER_WEIGHTS)[0].get(key)
    try:
        return default if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path / locate.ADAPTER_WEIGHTS}: {key}: is not JSON ({error}). {files.AGAIN}"
        ) from error


def _put(model: PreTrainedModel, path: Path, config: Config, trainable: bool) -> PreTrainedModel:
    scale = _noted(path, PISSA) if trainable else None
    with seeded(config.seed), _quiet(), _explained(path, config):
        vocabulary.follow(model, path)
        fit.check(model, path, config)
        if scale is not None:
            return _resume_pissa(model, path, scale)
        return PeftModel.from_pretrained(model, str(path), adapter_name=NAME, is_trainable=trainable)


def put_blank(model: PreTrainedModel, path: Path, config: Config) -> Any:
    """Put an adapter on a model whose weights are not there yet; its own are, as the file has them."""
    with _quiet(), _explained(path, config):
        return PeftModel.from_pretrained(model, str(path), adapter_name=NAME, low_cpu_mem_usage=True)


@contextmanager
def _explained(path: Path, config: Config) -> Iterator[None]:
    """PEFT raises whatever it meets first when settings and tensors of an adapter contradict each other."""
    try:
        yield
    except LuthierError:
        raise
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        raise ModelError(
            f"{path}: the adapter cannot be put on {config.model_name_or_path}: {said}"
        ) from error


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Adapters added into the base's weights, computed in float32 and rounded once to the base's dtype."""
    if is_quantized(model):
        raise ModelError(
            "a quantized base cannot take an adapter in exactly. Load the base without quantization_bit and "
            "merge into that"
        )
    _untie(model)
    try:
        for layer in [m for m in model.modules() if isinstance(m, LoraLayer)]:
            weight = layer.get_base_layer().weight
            dtype = weight.dtype
            weight.data = weight.data.float()
            layer.merge(safe_merge=True)
            weight.data = weight.data.to(dtype)
        with _quiet():
            merged: PreTrainedModel = model.merge_and_unload()
    except ValueError as error:
        raise ModelError(f"the adapter cannot be merged: {error}") from error
    return vocabulary.settle_ties(merged)


def _untie(model: PreTrainedModel) -> None:
    """Give tied ends matrices of their own where an adapter is on one of them, or each has another.

    Merged into the one matrix, a low-rank change of either end would be in both.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if any(isinstance(end, LoraLayer) for end in ends) and _tied(model):
        head = ends[1].get_base_layer() if isinstance(ends[1], LoraLayer) else ends[1]
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)


LORA = Method(attach, save, load, merge, quantized=True)


def linear_names(model: torch.nn.Module) -> set[str]:
    """Last words of the names of linear layers (quantized ones too), output layers left out."""
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if "Linear" in type(module).__name__ and not any(part in OUTPUT_LAYERS for part in name.split("."))
    }


def _targets(model: PreTrainedModel, config: Config) -> list[str]:
    wanted = list(config.lora_target)
    if "all" in wanted:
        return sorted(linear_names(model))
    adaptable = {
        name: module
        for name, module in model.named_modules()
        if "Linear" in type(module).__name__ or isinstance(module, (torch.nn.Embedding, torch.nn.Conv1d))
    }
    short = {name.rpartition(".")[2] for name in adaptable}
    problems, tied = [], _tied_names(model)
    for target in wanted:
        hits = [name for name in adaptable if _matches(name, [target])]
        if not hits:
            problems.append(not_found("lora_target", target, short))
        elif any(name in tied for name in hits):
            problems.append(
                f"lora_target: {target} shares its matrix with {' and '.join(sorted(tied - {*hits}))}, so a "
                f"low-rank change of one would be merged into both. Train it in full: "
                f"additional_target: {target}"
            )
    if problems:
        raise ModelError("\n".join(problems))
    return sorted(wanted)


def _matches(name: str, wanted: list[str]) -> bool:
    return any(name == word or name.endswith(f".{word}") for word in wanted)


def _additional(model: PreTrainedModel, config: Config) -> list[str]:
    """Modules trained in full. Without a choice, those that a grown vocabulary filled with noise."""
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    names = {name for name, _ in model.named_modules()}
    wanted = list(config.additional_target)
    missing = [word for word in wanted if not any(_matches(name, [word]) for name in names)]
    if missing:
        short = {name.rpartition(".")[2] for name in owners}
        raise ModelError("\n".join(not_found("additional_target", word, short) for word in missing))
    if not wanted and vocabulary.grows(config):
        return sorted({name.rpartition(".")[2] for name in _embedding_names(model)})
    return sorted(wanted)


def _embedding_names(model: PreTrainedModel) -> set[str]:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name for name, module in model.named_modules() if any(module is end for end in ends)}


def _tied(model: PreTrainedModel) -> bool:
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    return outputs is not None and outputs.weight is inputs.weight


def _tied_names(model: PreTrainedModel) -> set[str]:
    return _embedding_names(model) if _tied(model) else set()


def _number(value: float) -> float:
    """An int where the value is whole, which is how every other tool writes lora_alpha."""
    return int(value) if float(value).is_integer() else value


def _initial(config: Config) -> Any:
    if not config.pissa_init:
        return True
    return "pissa" if config.pissa_iter == -1 else f"pissa_niter_{config.pissa_iter}"


def _matrices(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {k: v for k, v in tensors.items() if ".lora_A." in k or ".lora_B." in k}


def _converted(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], settings: LoraConfig
) -> tuple[Any, Any]:
    """The adapter of the unchanged base: [A; A0] and [B, -B0], with the scale that the trained one had."""
    start = getattr(model, START)
    joined = dict(tensors)
    for name, first in start.items():
        trained = tensors[name].detach().cpu()
        joined[name] = (
            torch.cat([trained, first]) if ".lora_A." in name else torch.cat([trained, -first], dim=1)
        )
    scale = settings.lora_alpha / (settings.r**0.5 if settings.use_rslora else settings.r)
    settings.r *= 2
    settings.lora_alpha = _number(scale * settings.r)
    settings.use_rslora = False
    settings.init_lora_weights = True
    return joined, settings


def _resume_pissa(model: PreTrainedModel, path: Path, scale: dict[str, Any]) -> PreTrainedModel:
    """Undo the conversion: take s B0 A0 out of the base again and train A and B further.

    Every number comes from the file, so it does not matter whether the decomposition could be repeated.
    """
    settings = LoraConfig.from_pretrained(str(path))
    settings.inference_mode = False
    if settings.r != 2 * scale["r"]:
        raise ModelError(
            f"{path / locate.ADAPTER_WEIGHTS}: {PISSA}: {str(scale)[:80]} is not of this adapter"
        )
    for key in SCALE:
        setattr(settings, key, scale[key])
    tuned = get_peft_model(model, settings)
    rank, start, trained = int(scale["r"]), {}, {}
    with safe_open(path / locate.ADAPTER_WEIGHTS, framework="pt") as file:
        names = file.keys()
        for name in names:
            tensor = file.get_tensor(name)
            if ".lora_A." in name:
                tensor, start[name] = tensor[:rank].clone(), tensor[rank:].clone()
            elif ".lora_B." in name:
                tensor, start[name] = tensor[:, :rank].clone(), -tensor[:, rank:]
            trained[name] = tensor
    modules = dict(tuned.named_modules())
    for name in [n for n in start if ".lora_A." in n]:
        layer, first = modules[name.partition(".lora_A.")[0]], start[name]
        weight = layer.get_base_layer().weight
        taken = layer.scaling[NAME] * start[name.replace(".lora_A.", ".lora_B.")] @ first
        weight.data = (weight.data.float() - taken.to(weight.device)).to(weight.dtype)
    set_peft_model_state_dict(tuned, trained, adapter_name=NAME)
    setattr(tuned, START, start)
    return tuned


def _plain(settings: LoraConfig) -> dict[str, Any]:
    """adapter_config.json: sets as sorted lists, so that equal adapters have equal files."""
    return {k: sorted(v) if isinstance(v, (set, frozenset)) else v for k, v in settings.to_dict().items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """PEFT warns about choices that were made here on purpose (tied embeddings, a missing base config)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield
