"""Chat templates run in a sandbox with limits; what they write is what transformers would render.

Templates come from strangers, so they see plain data only, may not call into Python, and may not use up time
or memory (`jinja_sandbox`, `jinja_budget`). `watched` reads a template's syntax tree and says which texts it
looks for inside messages; a message without them is written verbatim, which lets the renderer reuse the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.exceptions import TemplateError as JinjaError

from luthier.data.jinja_budget import OUTPUT, Budget, Rendering, refused
from luthier.data.jinja_sandbox import Sandbox
from luthier.errors import TemplateError

Plain = dict[str, Any]
LONGEST = 1_000_000
"""Characters of a template's text."""
_WORDS, _HANDED_ON = 1000, 20
_DIGITS = re.compile(r"\d[\d_]*")


class RenderProblem(Exception):
    """The template refuses this conversation, or fails on it; the message is the template's own."""


@lru_cache(maxsize=1)
def environment() -> Sandbox:
    return Sandbox()


@lru_cache(maxsize=32)
def _compiled(text: str) -> Template:
    if len(text) > LONGEST:
        raise refused(f"is too long: {len(text):,} characters, and {LONGEST:,} are the most")
    if max(map(len, _DIGITS.findall(text)), default=0) > _WORDS:
        raise refused(f"holds a number of more than {_WORDS:,} digits")
    try:
        return environment().from_string(text)
    except TemplateSyntaxError as error:
        raise TemplateError(
            f"the chat template is not valid Jinja: line {error.lineno}: {_words(error.message)}"
        ) from error
    except TemplateError:
        raise
    except (RecursionError, MemoryError, SyntaxError) as error:
        raise refused("is nested too deeply") from error
    except Exception as error:  # whatever a stranger's text brings about is said of the text
        raise TemplateError(f"the chat template is not valid Jinja: {_words(error)}") from error


def _words(message: object) -> str:
    """A stranger's words, fit to be printed: of a sensible length, and nothing that steers a terminal."""
    text = str(message)
    shown = "".join([c if c.isprintable() or c == "\n" else "\ufffd" for c in text[:_WORDS]])
    return shown + " [...]" if len(text) > _WORDS else shown


def compile_only(text: str) -> None:
    """Raises TemplateError when `text` is not valid Jinja, or uses what no chat template may."""
    _compiled(text)


def render(
    text: str, messages: Sequence[Plain], tools: Sequence[Plain] | None, values: Mapping[str, Any]
) -> str:
    """The conversation as text.

    Raises RenderProblem with the template's own words when it refuses this conversation or fails on it, and
    TemplateError when the template does what none may: reach into Python, use up time or memory.
    """
    template = _compiled(text)
    given = {**values, "messages": list(messages), "tools": list(tools) if tools else None}
    context = template.new_context(given)
    assert isinstance(context, Rendering)
    context.budget = budget = Budget(given)
    try:
        rendered = "".join(template.root_render_func(context))
    except TemplateError:
        raise
    except SecurityError as error:
        raise refused(f"reaches for what is none of its business: {_words(error.message)}") from error
    except RecursionError as error:
        raise refused("calls itself too deeply") from error
    except MemoryError as error:
        raise refused("needs more memory than there is") from error
    except JinjaError as error:
        raise RenderProblem(_words(error.message or type(error).__name__)) from error
    except Exception as error:  # the template is a program of its own: how it fails is its business
        raise RenderProblem(f"the template fails: {_words(error)}") from error
    if len(rendered) > OUTPUT:
        budget.extend()
        if len(rendered) > budget.output:
            raise refused(f"writes too much: {len(rendered):,} characters for one conversation")
    return rendered


@dataclass(frozen=True)
class Watched:
    """What a template looks for in messages.

    verbatim: messages without any of these are written as they are (up to spaces at their ends).
    inside: texts searched for anywhere · whole: texts that a message is compared to.
    """

    verbatim: bool
    inside: tuple[str, ...] = ()
    whole: frozenset[str] = frozenset()


_METHODS = {
    "strip", "lstrip", "rstrip", "split", "rsplit", "startswith", "endswith", "replace", "find", "get",
    "items", "keys", "values", "append", "upper", "lower", "title", "capitalize", "removeprefix",
    "removesuffix", "partition",
}  # fmt: skip
_STRIPS = {"strip", "lstrip", "rstrip", "trim"}
_FILTERS = {
    "trim", "tojson", "default", "d", "string", "safe", "list", "join", "replace", "upper", "lower",
    "capitalize", "title", "items", "dictsort", "selectattr", "rejectattr", "map", "select", "reject",
}  # fmt: skip
_COUNTS = {"length", "count", "first", "last"}
_CALLS = {"raise_exception", "strftime_now", "namespace", "range", "dict", "caller"}


