"""A small part of Go's text/template: enough to run the templates that are derived for Ollama.

Text, fields, `$variables` (declared and assigned), if, else if, else, range, trim markers, comments, and the
functions eq, ne, and, or, not. What is beyond that is refused by name, never half understood.
Language: https://pkg.go.dev/text/template
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.errors import ExportError

BLANKS = " \t\r\n"
"""What a trim marker takes away."""
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<raw>`[^`]*`)|(?P<number>-?\d+(?![\w.]))"""
    r"""|(?P<variable>\$\w*(?:\.[^\W\d]\w*)*)|(?P<field>(?:\.[^\W\d]\w*)+)|(?P<dot>\.)"""
    r"""|(?P<word>[^\W\d]\w*)|(?P<sign>:=|=|,|\(|\))"""
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_OPERANDS = ("string", "raw", "number", "variable", "field", "dot", "word")


@dataclass
class _Scope:
    """What a template sees at one place. names: variables, the innermost first."""

    dot: Any
    names: ChainMap[str, Any]

    def inner(self) -> _Scope:
        return _Scope(self.dot, self.names.new_child())


_Value = Callable[[_Scope], Any]
_Node = Callable[[_Scope, list[str]], None]


def render(text: str, data: Mapping[str, Any]) -> str:
    """What Go writes for `text` on `data` (strings, whole numbers, booleans, and lists and maps of these).

    Raises ExportError where the template is wrong, uses more than the part that is known here, or fails on
    the data as it would in Go.
    """
    return parse(text)(data)


def parse(text: str) -> Callable[[Mapping[str, Any]], str]:
    """The template as a function of its data. Raises ExportError."""
    parser = _Parser(_pieces(text))
    body, end = parser.body({"$"})
    if end is not None:
        raise ExportError(f"the Go template has {end[0]} without a beginning")

    def run(data: Mapping[str, Any]) -> str:
        out: list[str] = []
        _all(body, _Scope(data, ChainMap({"$": data})), out)
        return "".join(out)

    return run


