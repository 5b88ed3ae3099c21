"""A Go template for Ollama, derived from what the run's own template writes, and compared with it.

Nothing of the Jinja text is read: conversations of known words are rendered, and what stands between the
words is what the Go template has to write there. Whether it does is then seen on real prompts. Where it
fails on one of them there is no Go template, and Ollama takes the run's own from the GGUF file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier.errors import ExportError, TemplateError
from luthier.export import gotemplate
from luthier.types import Example, Message

if TYPE_CHECKING:
    from luthier.data.render import Renderer
    from luthier.export.cases import Case

_SYSTEM, _FIRST, _REPLY, _SECOND = "qzfsystemqzf", "qzffirstqzf", "qzfreplyqzf", "qzfsecondqzf"
_SHOWN = 10


@dataclass(frozen=True)
class Found:
    """text: the Go template, None where none is right on all prompts · verified: prompts that it, or the best
    that was tried, renders as training did · differs: (source of a prompt, where) for the others."""

    text: str | None
    verified: int
    differs: tuple[tuple[str, str], ...] = ()

    def report(self) -> dict[str, Any]:
        """For parity.json."""
        listed = [{"source": source, "where": where} for source, where in self.differs[:_SHOWN]]
        return {
            "template": "derived" if self.text is not None else "none",
            "verified": self.verified,
            "of": self.verified + len(self.differs),
            "differs": listed,
        }


def find(renderer: Renderer, asked: Sequence[Case], begin: str = "") -> Found:
    """The Go template that renders every prompt of `asked` as `renderer` does, if one can be derived.

    begin: a token that llama.cpp itself puts before each prompt, which the template therefore must not write.
    """
    try:
        parts = _parts(renderer, begin)
    except (TemplateError, ValueError) as error:
        return Found(None, 0, tuple((case.source, f"nothing can be derived: {error}") for case in asked))
    if not any(case.tools for case in asked) and _describes_tools(renderer):
        return Found(None, 0, (("tools", "they are described in words that Go cannot put together"),))
    best: Found | None = None
    for text in _candidates(parts):
        found = _verified(text, asked, begin)
        if found.text is not None:
            return found
        if best is None or found.verified > best.verified:
            best = found
    assert best is not None, "there is always a candidate"
    return best


def _describes_tools(renderer: Renderer) -> bool:
    """Whether the template has a place for tools, which a Go template without them would take from Ollama."""
    function = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}
    try:
        renderer.prompt_text([Message("user", "?")], [{"type": "function", "function": function}])
    except TemplateError:
        return False
    return True


# What is written around each turn


@dataclass(frozen=True)
class _Parts:
    """begin: at the very beginning · default: where there is no system message · system, user, assistant:
    before and after the text of such a turn · header: behind all, where the model begins to write · inside:
    the system text stands in the first user turn."""

    begin: str
    default: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    header: str
    inside: bool = False


def _parts(renderer: Renderer, begin: str) -> _Parts:
    """Raises TemplateError where the template refuses a plain conversation, ValueError where it changes its
    words."""
    first, reply, second = Message("user", _FIRST), Message("assistant", _REPLY), Message("user", _SECOND)

    def around(*messages: Message) -> list[str]:
        text = renderer.prompt_text(messages).removeprefix(begin)
        return _between(text, [message.content for message in messages])

    q = around(first, reply, second)
    if around(first)[1] != q[3]:
        raise ValueError("it ends a first question otherwise than a later one")
    shown, _ = renderer.show(Example((first,), ((reply,),)))
    after_reply = _common_start(q[2], shown.rpartition(_REPLY)[2])
    before_user = _common_end(q[0], q[2].removeprefix(after_reply))
    start = q[0].removesuffix(before_user)
    try:
        p = around(Message("system", _SYSTEM), first, reply, second)
    except TemplateError:  # it has no place for a system message
        p = [start, before_user]
    inside = not p[1].endswith(before_user) and p[0].startswith(start + before_user)
    head, system = start, (p[0].removeprefix(start + before_user), p[1])
    if not inside:
        before_user = _common_end(before_user, p[1])
        head = q[0].removesuffix(before_user)
        start = _common_start(p[0], head)
        system = p[0].removeprefix(start), p[1].removesuffix(before_user)
    after_user = _common_start(q[1], q[3])
    with suppress(
        TemplateError
    ):  # without two questions in a row, the header may as well belong to the first
        after_user = _common_start(after_user, around(first, second)[1].removesuffix(before_user))
    assistant = q[1].removeprefix(after_user), q[2].removesuffix(before_user)
    user, header = (before_user, after_user), q[3].removeprefix(after_user)
    return _Parts(start, head.removeprefix(start), system, user, assistant, header, inside)


def _between(text: str, words: Sequence[str]) -> list[str]:
    """What stands before, between and behind the words, each of which must be there once, in order."""
    found: list[str] = []
    for word in words:
        before, there, text = text.partition(word)
        if not there or word in text:
            raise ValueError(f"{word!r} is not written once, as it was said")
        found.append(before)
    return [*found, text]


def _common_start(a: str, b: str) -> str:
    return os.path.commonprefix([a, b])  # noqa: RUF071  # of characters is what is meant


def _common_end(a: str, b: str) -> str:
    return _common_start(a[::-1], b[::-1])[::-1]


# Texts of templates


def _candidates(parts: _Parts) -> Iterator[str]:
    """Go templates that may be right: with the system message above all, in its place, or in the first turn.

    Each has a second half for programs that know .System and .Prompt only.
    """
    if parts.inside:
        yield _whole(parts, _first_turn(parts))
        return
    yield _whole(parts, _above(parts))
    yield _whole(parts, _in_place(parts))


def _whole(parts: _Parts, messages: str) -> str:
    user, assistant, system = ((_said(a), _said(b)) for a, b in (parts.user, parts.assistant, parts.system))
    before = f"{{{{ if .System }}}}{system[0]}{{{{ .System }}}}{system[1]}"
    if parts.inside:
        one = f"{user[0]}{before}{{{{ end }}}}{{{{ .Prompt }}}}{user[1]}"
    else:
        default = f"{{{{ else }}}}{_said(parts.default)}" if parts.default else ""
        one = f"{before}{default}{{{{ end }}}}{user[0]}{{{{ .Prompt }}}}{user[1]}"
    header = _said(parts.header)
    return (
        f"{{{{ if .Messages }}}}{_said(parts.begin)}{messages}{header}"
        f"{{{{ else }}}}{_said(parts.begin)}{one}{header}{{{{ .Response }}}}{assistant[1]}{{{{ end }}}}"
    )


def _above(parts: _Parts) -> str:
    before, after = (_said(text) for text in parts.system)
    default = f"{{{{ else }}}}{_said(parts.default)}" if parts.default else ""
    head = (
        f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{default}{{{{ end }}}}"
        if any((*parts.system, parts.default))
        else ""
    )
    return f"{head}{{{{ range .Messages }}}}{_turns(parts)}{{{{ end }}}}"


def _in_place(parts: _Parts) -> str:
    before, after = (_said(text) for text in parts.system)
    default = (
        f'{{{{ if and (eq $i 0) (ne .Role "system") }}}}{_said(parts.default)}{{{{ end }}}}'
        if parts.default
        else ""
    )
    names = "$i, $message := " if parts.default else ""
    system = f'{{{{ if eq .Role "system" }}}}{before}{{{{ .Content }}}}{after}{{{{ end }}}}'
    return f"{{{{ range {names}.Messages }}}}{default}{system}{_turns(parts)}{{{{ end }}}}"


def _first_turn(parts: _Parts) -> str:
    before, after = (_said(text) for text in parts.system)
    inner = f'{{{{ if $system }}}}{before}{{{{ $system }}}}{after}{{{{ $system = "" }}}}{{{{ end }}}}'
    return f"{{{{ $system := .System }}}}{{{{ range .Messages }}}}{_turns(parts, inner)}{{{{ end }}}}"


def _turns(parts: _Parts, inner: str = "") -> str:
    """inner: what stands in a user turn before its text."""
    user, assistant = ((_said(a), _said(b)) for a, b in (parts.user, parts.assistant))
    return (
        f'{{{{ if eq .Role "user" }}}}{user[0]}{inner}{{{{ .Content }}}}{user[1]}'
        f'{{{{ else if eq .Role "assistant" }}}}{assistant[0]}{{{{ .Content }}}}{assistant[1]}{{{{ end }}}}'
    )


def _said(text: str) -> str:
    """A text in a template: itself, or a literal where Go or the Modelfile would read it wrongly."""
    plain = all(character.isprintable() or character == "\n" for character in text)
    if plain and "{{" not in text and '"""' not in text and not text.endswith("{"):
        return text
    return f"{{{{ {gotemplate.quoted(text)} }}}}"