@lru_cache(maxsize=32)
def watched(text: str) -> Watched:
    """Read the syntax tree of a template; anything unknown makes it not verbatim (slower, never wrong)."""
    tree = environment().parse(text)
    held = _holders(tree)
    if held is None:
        return Watched(False)
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    inside: set[str] = set()
    whole: set[str] = set()
    for node in tree.find_all(
        (nodes.Call, nodes.Filter, nodes.Compare, nodes.Getitem, nodes.Test, nodes.For)
    ):
        if not _known(node, held, macros):
            return Watched(False)
        if isinstance(node, nodes.Compare):
            for operand in node.ops:
                (whole if operand.op in ("eq", "ne") else inside).update(_strings(node))
        elif isinstance(node, (nodes.Call, nodes.Filter)):
            inside.update(_argument_strings(node))
        elif isinstance(node, nodes.Test):
            whole.update(_strings(node))
    return Watched(True, tuple(sorted(s for s in inside if s.strip())), frozenset(whole))


def _strings(node: nodes.Node) -> Iterator[str]:
    for const in (node, *node.find_all(nodes.Const)):
        if isinstance(const, nodes.Const) and isinstance(const.value, str):
            yield const.value


def _argument_strings(node: nodes.Call | nodes.Filter) -> Iterator[str]:
    """Texts that a method or filter is given; functions and macros do nothing with them by themselves."""
    name = node.name if isinstance(node, nodes.Filter) else getattr(node.node, "attr", None)
    if name is None or name in ("default", "d", "selectattr", "rejectattr", "map"):
        return
    for argument in node.args:
        for value in _strings(argument):
            yield from set(value) if name in _STRIPS else {value}


def _mentions(node: nodes.Node, held: set[str]) -> bool:
    """Whether an expression is, or contains, the text of a message."""
    for inner in (node, *node.find_all((nodes.Name, nodes.Getattr, nodes.Getitem))):
        if isinstance(inner, nodes.Name) and inner.name in held:
            return True
        if isinstance(inner, nodes.Getattr) and (inner.attr == "content" or f".{inner.attr}" in held):
            return True
        if (
            isinstance(inner, nodes.Getitem)
            and isinstance(inner.arg, nodes.Const)
            and inner.arg.value == "content"
        ):
            return True
    return False


def _holders(tree: nodes.Template) -> set[str] | None:
    """Names of variables (and ".name" of namespace attributes) that may hold the text of a message.

    None when they are handed on through more names than a template for people would need.
    """
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    held: set[str] = set()
    for _ in range(_HANDED_ON):
        before = len(held)
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name in macros:
                held.update(_parameters(call, macros[call.node.name], held))
        for assign in tree.find_all(nodes.Assign):
            if _mentions(assign.node, held):
                held.update(_targets(assign.target))
        for loop in tree.find_all(nodes.For):
            if _mentions(loop.iter, held):
                held.update(_targets(loop.target))
        if len(held) == before:
            return held
    return None


def _parameters(call: nodes.Call, macro: nodes.Macro, held: set[str]) -> Iterator[str]:
    """Which parameters of a macro are given the text of a message in this call."""
    for given, parameter in zip(call.args, macro.args, strict=False):
        if _mentions(given, held):
            yield parameter.name
    for named in call.kwargs:
        if _mentions(named.value, held):
            yield named.key


def _targets(node: nodes.Node) -> set[str]:
    names = {n.name for n in (node, *node.find_all(nodes.Name)) if isinstance(n, nodes.Name)}
    return names | {f".{n.attr}" for n in (node, *node.find_all(nodes.NSRef)) if isinstance(n, nodes.NSRef)}


def _known(node: nodes.Node, held: set[str], macros: set[str]) -> bool:
    """Whether what this node does with a message's text is accounted for."""
    if isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            return node.node.attr in _METHODS
        return isinstance(node.node, nodes.Name) and (node.node.name in _CALLS or node.node.name in macros)
    if isinstance(node, nodes.Filter):
        if node.name in _COUNTS:
            return node.node is None or not _mentions(node.node, held)
        return node.name in _FILTERS
    if isinstance(node, nodes.Getitem):
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return True
        base = node.node
        return isinstance(base, nodes.Call) or not _is_text(base, held)
    if isinstance(node, nodes.Compare):
        ordered = any(operand.op in ("lt", "gt", "lteq", "gteq") for operand in node.ops)
        return not (ordered and _mentions(node, held))
    return True


def _is_text(node: nodes.Node, held: set[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in held
    if isinstance(node, nodes.Getattr):
        return node.attr == "content" or f".{node.attr}" in held
    return (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    )
