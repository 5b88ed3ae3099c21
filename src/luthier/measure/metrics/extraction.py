"""Extraction: is the answer JSON, does it have the reference's fields, and are their values right?

Every value is a pair of its path ("items[].price") and itself. Exact F1 counts equal pairs over all rows
(micro). Partial F1 gives each remaining value the word F1 of its best partner on the same path (characters in
Chinese), the most similar pairs first and each value once. Triples (subject, predicate, object) are compared
as a set of the row, wherever they stand in the JSON; their partial score is the mean over the three parts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from luthier.measure.metrics import checked, mean, micro_f1, wanted
from luthier.measure.metrics.json_schema import Schema
from luthier.measure.metrics.json_text import Found, parse, same
from luthier.measure.metrics.text import token_f1
from luthier.measure.types import Answered, Measured

Triple = tuple[str, str, str]
Counts = tuple[float, float, float]  # matched, answered, wanted
_NOTHING: Counts = (0.0, 0.0, 0.0)
_TRIPLE_KEYS = (
    ("subject", "predicate", "object"),
    ("subject", "relation", "object"),
    ("head", "relation", "tail"),
    ("s", "p", "o"),
    ("h", "r", "t"),
    ("主语", "谓语", "宾语"),
    ("主体", "关系", "客体"),
    ("头实体", "关系", "尾实体"),
)


def metrics(answered: Answered, schema: Schema | None = None) -> dict[str, Measured]:
    """JSON validity, schema errors and F1 of values; F1 of triples where a reference has any.

    json_valid: nothing but JSON · json_found: also in a code fence or among words, which is what the other
    measures look at · schema_missing, _extra, _type: errors a row against what the references show ·
    given_schema_valid: share of answers that meet the user's own `schema`. Raises DataError for a reference
    that is no JSON object or list.
    """
    right, got = _read(answered)
    values = [answer.value for answer in got]
    errors = _Schema(right).all_errors(values, right)
    found = {
        "json_valid": mean([float(answer.form == "whole") for answer in got]),
        "json_found": mean([float(answer.form != "none") for answer in got]),
        "schema_valid": mean([float(not any(row)) for row in errors]),
        "schema_missing": mean([row[0] for row in errors], higher=False),
        "schema_extra": mean([row[1] for row in errors], higher=False),
        "schema_type": mean([row[2] for row in errors], higher=False),
        "json_match": mean([float(same(v) == same(w)) for v, w in zip(values, right, strict=True)]),
    }
    if schema is not None:
        found["given_schema_valid"] = mean([float(not schema.faults(text)) for text in answered.answers])
    for name, partial in (("field_f1", False), ("field_f1_partial", True)):
        rows = [_fields(v, w, partial) for v, w in zip(values, right, strict=True)]
        found[name] = micro_f1([_total(list(row.values())) for row in rows])
    sets = [(triples(v), triples(w)) for v, w in zip(values, right, strict=True)]
    if any(w for _, w in sets):
        found["triple_f1"] = micro_f1([(len(a & w), len(a), len(w)) for a, w in sets])
        found["triple_f1_partial"] = micro_f1([_best(sorted(a), sorted(w), _alike) for a, w in sets])
    return found


def per_field(answered: Answered) -> dict[str, dict[str, Measured]]:
    """path -> "exact" and "partial" F1 of the values there, for the paths of the references."""
    right, got = _read(answered)
    result: dict[str, dict[str, Measured]] = {}
    for name, partial in (("exact", False), ("partial", True)):
        rows = [_fields(a.value, w, partial) for a, w in zip(got, right, strict=True)]
        for path in sorted({path for row in rows for path, counts in row.items() if counts[2]}):
            result.setdefault(path, {})[name] = micro_f1([row.get(path, _NOTHING) for row in rows])
    return result


def forms(answered: Answered) -> dict[str, int]:
    """How many answers are nothing but JSON ("whole"), in a code "fence", "embedded" in words, or "none"."""
    counts = Counter(parse(answer).form for answer in checked(answered).answers)
    return {form: counts[form] for form in ("whole", "fence", "embedded", "none")}


def triples(value: Any) -> set[Triple]:
    """All (subject, predicate, object) in a JSON value: objects with these keys (or head, relation, tail and
    the usual Chinese words) and, in a list of lists, three texts.
    """
    found: set[Triple] = set()
    if isinstance(value, dict):
        keys = {str(key).strip().lower(): key for key in value}
        for names in _TRIPLE_KEYS:
            if all(name in keys for name in names):
                s, p, o = (_text(value[keys[name]]) for name in names)
                return {(s, p, o)}
        return found.union(*(triples(v) for v in value.values()))
    if isinstance(value, list):
        for item in value:
            if isinstance(item, list) and len(item) == 3 and all(isinstance(part, str) for part in item):
                found.add((item[0].strip(), item[1].strip(), item[2].strip()))
            else:
                found |= triples(item)
    return found


def _read(answered: Answered) -> tuple[list[Any], list[Found]]:
    right = wanted(
        answered,
        lambda text: parse(text).value,
        "is no JSON object or list -> mend the row, or name the task",
    )
    return right, [parse(answer) for answer in answered.answers]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that holds no other, with its path; empty objects and lists are values."""
    if isinstance(value, dict) and value:
        for key, inside in value.items():
            yield from _leaves(inside, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for inside in value:
            yield from _leaves(inside, f"{path}[]")
    else:
        yield path, value


def _fields(value: Any, wanted: Any, partial: bool) -> dict[str, Counts]:
    """path -> matched, answered, wanted; an unread answer (None) has no values."""
    sides: list[dict[str, list[Any]]] = [defaultdict(list), defaultdict(list)]
    for side, whole in zip(sides, (value, wanted), strict=True):
        for path, leaf in _leaves(whole) if whole is not None else ():
            side[path].append(leaf)
    score = _likeness if partial else None
    return {path: _best(sides[0][path], sides[1][path], score) for path in {**sides[0], **sides[1]}}


def _best(mine: Sequence[Any], theirs: Sequence[Any], score: Callable[[Any, Any], float] | None) -> Counts:
    """Equal values pair off first; with `score` the rest do, the most alike first."""
    left, right = (Counter(same(_listed(v)) for v in side) for side in (mine, theirs))
    matched = float((left & right).total())
    if score is not None:
        a, b = _rest(mine, left & right), _rest(theirs, left & right)
        pairs = sorted((-score(x, y), i, j) for i, x in enumerate(a) for j, y in enumerate(b))
        used: tuple[set[int], set[int]] = (set(), set())
        for negative, i, j in pairs:
            if i not in used[0] and j not in used[1]:
                matched -= negative
                used[0].add(i)
                used[1].add(j)
    return matched, float(len(mine)), float(len(theirs))


def _rest(values: Sequence[Any], taken: Counter[str]) -> list[Any]:
    left, rest = Counter(taken), []
    for value in values:
        key = same(_listed(value))
        left[key] -= 1
        if left[key] < 0:
            rest.append(value)
    return rest


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _likeness(a: Any, b: Any) -> float:
    return token_f1(_text(a), _text(b))


def _alike(a: Triple, b: Triple) -> float:
    return sum(token_f1(x, y) for x, y in zip(a, b, strict=True)) / 3


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else same(value)


def _total(counts: Sequence[Counts]) -> Counts:
    matched, answered, wanted = (sum(column) for column in zip(*counts, strict=True)) if counts else _NOTHING
    return matched, answered, wanted


class _Schema:
    """What the references say about keys: which exist anywhere, and the types of their values."""

    def __init__(self, references: Sequence[Any]) -> None:
        self.types: dict[str, set[str]] = defaultdict(set)
        for reference in references:
            for path, kind, _ in _nodes(reference):
                self.types[path].add(kind)

    def all_errors(self, values: Sequence[Any], wanted: Sequence[Any]) -> list[Counts]:
        """(missing, extra, wrong type) of each row; an unread answer lacks all that its reference has."""
        return [self.errors(v, w) for v, w in zip(values, wanted, strict=True)]

    def errors(self, value: Any, wanted: Any) -> Counts:
        """Missing: keys that every object at that path of the row's reference has. Extra: keys of no
        reference. Wrong type: a type that no reference has there.
        """
        needed = _needed(wanted)
        if value is None:
            return float(sum(map(len, needed.values()))), 0.0, 0.0
        missing, extra, wrong = 0, 0, 0
        for path, kind, keys in _nodes(value):
            missing += len(needed.get(path, frozenset()) - keys) if kind == "object" else 0
            if path not in self.types:
                extra += 1
            elif kind not in self.types[path]:
                wrong += 1
        seen = {path for path, kind, _ in _nodes(value) if kind == "object"}
        missing += sum(len(keys) for path, keys in needed.items() if path not in seen)
        return float(missing), float(extra), float(wrong)


def _nodes(value: Any, path: str = "") -> Iterator[tuple[str, str, frozenset[str]]]:
    """Path, type and keys of each value, those that hold others included."""
    keys = frozenset(value) if isinstance(value, dict) else frozenset()
    yield path, _kind(value), keys
    inside = value.items() if isinstance(value, dict) else []
    for key, child in inside:
        yield from _nodes(child, f"{path}.{key}" if path else str(key))
    for child in value if isinstance(value, list) else []:
        yield from _nodes(child, f"{path}[]")


def _needed(wanted: Any) -> dict[str, frozenset[str]]:
    needed: dict[str, frozenset[str]] = {}
    for path, kind, keys in _nodes(wanted):
        if kind == "object":
            needed[path] = needed.get(path, keys) & keys
    return needed


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", dict: "object", list: "list"}
    return kinds.get(type(value), "null")
