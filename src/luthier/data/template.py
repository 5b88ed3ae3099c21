"""Chat templates: one Jinja text per run, from the first token of training to the exported model.

A template is the tokenizer's own, a named one (the rows of templates/slots.yaml), a .jinja file, or the text
itself. Whatever is chosen beside it (default system message, thinking, history) is written into the text,
so that every program that renders the text later does as training did.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.data import jinja, named
from luthier.errors import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "template.jinja"
"""Name of the template's file in a run directory."""
_NOTE = re.compile(r"\A\{#- luthier (\{.*?\}) -#\}\n", re.DOTALL)
_KEPT = {"name", "stops", "replace_eos", "default_system", "thought", "bare"}
"""What the first line of a template of ours says."""
_THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class Template:
    """A chat template.

    text: the Jinja source · stops: texts that end a turn, the first being the end-of-turn token
    where `replace_eos` is set · thought: words around the reasoning (None: the template knows none) ·
    ours: one of the named templates, which follow `enable_thinking` and `history` themselves ·
    bare: turns end with nothing at all (template "empty") · place: where the text was found, for errors.
    """

    name: str
    text: str
    stops: tuple[str, ...] = ()
    replace_eos: bool = False
    default_system: str = ""
    thought: tuple[str, str] | None = None
    ours: bool = False
    bare: bool = False
    place: str = field(default="", compare=False)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        **values: Any,
    ) -> str:
        """The whole conversation as text (no tokens).

        Raises jinja.RenderProblem when the template refuses the conversation, TemplateError when it does
        what no template may.
        """
        values["add_generation_prompt"] = add_generation_prompt
        try:
            return jinja.render(
                self.text, [dict(m) for m in messages], [dict(t) for t in tools or ()], values
            )
        except TemplateError as error:
            raise TemplateError(f"{self.called}: {error}") from error

    @property
    def called(self) -> str:
        """The template as errors name it."""
        return self.place or f"template {self.name}"


def load(
    name: str | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    default_system: str | None = None,
    enable_thinking: bool | None = True,
    history: str = "as_trained",
    required: bool = True,
) -> Template:
    """Find a template.

    name: None or "tokenizer" (the one that comes with the tokenizer), a name, the path of a .jinja file, or
    Jinja text. default_system: system message of conversations that have none. required: without it, a
    tokenizer that has no template gives `empty` (pre-training needs none).
    Raises TemplateError when there is no such template, or it is not valid Jinja, or does what none may.
    """
    if name is None or name == "tokenizer":
        found = _own(tokenizer, required)
    elif name in named.names():
        found = _named(name)
    elif os.path.isfile(name):  # also where its name looks like Jinja
        found = _from_file(Path(name))
    elif "{%" in name or "{{" in name:
        found = _from_text(name, "text", "the text given as `template`")
    elif name.endswith((".jinja", ".j2", ".txt")):
        found = _from_file(Path(name))
    else:
        raise TemplateError(_unknown(name))
    try:
        jinja.compile_only(found.text)
    except TemplateError as error:
        raise TemplateError(f"{found.place}: {error}") from error
    return _settled(found, default_system, enable_thinking, history)


def _own(tokenizer: PreTrainedTokenizerBase, required: bool) -> Template:
    text = getattr(tokenizer, "chat_template", None)
    if isinstance(text, Mapping):
        text = text.get("default")
    if isinstance(text, str) and text:
        folder = getattr(tokenizer, "name_or_path", "")
        return _from_text(text, "tokenizer", f"template of the tokenizer{f' in {folder}' if folder else ''}")
    if not required:
        return _named("empty")
    raise TemplateError(
        "template: the tokenizer comes without a chat template, as base models often do. Say which to use "
        "-> template: default (plain text, for any base model), or the one that its family is known by, such "
        "as qwen, llama3, gemma or mistral"
    )


def _from_text(text: str, name: str, place: str) -> Template:
    """A template by its text; its name and how it stops are read from its first line if we wrote it."""
    note = _NOTE.match(text)
    if note:
        return Template(text=text, ours=True, place=place, **_noted(note[1], place))
    thought = _THINK if "enable_thinking" in text and _THINK[1] in text else None
    return Template(name, text, thought=thought, place=place)


def _noted(note: str, place: str) -> dict[str, Any]:
    """What `_settled` wrote into the first line. Anybody can write such a line, so it is checked."""
    try:
        kept = json.loads(note)
    except (ValueError, RecursionError):
        kept = {}
    if not _is_note(kept):
        raise TemplateError(
            f"{place}: its first line says that luthier wrote it, but is not what luthier writes; remove it"
        )
    thought = kept["thought"]
    return {**kept, "stops": tuple(kept["stops"]), "thought": (thought[0], thought[1]) if thought else None}


