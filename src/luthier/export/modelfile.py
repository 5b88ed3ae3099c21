"""The Modelfile with which Ollama imports an exported file: `ollama create NAME -f Modelfile`.

What may stand in one, and how it is read: https://docs.ollama.com/modelfile and Ollama's parser/parser.go.
Quoted values may have many lines; there are no escapes; characters that do not print are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.config import KEYS
from luthier.errors import TemplateError
from luthier.export import derived
from luthier.gguf import read
from luthier.runs import Run
from luthier.runs.run import RESOLVED
from luthier.types import Message

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer
    from luthier.export.cases import Case

CONTEXT = 4096
"""Ollama's own num_ctx: less than that is asked for only where the model reads less."""
REQUIRES = "0.30.0"
"""The first Ollama that runs the chat template of the GGUF file itself."""
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING", "NOTICE")
_LONGEST = 200_000  # characters of a licence
_QUOTES = '"""'
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repeat_penalty",
}
"""Key of ours -> Ollama's parameter."""


@dataclass(frozen=True)
class Modelfile:
    """What to say to Ollama.

    source: a GGUF file or a directory, seen from the Modelfile · stops: texts of all tokens that end a turn ·
    context: tokens of prompt and answer together · trained, longest: tokens that an example had at most, that
    the model reads · adapter: a LoRA as GGUF · sampling: Ollama's names -> numbers · template: in Go's words.
    """

    source: str
    stops: Sequence[str] = ()
    context: int = CONTEXT
    trained: int | None = None
    longest: int | None = None
    adapter: str = ""
    sampling: Mapping[str, float] = field(default_factory=dict)
    system: str = ""
    template: str = ""
    licences: Sequence[str] = ()

    def text(self) -> str:
        """The file. Raises ValueError for a text that a Modelfile cannot hold (see `said`)."""
        lines = [f"FROM {self.source}"]
        lines += [f"ADAPTER {self.adapter}"] if self.adapter else []
        lines += [f"REQUIRES {REQUIRES}", ""]
        lines += [f"# {self._about()}", f"PARAMETER num_ctx {self.context}"]
        lines += [f"PARAMETER stop {said(stop, short=True)}" for stop in dict.fromkeys(self.stops)]
        lines += [f"PARAMETER {name} {value:g}" for name, value in self.sampling.items()]
        for name, text in (("TEMPLATE", self.template), ("SYSTEM", self.system)):
            lines += ["", f"{name} {said(text)}"] if text else []
        for licence in self.licences:
            lines += ["", f"LICENSE {said(licence)}"]
        return "\n".join(lines) + "\n"

    def _about(self) -> str:
        told = [f"trained on up to {self.trained} tokens"] if self.trained else []
        told += [f"the model reads {self.longest}"] if self.longest else []
        return "; ".join(["tokens of prompt and answer together", *told])


def said(text: str, short: bool = False) -> str:
    """A value, quoted so that Ollama reads `text` from it. Raises ValueError where no quoting does."""
    lost = next((c for c in text if not c.isprintable() and c not in "\n\r\t"), None)
    if lost is not None:
        raise ValueError(f"a Modelfile loses the character U+{ord(lost):04X}")
    if short and not set(text) & set('"\n\r'):
        return f'"{text}"'
    if any(line.rstrip(" \t").endswith(_QUOTES) for line in re.split("[\n\r]", text)[:-1]):
        raise ValueError(f"a value in a Modelfile ends with a line that ends with {_QUOTES}")
    return f"{_QUOTES}{text}{_QUOTES}"


def text(stops: Iterable[str], longest: int | None, system: str | None = None, *, source: str = ".") -> str:
    """The Modelfile of a model that no prompts were tried on. The arguments are those of `Modelfile`."""
    try:
        said(system or "")
    except ValueError:
        system = None  # the model's own template says it
    return Modelfile(
        source, tuple(stops), context(None, longest), longest=longest, system=system or ""
    ).text()


def stops(renderer: Renderer) -> list[str]:
    """Texts of everything that ends a turn."""
    ends = renderer.tokenizer.convert_ids_to_tokens(sorted(renderer.stop_ids))
    return [*(str(end) for end in ends), *renderer.stop_strings]


