"""A user's own JSON Schema (json-schema.org, drafts 3 to 2020-12): which answers meet it, what others break.

The one door of the package `jsonschema`. Nothing is fetched: a schema that refers to another document is
refused when it is loaded, not when the first answer reaches the reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from luthier.errors import MissingPackage, UsageError
from luthier.measure.metrics.json_text import parse

NO_JSON = "no JSON"
"""The kind of error of an answer in which there is no JSON at all."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class Fault(NamedTuple):
    """kind: the word of the schema that an answer breaks ("required", "type", "enum") · what: in words."""

    kind: str
    what: str


@dataclass(frozen=True, eq=False)
class Schema:
    """A schema as it was loaded. name: of its file."""

    name: str
    validator: Any

    def faults(self, answer: str) -> list[Fault]:
        """What is wrong with the JSON of an answer, in the order of its parts; [] where nothing is."""
        found = parse(answer)
        if found.form == "none":
            return [Fault(NO_JSON, "it holds no JSON")]
        try:
            errors = sorted(self.validator.iter_errors(found.value), key=lambda one: str(one.json_path))
        except RecursionError:
            return [Fault("$ref", f"{self.name} refers to itself without end")]
        return [Fault(str(one.validator), f"{one.json_path}: {one.message}") for one in errors]


def load(path: str | Path) -> Schema:
    """The schema in a JSON file. Raises UsageError where there is none, MissingPackage without jsonschema."""
    try:
        from jsonschema import exceptions, validators
        from referencing import Registry
    except ImportError as error:
        raise MissingPackage("jsonschema", "--schema", "metrics") from error
    content = _read(Path(path))
    kind = validators.validator_for(content, default=validators.Draft202012Validator)
    try:
        kind.check_schema(content, format_checker=kind.FORMAT_CHECKER)
    except exceptions.SchemaError as error:
        raise UsageError(f"{path}: {error.json_path}: {error.message} -> mend the schema") from error
    _refuse_foreign(content, path)
    return Schema(Path(path).name, kind(content, registry=Registry(), format_checker=kind.FORMAT_CHECKER))


def _read(path: Path) -> Any:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"--schema: {path}: {error.strerror} -> the path of a JSON schema") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON ({error}) -> a JSON schema") from error
    if not isinstance(content, Mapping):
        raise UsageError(f'{path}: is no object -> a JSON schema, such as {{"type": "object"}}')
    return content


def _references(value: Any) -> Iterator[str]:
    """Every reference in a schema."""
    if isinstance(value, Mapping):
        for key, inside in value.items():
            if key in _REFERENCES and isinstance(inside, str):
                yield inside
            yield from _references(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _references(inside)


def _refuse_foreign(content: Mapping[str, Any], path: str | Path) -> None:
    """Raise UsageError for a reference to what is not in the file."""
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    whole: Any = Resource.from_contents(content, default_specification=DRAFT202012)
    uri = whole.id() or ""
    resolver = Registry().with_resource(uri, whole).resolver(uri)
    for reference in _references(content):
        try:
            resolver.lookup(reference)
        except Unresolvable as error:
            raise UsageError(
                f'{path}: "{reference}" is not in this file, and nothing is fetched -> write it under "$defs"'
            ) from error
