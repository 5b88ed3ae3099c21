"""From a Config to something that can answer: tokenizer, renderer and engine, on this machine's device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier.infer import engine
from luthier.infer.engine import Engine, Generation

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer


@dataclass(frozen=True)
class Ready:
    """A loaded model with everything that talking to it needs. about: what was loaded, in one line."""

    config: Config
    tokenizer: Any
    renderer: Renderer
    engine: Engine
    about: str = ""

    def generation(self, do_sample: bool | None = None) -> Generation:
        """The decoding that the config asks for; `do_sample` overrides it where it is not None."""
        return engine.generation(self.config, self.renderer, do_sample)


def text(config: Config, say: Callable[[str], None]) -> tuple[Any, Renderer]:
    """Tokenizer and renderer of a request: all that can fail cheaply. `say` hears what was adapted."""
    from luthier.data.render import Renderer
    from luthier.model import load

    tokenizer = _of_gguf(config) if is_gguf(config) else load.tokenizer(config)
    renderer = Renderer.of(config, tokenizer)
    for note in renderer.notes:
        say(f"note: {note}")
    return tokenizer, renderer


def model(config: Config, tokenizer: Any, renderer: Renderer) -> Ready:
    """Load the base and its adapters; nothing is trainable. Raises ModelError, MissingPackage."""
    if is_gguf(config):
        return _llama_cpp(config, tokenizer, renderer)
    from transformers.utils import logging

    from luthier.model import load, machine, methods

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    dtype = load.dtype(config, training=False)
    base = load.model(config, dtype, training=False, tokenizer=tokenizer)
    found = methods.prepare(base, config, training=False)
    if not getattr(base, "is_quantized", False):
        found.to(machine.device())  # type: ignore[arg-type]
    adapters = ", ".join(map(str, config.adapter_name_or_path)) or "none"
    about = (
        f"base {config.model_name_or_path} · adapter {adapters} · template {renderer.template.name}"
        f" · {str(dtype).removeprefix('torch.')} on {machine.device()}"
    )
    return Ready(config, tokenizer, renderer, engine_of(found, tokenizer, config), about)


def is_gguf(config: Config) -> bool:
    """Whether the model is a GGUF file, which llama.cpp answers for."""
    return str(config.model_name_or_path).endswith(".gguf")


def _of_gguf(config: Config) -> Any:
    from luthier.gguf import tokenizer

    return tokenizer.tokenizer(str(config.model_name_or_path))


def _llama_cpp(config: Config, tokenizer: Any, renderer: Renderer) -> Ready:
    """llama.cpp with the file; its process ends with ours."""
    from luthier.infer.llama_cpp import LlamaCpp

    opened = LlamaCpp(str(config.model_name_or_path))
    about = f"{config.model_name_or_path} by llama.cpp · template {renderer.template.name}"
    return Ready(config, tokenizer, renderer, opened, about)


def engine_of(model: Any, tokenizer: Any, config: Config) -> Engine:
    """The engine around a loaded model. A batch size that nobody asked for is left to memory."""
    given = config.per_device_eval_batch_size if config.is_set("per_device_eval_batch_size") else None
    return engine.find("hf")(model, tokenizer, batch_size=given)