def of(
    file: Path, config: Config, renderer: Renderer, asked: Sequence[Case]
) -> tuple[Modelfile, dict[str, Any], list[str]]:
    """The Modelfile of a GGUF file; what parity.json says about its template; and notes.

    asked: the prompts on which a Go template is tried. Raises ModelError for a damaged file.
    """
    header = read.header(file)
    longest = int(header.metadata[f"{header.architecture}.context_length"])
    trained = config.cutoff_len if config.run is not None else None
    found = derived.find(renderer, asked, begins(header.metadata))
    system, notes = _system(config, renderer)
    licences, more = licence(config)
    made = Modelfile(
        source=f"./{file.name}",
        stops=stops(renderer),
        context=context(trained, longest),
        trained=trained,
        longest=longest,
        sampling=sampling(config),
        system=system,
        template=found.text or "",
        licences=licences,
    )
    return made, found.report(), [*_why(found), *notes, *more]


def context(trained: int | None, longest: int | None) -> int:
    """num_ctx. No prompt that training saw is cut, a chat has the room that Ollama gives any other model, and
    the model is not asked to read more than it can."""
    wanted = max(trained or 0, CONTEXT)
    return min(wanted, longest) if longest else wanted


def begins(metadata: Mapping[str, Any]) -> str:
    """The text of the token that llama.cpp puts before each text by itself, "" where it puts none."""
    first = metadata.get("tokenizer.ggml.bos_token_id")
    if not metadata.get("tokenizer.ggml.add_bos_token") or first is None:
        return ""
    return str(metadata["tokenizer.ggml.tokens"][int(first)])


def sampling(config: Config) -> dict[str, float]:
    """How the user wants answers to be drawn, said now or for the run, in Ollama's words."""
    kept = Run.open(config.run).read_json(RESOLVED) if config.run is not None else {}
    told = {
        key: kept[key]
        for key in (*_SAMPLING, "do_sample")
        if kept.get(key, KEYS[key].default) != KEYS[key].default
    }
    told |= {key: getattr(config, key) for key in (*_SAMPLING, "do_sample") if config.is_set(key)}
    found = {theirs: float(told[ours]) for ours, theirs in _SAMPLING.items() if ours in told}
    return found | ({"temperature": 0.0} if told.get("do_sample") is False else {})


def _why(found: derived.Found) -> list[str]:
    if found.text is not None:
        return []
    source, where = found.differs[0]
    return [
        f"Modelfile: no TEMPLATE, as Go's language would write {len(found.differs)} of"
        f" {found.verified + len(found.differs)} prompts otherwise, such as {source} ({where});"
        f" Ollama {REQUIRES} and newer run the template in the file, which is the one of training"
    ]


def _system(config: Config, renderer: Renderer) -> tuple[str, list[str]]:
    """SYSTEM: the run's system message, where saying it changes no prompt, or where it was asked for."""
    system = config.system or config.default_system or ""
    if not system:
        return "", []
    question = Message("user", "?")
    try:
        said(system)
        same = renderer.prompt_text([Message("system", system), question]) == renderer.prompt_text([question])
    except (ValueError, TemplateError) as error:
        return "", [f"Modelfile: no SYSTEM ({error}); the template writes what it was trained to write"]
    if not same and system == renderer.template.default_system:
        return "", ["Modelfile: no SYSTEM, as the template says it by itself, in its own way"]
    return system, []


def licence(config: Config) -> tuple[list[str], list[str]]:
    """The base's licence, from the files that lie with it; and a note where there is none to be found."""
    folder = Path(str(config.model_name_or_path))
    for name in _LICENCES if folder.is_dir() else ():
        if (folder / name).is_file():
            return _kept((folder / name).read_text("utf-8", "replace")[:_LONGEST], f"{folder / name}")
    card = folder / "README.md"
    front = _FRONT.match(card.read_text("utf-8", "replace")[:_LONGEST]) if card.is_file() else None
    told = re.findall(r"^(license(?:_name|_link)?): *(\S.*)$", front[1] if front else "", re.MULTILINE)
    if told:
        return _kept("\n".join(f"{key}: {value}" for key, value in told), f"{card}")
    return [], [f"Modelfile: no LICENSE, as none lies with {config.model_name_or_path}"]


def _kept(text: str, place: str) -> tuple[list[str], list[str]]:
    clean = "".join(c for c in text if c.isprintable() or c in "\n\t").strip()
    try:
        said(clean)
    except ValueError as error:
        return [], [f"Modelfile: no LICENSE ({place}: {error})"]
    return [clean], []
