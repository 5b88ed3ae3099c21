"""What one rendering may spend: rounds of loops, characters, calls within calls, processor time.

Chat templates come from strangers, and a few words of Jinja can ask for days of work or all memory. Every
operation that repeats, reads or makes something long is charged here *before* it is done. The limits are
counted, not timed, so that the same template on the same conversation always ends the same way; processor
time is the last resort. They grow with the conversation, so no honest template meets them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from jinja2 import Undefined
from jinja2.runtime import Context

from luthier.errors import TemplateError

STEPS = 3_000_000
"""Expressions evaluated in one rendering (about a second), plus _STEPS_EACH for each character given."""
CHARACTERS = 10_000_000
"""Characters of all long texts made on the way, plus _CHARACTERS_EACH for each character given."""
OUTPUT = 2_000_000
"""Characters of the rendered text, plus _OUTPUT_EACH for each character given."""
SECONDS = 20.0
"""Processor time of one rendering, plus a second for each 100,000 characters given."""
DEPTH = 100
"""Macros or loops that call each other, and lists within lists."""
WIDTH = 10_000
"""Any width, precision, indentation or number of columns."""
BITS = 4096
"""Size of a whole number."""
SMALL = 64
"""Texts up to this length cost nothing: only steps can make many of them."""
ITEM = 8
"""What an item of a list counts as, in characters."""
_STEPS_EACH, _CHARACTERS_EACH, _OUTPUT_EACH = 50, 256, 64
_SLICE = 50_000
_CONTAINERS: Any = (list, tuple, dict, type({}.keys()), type({}.values()), type({}.items()))
_INSTEAD = (
    "-> choose another template: `template: NAME` for one of luthier's own, or the path of a .jinja file "
    "that you trust"
)


def refused(what: str) -> TemplateError:
    """The error for a template that does what none may do; `what` continues "the chat template ..."."""
    return TemplateError(f"the chat template {what} {_INSTEAD}")


class Budget:
    """The account of one rendering. given: what the template is given; measured only when a limit is met."""

    __slots__ = ("_began", "_given", "_left", "_length", "_text", "calls", "output", "seconds", "slice")

    def __init__(self, given: object) -> None:
        self._given = given
        self.slice, self._left, self._text = _SLICE, STEPS - _SLICE, CHARACTERS
        self.output, self.seconds = OUTPUT, SECONDS
        self.calls = 0
        self._began: float | None = None
        self._length = 0

    def step(self, count: int) -> None:
        """Charge `count` steps of work."""
        self.slice -= count
        if self.slice < 0:
            self.next_slice()

    def next_slice(self) -> None:
        """Look at the clock and at the whole account now and then, not at every step."""
        self._left += self.slice - _SLICE
        self.slice = _SLICE
        if self._left < 0:
            self.extend()
            if self._left < 0:
                most = STEPS + _STEPS_EACH * self._length
                raise refused(f"takes too many steps: more than {most:,} for one conversation")
        now = time.thread_time()
        if self._began is None:
            self._began = now
        elif now - self._began > self.seconds:
            raise refused(f"takes too long: more than {self.seconds:.0f} s for one conversation")

    def take(self, characters: int) -> None:
        """Charge for a text or list that is made. Before it is made, so that memory is never used up."""
        if characters > self._text:
            self.fits(characters)
        self._text -= characters

    def fits(self, characters: int) -> None:
        """Refuse what would be longer than all that is left."""
        if characters > self._text:
            self.extend()
            if characters > self._text:
                most = CHARACTERS + _CHARACTERS_EACH * self._length
                raise refused(f"makes too much text: more than {most:,} characters on the way")

    def extend(self) -> None:
        """Longer conversations get more of everything."""
        if self._length:
            return
        self._length = given = _length(self._given)
        self._left += _STEPS_EACH * given
        self._text += _CHARACTERS_EACH * given
        self.output += _OUTPUT_EACH * given
        self.seconds += given / 100_000

    def size(self, value: Any, text: bool = False, depth: int = 0) -> int:
        """Length of a value written as text, or nearly. Raises TemplateError if it is nested too deeply.

        A list that holds another list twice, which holds another twice, is short to make and endless to
        write or to compare; walking it costs steps. text: it will be written, so it must be plain data.
        """
        if isinstance(value, str):
            return len(value)
        if isinstance(value, _CONTAINERS):
            if depth >= DEPTH:
                raise refused(f"nests lists more than {DEPTH} deep")
            self.step(1 + len(value))
            total = 2 + ITEM * len(value)
            for item in chain(value, value.values()) if isinstance(value, dict) else value:
                total += len(item) if type(item) is str else self.size(item, text, depth + 1)
            return total
        if isinstance(value, range):
            self.step(len(value))
            return ITEM * len(value)
        if isinstance(value, int):
            return value.bit_length() // 3 + 2
        if text and not (value is None or isinstance(value, (float, Undefined))):
            raise refused(f"writes what is not text into the conversation ({_kind(value)})")
        return 40


class Rendering(Context):
    """The variables of one rendering, and what it may still spend."""

    budget: Budget


def _kind(value: object) -> str:
    return "a list that is not made yet: `| list` makes it" if isinstance(value, Lazy) else "a Python object"


def _length(given: object) -> int:
    """Characters of the plain data that a template is given; 50 for everything that is not text."""
    total, waiting = 0, [given]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            total += len(value)
            continue
        total += 50
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            waiting += value
    return total


class Lazy:
    """What `map`, `select` and their like return: made item by item, each of them charged.

    An object of its own because a generator cannot say how many others it stands on.
    """

    __slots__ = ("_budget", "_cost", "_source", "depth")

    def __init__(self, budget: Budget, source: Iterator[Any], cost: int, depth: int) -> None:
        if depth > DEPTH // 4:
            raise refused(f"puts more than {DEPTH // 4} filters on top of each other")
        self._budget, self._source, self._cost, self.depth = budget, source, cost, depth

    def __iter__(self) -> Lazy:
        return self

    def __next__(self) -> Any:
        self._budget.step(self._cost)
        return next(self._source)


def whole(value: Any) -> Any:
    """Something with a length: what comes item by item is made into a list."""
    if isinstance(value, (str, range, int, float, Undefined, *_CONTAINERS)) or value is None:
        return value
    return list(value)
