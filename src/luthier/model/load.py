"""From a Config to a tokenizer and a base model; the methods then attach what is trained."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from luthier.errors import ModelError
from luthier.model import files, locate, machine, quantize, quiet, trust, vocabulary
from luthier.model.seeds import seeded

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from luthier.config import Config

log = logging.getLogger(__name__)

ATTENTION = {
    "auto": None,
    "disabled": "eager",
    "sdpa": "sdpa",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def tokenizer(config: Config) -> PreTrainedTokenizerBase:
    """The tokenizer of the last adapter if it was kept with it, else the base's; added tokens included.

    Raises ModelError when there is none or the hub cannot be reached.
    """
    from transformers import AutoTokenizer

    quiet.libraries()
    name = locate.tokenizer(_tokenizer_source(config), config)
    trust.tokenizer(name, config)
    with locate.explained(name):
        found = AutoTokenizer.from_pretrained(name, padding_side="right", **locate.hub_options(config))
        if not config.trust_remote_code:
            trust.forget(found)
    vocabulary.add_tokens(found, config)
    if found.pad_token is None and found.eos_token is not None:
        found.pad_token = found.eos_token
    return found


_tokenizer = tokenizer  # `model` has a parameter of that name


def _tokenizer_source(config: Config) -> str:
    """An adapter trained with added tokens can only be used with the tokenizer that has them."""
    for name in reversed(config.adapter_name_or_path):
        path = Path(name)
        if path.is_dir() and locate.has_tokenizer(path):
            return name
    return str(config.model_name_or_path)


def dtype(config: Config, training: bool) -> torch.dtype:
    """In which the weights are held: training by bf16, fp16, pure_bf16; otherwise by infer_dtype.

    `infer_dtype: auto` is the base's own dtype on an accelerator and float32 on a CPU, where half
    precision saves memory but is slower.
    """
    if training:
        if config.bf16 or config.pure_bf16:
            return torch.bfloat16
        return torch.float16 if config.fp16 else torch.float32
    if config.infer_dtype != "auto":
        return DTYPES[config.infer_dtype]
    found = machine.detect()
    if found.device == "cpu":
        return torch.float32
    own = getattr(settings(config), "dtype", None) or torch.float32
    return torch.float16 if own is torch.bfloat16 and not found.bf16 else own


def settings(config: Config) -> PretrainedConfig:
    """The architecture's configuration (config.json) as it is on disk or on the hub."""
    from transformers import AutoConfig

    quiet.libraries()
    name = locate.model(str(config.model_name_or_path), config)
    trust.model(name, config)
    with locate.explained(name):
        found = AutoConfig.from_pretrained(name, **locate.hub_options(config))
        if not config.trust_remote_code:
            trust.forget(found)
    return found


def model(
    config: Config,
    dtype: torch.dtype,
    training: bool,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """The base model on the CPU (quantized ones on this process's device), nothing attached yet.

    tokenizer: needed only where tokens were added; loaded when not given.
    Raises ModelError, MissingPackage.
    """
    name = locate.model(str(config.model_name_or_path), config)
    architecture = settings(config)
    with locate.explained(name):
        architecture.get_text_config().use_cache = not training
        if training and config.train_from_scratch:
            built = _build(architecture, config, dtype)
        else:
            built = _read(name, architecture, config, dtype)
    if vocabulary.grows(config):
        vocabulary.resize(built, tokenizer or _tokenizer(config), config.seed)
    _sampling_flag(built)
    quantize.check(built)
    if training:
        quantize.keep_layout(built)
    built.name_or_path = str(config.model_name_or_path)
    return built.train(training)


def _build(architecture: PretrainedConfig, config: Config, dtype: torch.dtype) -> PreTrainedModel:
    """A model with random weights that depend on `seed` alone (train_from_scratch)."""
    from transformers import AutoModelForCausalLM

    with seeded(config.seed):
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            architecture, trust_remote_code=bool(config.trust_remote_code), **_attention(config, architecture)
        )
    return made.to(dtype)


def _read(name: str, architecture: PretrainedConfig, config: Config, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {
        **locate.hub_options(config),
        **_attention(config, architecture),
        "dtype": dtype,
    }
    if getattr(architecture, "quantization_config", None) is not None:
        if config.quantization_bit is not None:
            log.warning("quantization_bit has no effect: %s is quantized already", name)
    else:
        quantization = quantize.settings(config, dtype)
        if quantization is not None:
            options |= {"quantization_config": quantization, "device_map": {"": machine.device()}}
    if Path(name).is_dir():
        files.weights(Path(name), getattr(architecture, "transformers_weights", None))
    found, report = AutoModelForCausalLM.from_pretrained(
        name, config=architecture, use_safetensors=True, output_loading_info=True, **options
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{name}: its files lack {len(missing)} of the weights that config.json asks for "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}); they would be "
            "random. Copy the model again, whole"
        )
    loaded: PreTrainedModel = found
    return loaded


def _attention(config: Config, architecture: PretrainedConfig) -> dict[str, str]:
    """transformers' name for `flash_attn`; a kernel that is not installed gives way to sdpa, said aloud.

    With `auto` that of config.json; but nothing is fetched from a hub of kernels because that file says so.
    """
    chosen = ATTENTION[str(config.flash_attn)] or getattr(architecture, "_attn_implementation", None)
    package = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}.get(
        chosen or ""
    )
    if package and importlib.util.find_spec(package) is None:
        log.warning('flash_attn: %s needs the package "%s"; using sdpa', chosen, package)
        chosen = "sdpa"
    return {"attn_implementation": chosen} if chosen else {}


def _sampling_flag(model: PreTrainedModel) -> None:
    """Some published generation configs set a temperature but not do_sample; saving such a one fails."""
    generation = model.generation_config
    if generation is None or generation.do_sample:
        return
    neutral = {"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0}
    if any(getattr(generation, key, None) not in (None, value) for key, value in neutral.items()):
        generation.do_sample = True
