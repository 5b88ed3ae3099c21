"""What a chat template can reach: plain data, methods of texts and mappings, its own macros. Nothing else.

Jinja's sandbox forbids what is known to be dangerous. This one allows what is known to be needed, so that a
way around the first, found one day, ends here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.ext import Extension, loopcontrols
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter, safe_range
from jinja2.utils import Namespace
from markupsafe import Markup

from luthier.data.jinja_budget import DEPTH, ITEM, SMALL, WIDTH, Budget, Rendering, refused, whole
from luthier.data.jinja_filters import FILTERS, TESTS
from luthier.data.jinja_guards import ESCAPED, OPERATORS, TEXT_METHODS, long, method, narrow, now, number
from luthier.data.jinja_tree import metered

TOKENS = 50_000
"""Words and signs between the braces of one template; the longest published ones have some 6,000."""
_FORMATS = ("format", "format_map")
_OF_LOOPS = frozenset(
    "index index0 revindex revindex0 first last length depth depth0 previtem nextitem cycle changed".split()
)
_REACHED: tuple[tuple[type, frozenset[str]], ...] = (
    (str, TEXT_METHODS),
    (dict, frozenset({"copy", "get", "items", "keys", "values"})),
    (list, frozenset({"copy", "count", "index"})),
    (tuple, frozenset({"count", "index", "grouper", "list"})),  # the last two are what `groupby` gives
    (LoopContext, _OF_LOOPS),
    (Macro, frozenset({"name", "arguments", "catch_kwargs", "catch_varargs", "caller"})),
)
_ATTRIBUTES = dict(_REACHED)
_OF_MAPPINGS = frozenset(dir(dict))


class Generation(Extension):
    """`{% generation %}` marks what the model writes; masks are found without it, so only its body counts.

    Also counts the words of a template while they are read, before anything is built of them.
    """

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
        for count, token in enumerate(stream):
            if count > TOKENS:
                raise refused(f"is too long: more than {TOKENS:,} words and signs between its braces")
            yield token


class Format:
    """`text.format`, not called yet."""

    __slots__ = ("by_map", "text")

    def __init__(self, text: str, by_map: bool) -> None:
        self.text, self.by_map = text, by_map


class _Formatter(SandboxedFormatter):
    """Python's format language, with widths as bounded as everywhere, and of plain data only."""

    def __init__(self, environment: Sandbox, budget: Budget) -> None:
        super().__init__(environment)
        self._budget = budget

    def format_field(self, value: Any, format_spec: str) -> Any:
        digits = "".join([c if c.isdecimal() else " " for c in format_spec]).split()
        width = max([narrow(number(part)) for part in digits], default=0)
        self._budget.take(width + ESCAPED * self._budget.size(value, text=True))
        return super().format_field(value, format_spec)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._budget.fits(ESCAPED * self._budget.size(value, text=True))
        return super().convert_field(value, conversion)


def _raise(message: Any) -> str:
    raise JinjaError(message)


_GLOBALS: dict[str, Callable[..., Any]] = {
    "range": safe_range, "dict": dict, "namespace": Namespace, "raise_exception": _raise, "strftime_now": now,
}  # fmt: skip


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that transformers renders chat templates in, with limits."""

    context_class = Rendering

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, loopcontrols],
            optimized=False,  # what is constant would be reckoned at once, without limits
        )
        self.filters, self.tests, self.globals = dict(FILTERS), dict(TESTS), dict(_GLOBALS)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(metered(source), *args, **kwargs)

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A filter by its name in a text, as `map` takes it."""
        if name in OPERATORS:
            raise SecurityError(f"there is no filter {name!r}")
        return super().call_filter(name, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        names = _ATTRIBUTES.get(type(obj))
        if names is not None:
            return attr in names
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return any(isinstance(obj, kind) and attr in allowed for kind, allowed in _REACHED)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """What is private is not even looked for; the rest is undefined, as Jinja has it."""
        if attribute.startswith("_"):
            raise SecurityError(
                f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe"
            )
        return super().unsafe_undefined(obj, attribute)

    def wrap_str_format(self, value: Any) -> Any:
        if isinstance(value, (BuiltinMethodType, MethodType)) and value.__name__ in _FORMATS:
            owner = value.__self__
            if isinstance(owner, str) and not isinstance(owner, Markup):
                return Format(owner, value.__name__ == "format_map")
        return None

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute not in _OF_MAPPINGS:  # as Jinja does, without an exception between
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(argument) is str and type(obj) is dict and argument in obj:
            return obj[argument]
        if isinstance(argument, tuple):  # no key of plain data, and costly to hash
            return self.undefined(obj=obj, name="tuple")
        if isinstance(argument, str) and len(argument) > WIDTH:  # no name, and costly to speak of
            return self.undefined(obj=obj, name=argument[:SMALL])
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget: Budget = __context.budget  # type: ignore[attr-defined]
        if kwargs:  # variables of loops, which compiled templates give for functions that want a context
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
        if len(args) > SMALL or len(kwargs) > SMALL:
            budget.take(ITEM * (len(args) + 4 * len(kwargs)))
        if isinstance(__obj, (BuiltinMethodType, MethodType)):
            return __self._method(budget, __obj, args, kwargs)
        if isinstance(__obj, (Macro, LoopContext)):
            return _deeper(budget, __context, __obj, args, kwargs)
        if isinstance(__obj, Format):
            return __self._format(budget, __obj, args, kwargs)
        if isinstance(__obj, Undefined):
            return __obj(*args, **kwargs)
        if not any(__obj is function for function in _GLOBALS.values()):
            raise SecurityError("it calls what is not a function of the template")
        args = tuple([whole(value) for value in args])
        budget.step(budget.size([*args, *kwargs.values()]) >> 4)
        budget.take(64 * ITEM + 4 * sum([long(value) for value in args]))
        return __obj(*args, **kwargs)

    def _method(self, budget: Budget, bound: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        owner = bound.__self__
        if not self.is_safe_attribute(owner, bound.__name__, bound) or bound.__name__ in _FORMATS:
            raise SecurityError(f"access to attribute {bound.__name__!r} is unsafe")
        if isinstance(owner, str):
            return method(budget, bound, args, kwargs)
        if args:
            budget.step(budget.size(args) >> 4)
        if isinstance(owner, (dict, list, tuple)) and bound.__name__ in ("copy", "count", "index"):
            budget.step(budget.size(owner))
            budget.take(ITEM * len(owner))
        return bound(*args, **kwargs)

    def _format(self, budget: Budget, what: Format, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if what.by_map and (len(args) != 1 or kwargs or not isinstance(args[0], dict)):
            raise TypeError("format_map() takes one mapping")
        budget.step(len(what.text) >> 2)
        formatter = _Formatter(self, budget)
        made = (
            formatter.vformat(what.text, (), args[0])
            if what.by_map
            else formatter.vformat(what.text, args, kwargs)
        )
        budget.take(len(made))
        return made


def _deeper(budget: Budget, context: Context, obj: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A macro, or a loop that calls itself."""
    budget.calls += 1
    if isinstance(obj, LoopContext):
        budget.step(ITEM * sum([len(value) for value in args if hasattr(value, "__len__")]))
    if budget.calls > DEPTH:
        raise refused(f"calls itself too deeply: more than {DEPTH} macros or loops within each other")
    try:
        return context.call(obj, *args, **kwargs)
    finally:
        budget.calls -= 1