# Compared with the real thing


def values(messages: Iterable[Message]) -> dict[str, Any]:
    """What Ollama hands to a template that knows .Messages: neighbours of one role are put together, and all
    system messages are in .System as well (template/template.go of Ollama)."""
    collated: list[dict[str, Any]] = []
    systems: list[str] = []
    for message in messages:
        if message.role == "system":
            systems.append(message.content)
        if collated and collated[-1]["Role"] == message.role != "tool":
            collated[-1]["Content"] += "\n\n" + message.content
        else:
            collated.append({"Role": message.role, "Content": message.content})
    return {"System": "\n\n".join(systems), "Messages": collated, "Response": ""}


def _verified(text: str, asked: Sequence[Case], begin: str) -> Found:
    """How far a template writes what training wrote."""
    run = gotemplate.parse(text)
    differs = []
    for case in asked:
        where = _difference(run, case, begin)
        if where:
            differs.append((case.source, where))
    return Found(None if differs else text, len(asked) - len(differs), tuple(differs))


def _difference(run: Callable[[Mapping[str, Any]], str], case: Case, begin: str) -> str:
    """ "" where the prompt is the same."""
    if not case.text.startswith(begin):
        return f"llama.cpp puts {begin!r} before it, training did not"
    wanted = case.text.removeprefix(begin)
    forms = [values(case.messages)]
    roles = [message.role for message in case.messages]
    system = case.messages[0].content if len(roles) == 2 else ""
    if roles == ["user"] or (roles == ["system", "user"] and system):  # .System cannot say that it is empty
        forms.append({"System": system, "Prompt": case.messages[-1].content, "Response": _REPLY})
    for form in forms:
        try:
            found = run(form).partition(_REPLY)[0]  # Ollama feeds what stands before .Response
        except ExportError as error:
            return str(error)
        if found != wanted:
            at = len(_common_start(wanted, found))
            part = slice(max(0, at - 12), at + 16)
            return f"at {at}: {wanted[part]!r} was trained, {found[part]!r} would be served"
    return ""
