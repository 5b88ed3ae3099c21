"""Chat templates run in a sandbox: the same environment that transformers renders them in.

Templates come from strangers, so they see plain data only and may not call into Python. `watched` reads a
template's syntax tree and says which texts it looks for inside messages; a message without them is
written verbatim, which lets the renderer reuse the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from luthier.errors import TemplateError

Plain = dict[str, Any]


class RenderProblem(Exception):
    """The template refuses this conversation, or fails on it; the message is the template's own."""


class _Generation(Extension):
    """`{% generation %}` marks what the model writes; masks are found without it, so only its body counts."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> str:
    raise JinjaError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


@lru_cache(maxsize=1)
def environment() -> ImmutableSandboxedEnvironment:
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    sandbox.filters["tojson"] = _tojson
    sandbox.globals["raise_exception"] = _raise
    sandbox.globals["strftime_now"] = _now
    return sandbox


@lru_cache(maxsize=32)
def _compiled(text: str) -> Callable[..., str]:
    try:
        render: Callable[..., str] = environment().from_string(text).render
    except TemplateSyntaxError as error:
        raise TemplateError(
            f"the chat template is not valid Jinja: line {error.lineno}: {error.message}"
        ) from error
    return render


def compile_only(text: str) -> None:
    """Raises TemplateError when `text` is not valid Jinja."""
    _compiled(text)


def render(
    text: str, messages: Sequence[Plain], tools: Sequence[Plain] | None, values: Mapping[str, Any]
) -> str:
    """The conversation as text. Raises RenderProblem with the template's own words."""
    try:
        return _compiled(text)(messages=list(messages), tools=list(tools) if tools else None, **values)
    except JinjaError as error:
        raise RenderProblem(str(error.message or type(error).__name__)) from error
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise RenderProblem(f"the template fails: {error}") from error


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


def _holders(tree: nodes.Template) -> set[str]:
    """Names of variables (and ".name" of namespace attributes) that may hold the text of a message."""
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    held: set[str] = set()
    while True:
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
