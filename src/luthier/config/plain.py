"""Small text files that say what to do (configurations, dataset_info.json, templates) -> plain values.

Such a file may come from anywhere: a pipe that never ends, a sparse terabyte, ten lines whose aliases unfold
to billions of values, tags that ask for Python objects. So only regular files of a sensible size are read,
what a text unfolds to is counted before anything is built from it, and every refusal says why.
YAML values mean what they mean in YAML 1.1, except that `1e-4` is a number and a date is text.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

LONGEST = 1 << 20  # bytes of a file; a configuration has thousands
LONGEST_JSON = 16 << 20  # of a table of data sets, or a file of a run
DEEPEST = 50  # lists in lists
MOST = 100_000  # values, with aliases unfolded
DIGITS = 100  # of a number

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_TAG = "tag:yaml.org,2002:"
_TAGS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
_NUMBERS = {_TAG + name for name in ("bool", "int", "float")}
_KEYS = {_TAG + name for name in ("str", "int", "merge")}
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+
    |[-+]?\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class Unreadable(Exception):
    """Why a file or text is not used: what is wrong, what to do instead, in which line (0: unknown)."""

    def __init__(self, what: str, instead: str, line: int = 0) -> None:
        super().__init__(f"{what} -> {instead}")
        self.what, self.instead, self.line = what, instead, line


class Parsed(NamedTuple):
    """value: plain · lines: key of the top -> line · doubles: (key, line) of keys that are given again ·
    texts: key of the top -> how its numbers are written, for keys that hold names ("007" is no number)."""

    value: Any
    lines: dict[str, int]
    doubles: list[tuple[str, int]]
    texts: Mapping[str, str | list[str]] = MappingProxyType({})


def strange(path: Path) -> str:
    """What kind of thing a path leads to when it is no regular file ("a pipe"), else "". Raises OSError."""
    mode = path.stat().st_mode
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "")


def read_bytes(path: Path, limit: int = LONGEST) -> bytes:
    """A regular file's bytes. Raises Unreadable for anything else and for more than `limit`."""
    try:
        kind = strange(path)
        if kind:
            raise Unreadable(f"is {kind}, not a file", "a regular file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise Unreadable(f"is larger than {limit >> 20} MB", "the right file")
            return file.read(limit)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(f"cannot be read: {why}", "the path of a config file") from error


def read_text(path: Path, limit: int = LONGEST) -> str:
    """A regular file's text in UTF-8, with or without a byte order mark. Raises Unreadable."""
    found = read_bytes(path, limit)
    if found.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable("is not UTF-8 but UTF-16", "save it as UTF-8")
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"is not UTF-8 ({error.reason} at byte {error.start})", "save it as UTF-8"
        ) from error


# --- JSON -------------------------------------------------------------


def from_json(text: str) -> Parsed:
    """The value of a JSON text; a key given twice keeps its last value. Raises Unreadable."""
    twice: Counter[str] = Counter()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            twice.update({k: n - 1 for k, n in Counter(k for k, _ in items).items() if n > 1})
        return found

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_int=_integer)
    except json.JSONDecodeError as error:
        what = f"is not valid JSON: {error.msg} (column {error.colno})"
        raise Unreadable(what, "mend it there", error.lineno) from error
    except RecursionError:
        raise _too_deep() from None
    _bounded(value)
    first, last = _lines_of_keys(text)
    top = value if isinstance(value, dict) else {}
    lines = {key: line for key, line in first.items() if key in top}
    return Parsed(value, lines, [(key, last.get(key, 1)) for key in sorted(twice)])


def _lines_of_keys(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """The first and the last line of everything that looks like a key, at any depth."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    line, before = 1, 0
    for match in re.finditer(r'"((?:[^"\\\n]|\\.)*)"\s*:', text):
        line += text.count("\n", before, match.start())
        before = match.start()
        try:
            key = str(json.loads(f'"{match[1]}"')) if "\\" in match[1] else match[1]
        except json.JSONDecodeError:  # the end of a text, not a key
            continue
        first.setdefault(key, line)
        last[key] = line
    return first, last


def _integer(digits: str) -> int:
    _digits(digits)
    return int(digits)


def _digits(text: str, line: int = 0) -> None:
    """Raise Unreadable for a number so long that reading or printing it takes seconds, or fails."""
    if len(text) > DIGITS:
        raise Unreadable(f"holds a number of {len(text)} digits", f"at most {DIGITS} digits", line)


def _bounded(value: Any) -> None:
    """Raise Unreadable when a parsed value is nested too deeply or holds too much to be a configuration."""
    level, count = [value], 0
    for _ in range(DEEPEST):
        count += len(level)
        if count > MOST:
            raise _too_much()
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep(line: int = 0) -> Unreadable:
    return Unreadable(f"is nested more than {DEEPEST} deep", "fewer lists and mappings in one another", line)


def _too_much(line: int = 0) -> Unreadable:
    return Unreadable(
        f"unfolds to more than {MOST:,} values", "fewer values, or fewer aliases of aliases", line
    )


# --- YAML -------------------------------------------------------------


@lru_cache(maxsize=1)
def _loader() -> Any:
    """PyYAML's safe loader with numbers like 1e-4, and without dates and `=`."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name and kind)
            first: [
                (tag, shape) for tag, shape in rows if tag.removeprefix(_TAG) not in ("timestamp", "value")
            ]
            for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))
    return Loader


