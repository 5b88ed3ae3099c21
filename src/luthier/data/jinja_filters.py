"""Filters and tests of chat templates, each of which pays before it works.

What is not in a table here does not exist for a template: no filter that reaches for attributes (`attr`),
that is random, or that runs a regular expression over a whole text (`urlize`, `wordwrap`, `striptags`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jinja2 import filters, pass_context, tests
from markupsafe import Markup

from luthier.data.jinja_budget import ITEM, SMALL, WIDTH, Lazy, Rendering, refused, whole
from luthier.data.jinja_guards import (
    ESCAPED,
    OPERATORS,
    between,
    bounded,
    long,
    narrow,
    read,
    remainder,
    replaced,
    searched,
)

Function = Callable[..., Any]
_THEIRS = filters.FILTERS

_FREE = ("abs", "count", "d", "default", "first", "float", "last", "length")
_TEXTS: dict[str, int] = {
    "capitalize": 3, "lower": 3, "string": 10, "title": 16, "trim": 1, "upper": 3, "urlencode": 12,
    "wordcount": 16, "e": 6, "escape": 6, "safe": 1, "truncate": 2,
}  # fmt: skip
"""Filters that make one text of another; how much longer it may get."""
_LAZY = (
    "batch",
    "items",
    "map",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "slice",
    "unique",
)
_EAGER = ("dictsort", "groupby", "max", "min", "sort")


def _passed(function: Function, context: Rendering) -> tuple[Any, ...]:
    """What Jinja's own function wants before the value."""
    wanted = getattr(function, "jinja_pass_arg", None)
    if wanted is None:
        return ()
    return (
        {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}[
            wanted.name
        ],
    )