def _is_note(kept: object) -> bool:
    if not isinstance(kept, dict) or set(kept) != _KEPT:
        return False
    lists = [kept["stops"], kept["thought"] or []]
    return (
        all(isinstance(kept[key], str) for key in ("name", "default_system"))
        and all(isinstance(kept[key], bool) for key in ("replace_eos", "bare"))
        and all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists)
        and len(lists[1]) in (0, 2)
    )


def _from_file(path: Path) -> Template:
    try:
        return _from_text(path.read_text(encoding="utf-8"), path.name, f"template {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"template: {path} cannot be read: {error}") from error


def _named(name: str) -> Template:
    row = named.names()[name]
    text = named.text(name)
    if row.endswith(".jinja"):
        return _from_text(text, name, f"template {name}")
    slots = named.slots(name)
    return Template(
        name,
        text,
        slots.stops,
        slots.replace_eos,
        slots.default_system,
        slots.thought,
        ours=True,
        bare=row == "empty",
        place=f"template {name}",
    )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, named.names(), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return (
        f"template: there is no template {name!r}{hint} Leave `template` out to use the tokenizer's own, "
        "or give the path of a .jinja file"
    )


def _settled(template: Template, system: str | None, thinking: bool | None, history: str) -> Template:
    """Write the choices into the text. A text that already carries its choices keeps them."""
    if _NOTE.match(template.text):
        return template
    lines: list[str] = []
    if system is not None and template.ours:
        lines.append(f"{{%- set default_system = {json.dumps(system, ensure_ascii=False)} %}}")
    elif system:
        lines.append(
            "{%- if not messages or messages[0]['role'] != 'system' %}"
            f"{{%- set messages = [{{'role': 'system', 'content': {json.dumps(system, ensure_ascii=False)}}}]"
            " + messages %}{%- endif %}"
        )
    if template.thought and thinking is False:
        lines.append("{%- set enable_thinking = enable_thinking | default(false) %}")
    if template.thought and template.ours and history == "as_template":
        lines.append('{%- set history = "as_template" %}')
    note = ""
    if template.ours:
        kept = {
            "name": template.name, "stops": template.stops, "replace_eos": template.replace_eos,
            "default_system": template.default_system if system is None else system,
            "thought": template.thought, "bare": template.bare,
        }  # fmt: skip
        note = f"{{#- luthier {json.dumps(kept, ensure_ascii=False)} -#}}\n"
    missing = [line for line in lines if line not in template.text]
    text = note + "".join(line + "\n" for line in missing) + template.text
    return replace(template, text=text, default_system=template.default_system if system is None else system)


def prepare_tokenizer(template: Template, tokenizer: PreTrainedTokenizerBase, add: bool = False) -> list[str]:
    """Make the tokenizer stop, pad and render as the template says; returns what was done, in words.

    add: tokens that the vocabulary lacks may be added (`resize_vocab: true`); otherwise they stay text.
    Raises TemplateError when nothing can end a text.
    """
    notes: list[str] = []
    vocabulary = tokenizer.get_vocab()
    missing = [stop for stop in template.stops if stop not in vocabulary]
    if missing and add:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": missing}, replace_extra_special_tokens=False
        )
        notes.append(f"added to the vocabulary for template {template.name}: {' '.join(missing)}")
    elif missing:
        notes.append(
            f"template {template.name} ends turns with {' '.join(missing)}, which the tokenizer does not "
            "know as a token: it is written as plain text. Choose the model's own template, or resize_vocab: "
            "true to add it"
        )
    present = [stop for stop in template.stops if stop not in missing or add]
    if template.replace_eos and template.stops[0] in present and tokenizer.eos_token != template.stops[0]:
        notes.append(
            f"end of text is now {template.stops[0]} (was {tokenizer.eos_token}), as template "
            f"{template.name} has it"
        )
        tokenizer.eos_token = template.stops[0]
    if tokenizer.eos_token is None:
        tokenizer.eos_token = _some_end(template, present, vocabulary)
        notes.append(f"the tokenizer names no end of text: {tokenizer.eos_token} is used")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    unmarked = [stop for stop in present if stop not in tokenizer.all_special_tokens]
    if unmarked:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": unmarked}, replace_extra_special_tokens=False
        )
    if not template.bare:  # pre-training needs no template, and must not leave one behind
        tokenizer.chat_template = template.text
    return notes


def _some_end(template: Template, present: Sequence[str], vocabulary: Mapping[str, int]) -> str:
    for token in (*present, "<|endoftext|>", "</s>"):
        if token in vocabulary:
            return token
    raise TemplateError(
        f"template {template.name}: the tokenizer has no end-of-text token and knows none of the template's "
        f"({' '.join(template.stops) or 'none'}), so no reply would ever end; add one with add_special_tokens"
    )