def quoted(text: str) -> str:
    """A Go string literal. What does not print is escaped, as editors and Modelfiles lose it."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    if character in named:
        return named[character]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


# Text and actions


@dataclass(frozen=True)
class _Action:
    """What stands between {{ and }}: (kind, text) of its tokens. line: where it begins."""

    tokens: Sequence[tuple[str, str]]
    line: int


def _pieces(text: str) -> list[str | _Action]:
    """Texts and actions in order, trimmed as the markers say; comments are gone."""
    found: list[str | _Action] = []
    at, trim = 0, False
    while True:
        begin = text.find("{{", at)
        plain = text[at:] if begin < 0 else text[at:begin]
        plain = plain.lstrip(BLANKS) if trim else plain
        if begin < 0:
            return [*found, plain]
        line = text.count("\n", 0, begin) + 1
        inside = begin + 2
        if text[inside : inside + 1] == "-" and text[inside + 1 : inside + 2] in tuple(BLANKS):
            plain, inside = plain.rstrip(BLANKS), inside + 2
        found.append(plain)
        action, at, trim = _action(text, inside, line)
        if action is not None:
            found.append(action)


def _action(text: str, at: int, line: int) -> tuple[_Action | None, int, bool]:
    """One action from behind its {{: its tokens (None for a comment), where it ends, and whether it trims."""
    comment = re.compile(r"[ \t\r\n]*/\*.*?\*/([ \t\r\n]-)?\}\}", re.DOTALL).match(text, at)
    if comment:
        return None, comment.end(), comment[1] is not None
    tokens: list[tuple[str, str]] = []
    while True:
        blank = re.compile(f"[{BLANKS}]*").match(text, at)
        assert blank is not None, "matches nothing, too"
        spaced, at = blank.end() > at, blank.end()
        if spaced and text.startswith("-}}", at):
            return _Action(tokens, line), at + 3, True
        if text.startswith("}}", at):
            return _Action(tokens, line), at + 2, False
        token = _TOKEN.match(text, at)
        if token is None:
            raise _wrong(line, f"{text[at : at + 12]!r} is beyond what is understood here")
        kind = str(token.lastgroup)
        if tokens and not spaced and kind in _OPERANDS and tokens[-1][0] in _OPERANDS:
            raise _wrong(line, f"{token[0]!r} wants a blank before it")
        tokens.append((kind, token[0]))
        at = token.end()


# Actions to functions


@dataclass
class _Parser:
    pieces: list[str | _Action]
    at: int = 0
    line: int = field(default=0)

    def body(self, names: Iterable[str]) -> tuple[list[_Node], list[str] | None]:
        """Nodes up to an `else` or `end` that belongs to somebody above, and the words of that."""
        known = set(names)
        nodes: list[_Node] = []
        while self.at < len(self.pieces):
            piece = self.pieces[self.at]
            self.at += 1
            if isinstance(piece, str):
                if piece:
                    nodes.append(_text(piece))
                continue
            self.line = piece.line
            word = piece.tokens[0] if piece.tokens else ("", "")
            if word == ("word", "end"):
                self._only(piece.tokens[1:])
                return nodes, ["end"]
            if word == ("word", "else"):
                self.pieces[self.at - 1] = _Action(piece.tokens[1:], piece.line)
                return nodes, ["else"]
            nodes.append(self._node(piece.tokens, known))
        return nodes, None

    def _node(self, tokens: Sequence[tuple[str, str]], known: set[str]) -> _Node:
        word = tokens[0] if tokens else ("", "")
        if word == ("word", "if"):
            return self._if(tokens[1:], known)
        if word == ("word", "range"):
            return self._range(tokens[1:], known)
        if len(tokens) > 1 and tokens[1] in (("sign", ":="), ("sign", "=")):
            return self._assignment(tokens, known)
        value = self._value(tokens, known)
        return lambda scope, out: out.append(_shown(value(scope)))

    def _if(self, tokens: Sequence[tuple[str, str]], known: set[str]) -> _Node:
        test = self._value(tokens, known)
        body, otherwise = self._branches(known)

        def node(scope: _Scope, out: list[str]) -> None:
            _all(body if test(scope) else otherwise, scope.inner(), out)

        return node

    def _branches(self, known: set[str], *more: str) -> tuple[list[_Node], list[_Node]]:
        """What follows an `if` or `range` up to its end: the body, and what stands behind its `else`."""
        begun = self.line
        body, end = self.body(known | set(more))
        if end == ["end"]:
            return body, []
        if end is None:
            raise _wrong(begun, "has no end")
        again = self.pieces[self.at - 1]
        assert isinstance(again, _Action), "body() has just left it there"
        if again.tokens:
            if again.tokens[0] != ("word", "if"):
                raise _wrong(again.line, f"else {again.tokens[0][1]} is beyond what is understood here")
            return body, [self._if(again.tokens[1:], known)]
        otherwise, end = self.body(known)
        if end != ["end"]:
            raise _wrong(begun, "has no end")
        return body, otherwise

    def _range(self, tokens: Sequence[tuple[str, str]], known: set[str]) -> _Node:
        names: list[str] = []
        if ("sign", ":=") in tokens:
            split = list(tokens).index(("sign", ":="))
            names = [text for kind, text in tokens[:split] if kind == "variable"]
            signs = [token for token in tokens[:split] if token[0] != "variable"]
            if signs != [("sign", ",")] * (len(names) - 1) or not 1 <= len(names) <= 2:
                raise _wrong(self.line, "range declares one variable, or two with a comma between")
            tokens = tokens[split + 1 :]
        items = self._value(tokens, known)
        body, otherwise = self._branches(known, *names)

        def node(scope: _Scope, out: list[str]) -> None:
            found = items(scope)
            if not isinstance(found, (list, tuple)) and found is not None:
                raise ExportError("the Go template ranges over what is no list")
            for i, item in enumerate(found or ()):
                values = dict(zip(names[::-1], (item, i), strict=False))
                _all(body, _Scope(item, scope.names.new_child(values)), out)
            if not found:
                _all(otherwise, scope.inner(), out)

        return node

    def _assignment(self, tokens: Sequence[tuple[str, str]], known: set[str]) -> _Node:
        (kind, name), (_, sign) = tokens[:2]
        if kind != "variable" or "." in name or name == "$":
            raise _wrong(self.line, f"{name} cannot be assigned")
        value = self._value(tokens[2:], known)
        if sign == ":=":
            known.add(name)

            def declare(scope: _Scope, out: list[str]) -> None:
                scope.names[name] = value(scope)

            return declare
        self._declared(name, known)

        def assign(scope: _Scope, out: list[str]) -> None:
            holder = next(names for names in scope.names.maps if name in names)
            holder[name] = value(scope)

        return assign

    # Values

    def _value(self, tokens: Sequence[tuple[str, str]], known: set[str]) -> _Value:
        value, rest = self._command(list(tokens), known)
        self._only(rest)
        return value

    def _command(
        self, tokens: list[tuple[str, str]], known: set[str]
    ) -> tuple[_Value, list[tuple[str, str]]]:
        """A function with its arguments, or one operand; and the tokens behind it."""
        if not tokens:
            raise _wrong(self.line, "is empty")
        kind, text = tokens[0]
        if kind != "word" or text in ("true", "false"):
            return self._operand(tokens, known)
        function = _FUNCTIONS.get(text)
        if function is None:
            raise _wrong(self.line, f"{text} is beyond what is understood here ({', '.join(_FUNCTIONS)})")
        arguments: list[_Value] = []
        rest = tokens[1:]
        while rest and rest[0] != ("sign", ")"):
            one, rest = self._operand(rest, known)
            arguments.append(one)
        least, most, call = function
        if not least <= len(arguments) <= most:
            raise _wrong(self.line, f"{text} with {len(arguments)} arguments")
        return lambda scope: call(scope, arguments), rest

    def _operand(
        self, tokens: list[tuple[str, str]], known: set[str]
    ) -> tuple[_Value, list[tuple[str, str]]]:
        (kind, text), rest = tokens[0], tokens[1:]
        if (kind, text) == ("sign", "("):
            value, rest = self._command(rest, known)
            if not rest or rest[0] != ("sign", ")"):
                raise _wrong(self.line, "has a parenthesis that is not closed")
            return value, rest[1:]
        if kind in ("field", "dot"):
            path = text.split(".")[1:] if kind == "field" else []
            return lambda scope: _walk(scope.dot, path), rest
        if kind == "variable":
            name, *path = text.split(".")
            self._declared(name, known)
            return lambda scope: _walk(scope.names[name], path), rest
        constant = self._constant(kind, text)
        return lambda scope: constant, rest

    def _constant(self, kind: str, text: str) -> Any:
        if kind == "string":
            return _ESCAPE.sub(lambda found: self._unescaped(found[1]), text[1:-1])
        if kind == "raw":
            return text[1:-1].replace("\r", "")
        if kind == "number":
            return int(text)
        if text in ("true", "false"):
            return text == "true"
        raise _wrong(self.line, f"{text!r} where a value should stand")

    def _unescaped(self, code: str) -> str:
        if code[0] in "uU" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in _PLAIN:
            raise _wrong(self.line, f"the escape \\{code} is beyond what is understood here")
        return _PLAIN[code]

    def _declared(self, name: str, known: set[str]) -> None:
        if name not in known:
            raise _wrong(self.line, f"{name} is not declared")

    def _only(self, rest: Sequence[tuple[str, str]]) -> None:
        if rest:
            raise _wrong(self.line, f"{rest[0][1]!r} where nothing should follow")


# What Go does with values


def _text(text: str) -> _Node:
    return lambda scope, out: out.append(text)


def _all(nodes: Iterable[_Node], scope: _Scope, out: list[str]) -> None:
    for node in nodes:
        node(scope, out)


def _walk(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(value, Mapping):
            raise ExportError(f"the Go template asks for .{name} of what has no fields")
        value = value.get(name)
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    raise ExportError("the Go template writes a list or a map, which is beyond what is understood here")


def _equal(scope: _Scope, arguments: Sequence[_Value]) -> bool:
    """Whether the first is any of the others: simple values of one type, or a missing one and anything."""
    first, *others = [argument(scope) for argument in arguments]
    for other in others:
        simple = isinstance(first, (str, int)) and type(first) is type(other)
        if not simple and None not in (first, other):
            raise ExportError("the Go template compares values of different types")
        if first == other:
            return True
    return False


def _first(stop: bool) -> Callable[[_Scope, Sequence[_Value]], Any]:
    """The first argument whose truth is `stop`, else the last; the others are not looked at."""

    def call(scope: _Scope, arguments: Sequence[_Value]) -> Any:
        value = None
        for argument in arguments:
            value = argument(scope)
            if bool(value) is stop:  # Python and Go agree on what is empty
                break
        return value

    return call


_FUNCTIONS: Mapping[str, tuple[int, int, Callable[[_Scope, Sequence[_Value]], Any]]] = {
    "eq": (2, 99, _equal),
    "ne": (2, 2, lambda scope, arguments: not _equal(scope, arguments)),
    "and": (1, 99, _first(False)),
    "or": (1, 99, _first(True)),
    "not": (1, 1, lambda scope, arguments: not arguments[0](scope)),
}
"""Name -> fewest and most arguments, and what it does."""


def _wrong(line: int, what: str) -> ExportError:
    return ExportError(f"line {line} of the Go template: {what}")