def to_yaml(value: Any) -> str:
    """A YAML text that `from_yaml` reads as `value` again (the text "1e-4" is quoted)."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        pass

    Dumper.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))
    return str(yaml.dump(value, Dumper=Dumper, allow_unicode=True, sort_keys=False))


def from_yaml(text: str) -> Parsed:
    """The value of a YAML text; a key given twice keeps its first value. Raises Unreadable."""
    import yaml

    try:
        loader = _loader()(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return Parsed(None, {}, [])
            _measured(root, {}, set())
            pairs = root.value if isinstance(root, yaml.MappingNode) else []
            lines = {key.value: key.start_mark.line + 1 for key, _ in reversed(pairs)}
            texts = {key.value: shown for key, node in reversed(pairs) if (shown := _written(node))}
            doubles = _doubles(root, set())
            return Parsed(loader.construct_document(root), lines, doubles, texts)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"holds the character U+{error.character:04X}, which YAML forbids"
        raise Unreadable(what, "text without control characters", line) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise Unreadable(f"is not valid YAML: {what}", "key: value", mark.line + 1 if mark else 1) from error
    except (ValueError, KeyError) as error:  # `!!int x`, `!!bool x`
        raise Unreadable(
            f"holds a value that is not what its tag says: {error}", "values without tags"
        ) from error
    except RecursionError:
        raise _too_deep() from None


def _measured(node: Any, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """(values, depth) that a node unfolds to. Raises Unreadable for what is not read, and for too much."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if id(node) in above:
        raise Unreadable("holds an alias of what it stands in", "values without `*NAME`", line)
    if node.tag not in _TAGS:
        what = f"holds the tag `{node.tag.replace(_TAG, '!!')}`, which is not read"
        raise Unreadable(what, "plain values: nothing is run, built or included", line)
    count, depth = 1, 1
    if isinstance(node.value, str):
        if node.tag in (_TAG + "int", _TAG + "float"):
            _digits(node.value, line)
    else:
        above.add(id(node))
        for child in _children(node):
            below, deeper = _measured(child, known, above)
            count, depth = count + below, max(depth, deeper + 1)
        above.remove(id(node))
    if count > MOST:
        raise _too_much(line)
    if depth > DEEPEST:
        raise _too_deep(line)
    known[id(node)] = count, depth
    return count, depth


def _written(node: Any) -> str | list[str] | None:
    """A number, yes or no as it is written, or a list with such in it; None for everything else."""
    if node.tag in _NUMBERS:
        return str(node.value)
    scalars = node.tag == _TAG + "seq" and all(isinstance(child.value, str) for child in node.value)
    if scalars and any(child.tag in _NUMBERS for child in node.value):
        return [str(child.value) for child in node.value]
    return None


def _children(node: Any) -> list[Any]:
    """The nodes right below a node. Raises Unreadable for a key that is no text or whole number."""
    children = []
    for child in node.value:
        if isinstance(child, tuple):
            key, child = child
            if key.tag not in _KEYS or not isinstance(key.value, str):
                shown = f"`{key.value}`, which YAML reads as {key.tag.replace(_TAG, '')}"
                what = f"has the key {shown}" if isinstance(key.value, str) else "has a key that is no text"
                raise Unreadable(what, 'names as keys, in "quotes" where needed', key.start_mark.line + 1)
            children.append(key)
        children.append(child)
    return children


def _doubles(node: Any, seen: set[int]) -> list[tuple[str, int]]:
    """(key, line) of every key that its mapping had before, at any depth; they are taken out of it."""
    if id(node) in seen or isinstance(node.value, str):
        return []
    seen.add(id(node))
    found: list[tuple[str, int]] = []
    first: dict[Any, Any] = {}
    for child in node.value:
        key, value = child if isinstance(child, tuple) else (None, child)
        if key is not None and key.value in first:
            found.append((key.value, key.start_mark.line + 1))
        first.setdefault(key.value if key is not None else len(first), child)
        found += _doubles(value, seen)
    node.value = list(first.values())
    return found
