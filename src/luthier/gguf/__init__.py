"""From a model directory to one GGUF file: metadata, vocabulary, chat template and weights.

The `gguf` package knows the names of keys and tensors and writes the container; which model is what, and what
its weights have to become, is said in `architectures` and `tensors`. See docs/export.md for what is covered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from luthier.gguf import architectures, tensors, vocabulary, write
from luthier.gguf.write import Say
from luthier.streams import say as to_stderr

Kind = Literal["f32", "f16", "bf16"]


def convert(
    folder: Path, out: Path, dtype: Kind = "f16", *, template: str | None = None, say: Say | None = None
) -> Path:
    """Write the model in `folder` as `out`; returns `out`.

    template: the chat template to keep with it, else the tokenizer's own · dtype: of the matrices; what is
    added or multiplied elementwise is float32. Memory holds some
    megabytes, or a tensor whose rows are moved. Raises ExportError for a
    model, tokenizer or pre-tokenizer that GGUF cannot say, RunError where the disk has too little room.
    """
    say = say or to_stderr
    config = settings(folder)
    one = architectures.of(config)
    numbers, notes = architectures.metadata(config, one)
    weights = tensors.Weights(folder)
    words = vocabulary.read(folder, int(weights.shape("model.embed_tokens.weight")[0]), template)
    fields: dict[str, Any] = {
        "general.name": _name(folder.name, words.strips),
        "general.file_type": write.FILE_TYPE[dtype],
        "general.quantization_version": 2,
        **{f"{one.name}.{key}": value for key, value in numbers.items()},
        **words.fields,
    }
    for note in (*notes, *words.notes):
        say(f"note: {note}")
    write.write(out, one.name, fields, tensors.plan(weights, config, one, dtype), say)
    return out


def _name(name: str, strips: bool) -> str:
    """A name that makes llama.cpp treat blanks after special tokens as the tokenizer does."""
    if vocabulary.strips(name) == strips:
        return name
    return f"{name} (phi-3)" if strips else "model"


def settings(folder: Path) -> Any:
    """The configuration of the language model in `folder`."""
    from luthier.config import Config
    from luthier.model import load as loading

    return loading.settings(Config(model_name_or_path=str(folder))).get_text_config()