def _of_text(name: str, growth: int) -> Function:
    original = _THEIRS[name]

    @pass_context
    def guarded(context: Rendering, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        size = len(value) if type(value) is str else budget.size(value, text=True) + SMALL
        if args or kwargs:
            size += budget.size([args, kwargs])
        if size > SMALL:
            budget.step(size >> 4)
            budget.take(growth * size)
        return original(*_passed(original, context), value, *args, **kwargs)

    return guarded


def _lazily(name: str) -> Function:
    original = _THEIRS[name]

    @pass_context
    def guarded(context: Rendering, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        depth = 1 + max([getattr(v, "depth", 0) for v in (value, *args, *kwargs.values())])
        if name in ("batch", "slice"):
            narrow(max([v for v in (*args, *kwargs.values()) if isinstance(v, int)], default=0))
        if name == "unique":
            value = whole(value)
            budget.step(budget.size(value))
        if isinstance(value, str):
            budget.take(len(value))
        if value and name not in (
            "items",
            "reverse",
        ):  # what goes in is charged: `select` may let nothing out
            given = budget.size([args, kwargs]) if args or kwargs else 0
            value = Lazy(budget, iter(value), 2 + given // 2, depth)
        found = original(*_passed(original, context), value, *args, **kwargs)
        if isinstance(found, str):
            return found
        budget.step(20)  # what a generator leaves in memory
        return Lazy(budget, iter(found), 2, depth)

    return guarded


def _eagerly(name: str) -> Function:
    original = _THEIRS[name]

    @pass_context
    def guarded(context: Rendering, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget, value = context.budget, whole(value)
        size = budget.size(value)
        budget.step((2 + budget.size([args, kwargs]) // 2) * size)
        budget.take(2 * ITEM * len(value) if hasattr(value, "__len__") else 1)
        return original(*_passed(original, context), value, *args, **kwargs)

    return guarded


@pass_context
def _list(context: Rendering, value: Any) -> list[Any]:
    value = whole(value)
    context.budget.take(ITEM * len(value) if hasattr(value, "__len__") else 1)
    return list(value)


@pass_context
def _sum(context: Rendering, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise TypeError("`sum` is for numbers")
    found = _THEIRS["sum"](context.environment, Lazy(context.budget, iter(value), 2, 0), attribute, start)
    bounded(found)
    return found


def _int(value: Any, default: Any = 0, base: int = 10) -> Any:
    if isinstance(value, str) and len(value) > WIDTH // 10:
        raise refused("takes a long text for a number")
    return _THEIRS["int"](value, default, base)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if not isinstance(value, (int, float)) or not -300 <= precision <= 300:
        raise TypeError("`round` is for numbers, to 300 places at the most")
    return _THEIRS["round"](value, precision, method)


@pass_context
def _center(context: Rendering, value: Any, width: int = 80) -> Any:
    context.budget.take(context.budget.size(value, text=True) + narrow(width))
    return _THEIRS["center"](value, width)


@pass_context
def _indent(context: Rendering, s: Any, width: Any = 4, first: bool = False, blank: bool = False) -> Any:
    budget, deep = context.budget, len(width) if isinstance(width, str) else narrow(width)
    budget.take(long(s) + (len(s.splitlines()) + 1) * deep if isinstance(s, str) else 1)
    return _THEIRS["indent"](s, width, first, blank)


@pass_context
def _replace(context: Rendering, s: Any, old: Any, new: Any, count: int | None = None) -> Any:
    budget = context.budget
    for value in (s, old, new):
        budget.fits(ESCAPED * budget.size(value, text=True))
    s, old, new = s if isinstance(s, Markup) else str(s), str(old), str(new)
    if len(s) > SMALL or len(new) > SMALL:
        budget.step(len(s) * max(len(old), 1) >> 6)
        budget.take(replaced(s, (old, new)) * (1 if type(s) is str else 6))
    return _THEIRS["replace"](context.eval_ctx, s, old, new, count)


@pass_context
def _join(context: Rendering, value: Any, d: Any = "", attribute: Any = None) -> Any:
    budget, value = context.budget, whole(value)
    if attribute is None:
        budget.take(between(budget, str(d), value))
        return _THEIRS["join"](context.eval_ctx, value, d)
    chosen = list(FILTERS["map"](context, value, attribute=attribute))
    budget.take(between(budget, str(d), chosen))
    return _THEIRS["join"](context.eval_ctx, chosen, d)


@pass_context
def _format(context: Rendering, value: Any, *args: Any, **kwargs: Any) -> Any:
    if args and kwargs:
        raise TypeError("`format` takes values in order or by name, not both")
    return remainder(context, str(value) if not isinstance(value, str) else value, kwargs or args)


@pass_context
def _tojson(
    context: Rendering,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers writes JSON: nothing escaped for HTML."""
    budget = context.budget
    size, deep = (
        budget.size(value, text=True),
        len(indent) if isinstance(indent, str) else narrow(indent or 0),
    )
    if size > SMALL or deep > ITEM or separators:
        between_items = sum([len(part) for part in separators or () if isinstance(part, str)])
        budget.fits(
            size * (ESCAPED if ensure_ascii else 2)
            + size // ITEM * (between_items + (deep and deep * _depth(value)))
        )
    made = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    budget.step(len(made) >> 4)
    budget.take(len(made))
    return made


def _depth(value: Any) -> int:
    """How deeply lists and mappings are nested; `Budget.size` has seen that it is not too deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return 1 + max([_depth(item) for item in inner], default=0)


FILTERS: dict[str, Function] = {
    **OPERATORS,
    **{name: _THEIRS[name] for name in _FREE},
    **{name: _of_text(name, growth) for name, growth in _TEXTS.items()},
    **{name: _lazily(name) for name in _LAZY},
    **{name: _eagerly(name) for name in _EAGER},
    "center": _center, "format": _format, "indent": _indent, "int": _int, "join": _join, "list": _list,
    "replace": _replace, "round": _round, "sum": _sum, "tojson": _tojson,
}  # fmt: skip


# -- tests -------------------------------------------------------------------------------------------


def _comparing(name: str) -> Function:
    original: Any = tests.TESTS[name]

    @pass_context
    def guarded(context: Rendering, value: Any, other: Any) -> Any:
        read(context, value)
        (searched if name == "in" else read)(context, other)
        return original(value, other)

    return guarded


def _counting(name: str) -> Function:
    original: Any = tests.TESTS[name]

    def guarded(value: Any, *args: Any) -> Any:
        if isinstance(value, str):
            raise TypeError(f"`is {name}` is for numbers")
        return original(value, *args)

    return guarded


@pass_context
def _lower(context: Rendering, value: Any) -> bool:
    context.budget.step(context.budget.size(value, text=True) >> 4)
    return str(value).islower()


@pass_context
def _upper(context: Rendering, value: Any) -> bool:
    context.budget.step(context.budget.size(value, text=True) >> 4)
    return str(value).isupper()


_COMPARING = (
    "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=", "<", "lt", "lessthan", "<=",
    "le", "in",
)  # fmt: skip
_PLAIN: dict[str, Any] = tests.TESTS
TESTS: dict[str, Function] = {
    **_PLAIN,
    **{name: _comparing(name) for name in _COMPARING},
    **{name: _counting(name) for name in ("odd", "even", "divisibleby")},
    "lower": _lower,
    "upper": _upper,
}
