"""The two systems that are compared: the base as it was before tuning, and the run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luthier.errors import UsageError
from luthier.infer import loading
from luthier.infer.loading import Ready
from luthier.runs import Run, atomic, hashing

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer

Side = Literal["before", "after"]
# What of a configuration decides which numbers a loaded model computes.
_KEYS = (
    *("model_revision", "infer_dtype", "quantization_bit", "quantization_method", "quantization_type"),
    *("double_quantization", "resize_vocab", "add_tokens", "add_special_tokens", "flash_attn"),
)
_WEIGHTS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json")


@dataclass(frozen=True)
class System:
    """side: which column of the report · identity: model and adapters with the sha256 of their weights, and
    what else decides their numbers."""

    side: Side
    config: Config
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        """In words: the model, with its adapters."""
        return " + ".join(map(str, (self.config.model_name_or_path, *self.config.adapter_name_or_path)))


def systems(config: Config, baseline: bool = False) -> tuple[System, ...]:
    """Before and after of a run; of a model that was not tuned here only "after".

    baseline: only the base, as "before". Raises UsageError where a whole tuned model does not say what its
    base was.
    """
    base = _base(config)
    if baseline:
        return (_system("before", base or config),)
    after = _system("after", config)
    return (_system("before", base), after) if base is not None else (after,)


def ask(
    found: tuple[System, ...], tokenizer: Any, renderer: Renderer, work: Callable[[System, Ready], None]
) -> None:
    """Load one system after the other, never two in memory, and give each to `work`.

    A run with one plain LoRA adapter is loaded once: without its adapter it computes the very numbers of its
    base. Both use the tokenizer and template of the run, so that they read the same prompts.
    """
    if len(found) == 2 and _switchable(found[1].config):
        ready = loading.model(found[1].config, tokenizer, renderer)
        with ready.engine.model.disable_adapter():  # type: ignore[attr-defined]
            work(found[0], ready)
        work(found[1], ready)
        return
    for system in found:
        ready = loading.model(system.config, tokenizer, renderer)
        work(system, ready)
        del ready
        _free()


def _system(side: Side, config: Config) -> System:
    places = [str(config.model_name_or_path), *map(str, config.adapter_name_or_path)]
    identity: dict[str, Any] = {name: getattr(config, name) for name in _KEYS}
    return System(side, config, {**identity, "weights": {place: _weights(Path(place)) for place in places}})


def _weights(place: Path) -> dict[str, str]:
    """File -> sha256; nothing for a model of a hub, which its name and revision identify."""
    if not place.is_dir():
        return {}
    files = sorted(path for pattern in _WEIGHTS for path in place.glob(pattern))
    return {path.name: hashing.cached(path) for path in files}


def _base(config: Config) -> Config | None:
    """The configuration of what was tuned, or None where nothing was."""
    if config.adapter_name_or_path:
        return config.replace(adapter_name_or_path=())
    if config.run is None:
        return None
    base = Run.open(config.run).marker.get("base")
    base = base.get("path") or base.get("name") if isinstance(base, dict) else base
    if not base:
        raise UsageError(f"{config.run}: does not say which base it was tuned from -> give a run that does")
    return config.replace(model_name_or_path=str(base))


def _switchable(config: Config) -> bool:
    """Whether the adapter, switched off, leaves the base's numbers exactly: one plain LoRA without biases."""
    if len(config.adapter_name_or_path) != 1:
        return False
    file = Path(config.adapter_name_or_path[0]) / "adapter_config.json"
    if not file.is_file():
        return False
    from luthier.model.methods.peft import chain

    adapter = atomic.read_json(file)
    plain = adapter.get("peft_type") == "LORA" and adapter.get("bias", "none") == "none"
    whole = not adapter.get("modules_to_save") and not adapter.get("trainable_token_indices")
    return plain and whole and len(chain(config.adapter_name_or_path, config)) == 1


def _free() -> None:
    """Give the memory of a model that nobody holds any more back, before the next one is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
