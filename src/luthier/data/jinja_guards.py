"""Operators and methods of chat templates, each of which pays before it works."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time
from typing import Any

from jinja2 import Undefined, pass_context

from luthier.data.jinja_budget import BITS, ITEM, SMALL, WIDTH, Budget, Rendering, refused, whole

Function = Callable[..., Any]
_WIDTHS = re.compile(r"[%)][-+ #0-9.*]*(?=[hlLdiouxXeEfFgGcrsa])")
_DIGITS = re.compile(r"\d+")
_day: date | None = None
ESCAPED = 10
"""One character, escaped, is ten at most (\\U0010ffff)."""


# -- operators ---------------------------------------------------------------------------------------


@pass_context
def add(context: Rendering, *values: Any) -> Any:
    """`a + b + c`, together: what lies between is never made when all are texts."""
    total = 0
    for value in values:
        if type(value) is not str:
            return _add_up(context.budget, values)
        total += len(value)
    if total > SMALL:
        context.budget.take(total)
    return "".join(values)


@pass_context
def shown_sum(context: Rendering, *values: Any) -> Any:
    """`{{ a + b + c }}`."""
    total = 0
    for value in values:
        if type(value) is not str:
            return shown(context, _add_up(context.budget, values))
        total += len(value)
    context.budget.take(total)
    return "".join(values)


def _add_up(budget: Budget, values: tuple[Any, ...]) -> Any:
    result = values[0]
    for value in values[1:]:
        budget.take(long(result) + long(value))
        result = result + value
        bounded(result)
    return result


def long(value: Any) -> int:
    """Characters that a copy of a text or list costs. Markup escapes what is added to it."""
    if isinstance(value, str):
        return len(value) if type(value) is str else 6 * len(value)
    return ITEM * len(value) if isinstance(value, (list, tuple, dict)) else 1


def bounded(value: Any) -> None:
    if isinstance(value, int) and value.bit_length() > BITS:
        raise refused(f"reckons with numbers of more than {BITS} bits")


@pass_context
def multiply(context: Rendering, left: Any, right: Any) -> Any:
    for count, repeated in ((left, right), (right, left)):
        if isinstance(count, int) and isinstance(repeated, (str, list, tuple)):
            context.budget.take(long(repeated) * max(count, 0))
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > BITS:
        raise refused(f"reckons with numbers of more than {BITS} bits")
    return left * right


def power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 0) > BITS:
        raise refused(f"reckons with numbers of more than {BITS} bits")
    return left**right


@pass_context
def remainder(context: Rendering, left: Any, right: Any) -> Any:
    """`%`: of numbers, or the formatting of a text."""
    if not isinstance(left, str):
        return left % right
    budget, width = context.budget, _width(left, right if isinstance(right, tuple) else (right,))
    budget.fits(len(left) + left.count("%") * (width + ESCAPED * budget.size(right, text=True)))
    made = left % right
    budget.take(len(made))
    return made


def _width(pattern: str, values: Iterable[Any]) -> int:
    """The greatest width that a format asks for."""
    found = [number(digits) for spec in _WIDTHS.findall(pattern) for digits in _DIGITS.findall(spec)]
    if "*" in pattern:
        found += [abs(value) for value in values if isinstance(value, int)]
    return narrow(max(found, default=0))


def number(digits: str) -> int:
    """A width as it is written; nobody writes one of ten digits, leading zeros or not."""
    return int(digits) if len(digits) < 10 else 10**10


def narrow(width: int) -> int:
    if abs(width) > WIDTH:
        raise refused(f"asks for a width or a number of columns above {WIDTH:,}")
    return abs(width)


def subtract(left: Any, right: Any) -> Any:
    if isinstance(left, (int, float, Undefined)) or isinstance(right, Undefined):
        return left - right
    raise TypeError(f"'-' is for numbers, not for {type(left).__name__}")


@pass_context
def joined(context: Rendering, *values: Any) -> str:
    """`a ~ b`."""
    total = 0
    for value in values:
        if type(value) is not str:
            break
        total += len(value)
    else:
        if total > SMALL:
            context.budget.take(total)
        return "".join(values)
    budget = context.budget
    for value in values:
        budget.take(len(value) if isinstance(value, str) else ESCAPED * budget.size(value, text=True))
    return "".join(map(str, values))


@pass_context
def cut(context: Rendering, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]`."""
    found = value[start:stop:step]
    if len(found) > SMALL // ITEM:
        context.budget.take(long(found))
    return found


@pass_context
def read(context: Rendering, value: Any) -> Any:
    """A value that is compared or hashed: the work grows with its length."""
    if type(value) is str:
        if len(value) > SMALL:
            context.budget.step(len(value) >> 6)
    elif isinstance(value, (list, tuple, dict, str)):
        context.budget.step(context.budget.size(value) >> 6)
    return value


