"""The Modelfile with which Ollama imports an exported directory: `ollama create NAME -f Modelfile`."""

from __future__ import annotations

from collections.abc import Iterable

CONTEXT = 4096


def text(stops: Iterable[str], longest: int | None, system: str | None = None, *, source: str = ".") -> str:
    """FROM `source`, what ends a turn, and the context length.

    source: a GGUF file, or the directory of the Modelfile · stops: texts of the end tokens · longest: tokens
    that the model can read. There is no TEMPLATE: Ollama takes the chat template that lies with the model,
    which is the one of training.
    """
    lines = [f"FROM {source}", ""]
    if system and '"""' not in system:
        lines += [f'SYSTEM """{system}"""', ""]
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in dict.fromkeys(stops)]
    lines.append(f"PARAMETER num_ctx {min(CONTEXT, longest or CONTEXT)}")
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