@pass_context
def searched(context: Rendering, value: Any) -> Any:
    """What stands behind `in`: a mapping finds its keys at once, everything else is searched."""
    if type(value) is str:
        if len(value) > SMALL:
            context.budget.step(len(value) >> 3)
    elif not isinstance(value, dict):
        context.budget.step(context.budget.size(value) >> 3)
    return value


@pass_context
def looped(context: Rendering, values: Any) -> Any:
    """What a loop goes through whose `loop` is handed on: others may go through it too, and faster."""
    if hasattr(values, "__len__"):
        context.budget.step(ITEM * len(values))
    return values


@pass_context
def tick(context: Rendering, steps: int, characters: int) -> bool:
    """Stands at the beginning of every loop's and macro's body; true, so that it can stand in a condition."""
    budget = context.budget
    budget.slice -= steps
    if budget.slice < 0:
        budget.next_slice()
    if characters:
        budget.take(characters)
    return True


@pass_context
def shown(context: Rendering, value: Any) -> Any:
    """A value on its way into the text."""
    if type(value) is str:
        context.budget.take(len(value))
    else:
        context.budget.take(ESCAPED * context.budget.size(value, text=True))
    return value


OPERATORS: dict[str, Function] = {
    "+": add, "*": multiply, "**": power, "%": remainder, "-": subtract, "~": joined, "[:]": cut,
    "{}": shown, "{+}": shown_sum, "==": read, " in": searched, "(for)": looped, "(tick)": tick,
}  # fmt: skip
"""By names that no template can spell."""


# -- methods -----------------------------------------------------------------------------------------

TEXT_METHODS = frozenset(
    "capitalize casefold center count endswith expandtabs find format format_map index isalnum isalpha "
    "isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join "
    "ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title upper zfill".split()
)
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs"}
_MAKING = {*_PADDING, "replace", "join", "split", "rsplit", "splitlines", "partition", "rpartition"}
"""Methods that make much of little."""
_QUICK = {"startswith", "endswith", "removeprefix", "removesuffix"}


def method(budget: Budget, bound: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A text's own method."""
    text, name = bound.__self__, bound.__name__  # type: ignore[attr-defined]
    if not (args or kwargs or name in _MAKING):
        if len(text) > SMALL:
            budget.step(len(text) >> 6)
            budget.take(3 * len(text))
        return bound()
    if name == "join":
        args = tuple([whole(value) for value in args])
    given = (*args, *kwargs.values())
    if given and isinstance(given[0], tuple):
        budget.step(len(given[0]))
    longest = max([len(value) for value in given if isinstance(value, str)], default=0)
    if len(text) > SMALL or longest > SMALL or name in _MAKING:
        if name not in _QUICK:
            budget.step(len(text) * max(longest, 1) >> 6)
        budget.fits(_grown(budget, name, text, given) * (1 if type(text) is str else 6))
    found = bound(*args, **kwargs)
    if len(text) > SMALL or name in _MAKING:
        budget.take(_made(found))
    return found


def _made(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum([len(item) for item in value if isinstance(item, str)]) + ITEM * len(value)
    return len(value) if isinstance(value, str) else 1


def _grown(budget: Budget, name: str, text: str, given: tuple[Any, ...]) -> int:
    """Characters that a method makes, at the most."""
    width = (
        max([narrow(value) for value in given if isinstance(value, int)], default=8)
        if name in _PADDING
        else 0
    )
    if name == "replace":
        return replaced(text, given)
    if name == "expandtabs":
        return len(text) + text.count("\t") * width
    if name == "join":
        return between(budget, text, given[0] if given else ())
    if name in ("split", "rsplit", "splitlines"):
        mark = given[0] if given and isinstance(given[0], str) and given[0] else ""
        return len(text) + 2 * ITEM * (text.count(mark) if mark else len(text) // 2)
    return 3 * len(text) + width


def replaced(text: str, given: tuple[Any, ...]) -> int:
    if len(given) < 2 or not (isinstance(given[0], str) and isinstance(given[1], str)):
        return len(text)
    old, new = given[:2]
    return len(text) + (text.count(old) * len(new) if len(new) > len(old) else 0)


def between(budget: Budget, mark: str, values: Any) -> int:
    """Characters of the values with `mark` between them."""
    count = len(values) if hasattr(values, "__len__") else 0
    return budget.size(values, text=True) * (1 if type(mark) is str else 6) + len(mark) * count


def now(pattern: str) -> str:
    if len(pattern) > SMALL:
        raise refused("asks for the time in too many words")
    return (datetime.now() if _day is None else datetime.combine(_day, time())).strftime(pattern)


@contextmanager
def on_day(day: date) -> Iterator[None]:
    """Let templates write this date, in every thread: that of a run's first start.

    A run that is continued on another day, or that passes midnight, keeps its tokens.
    """
    global _day
    before, _day = _day, day
    try:
        yield
    finally:
        _day = before


def today() -> date:
    """The date that templates write."""
    return _day or date.today()
