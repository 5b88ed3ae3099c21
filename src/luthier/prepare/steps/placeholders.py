"""Placeholders."""

from __future__ import annotations

from collections.abc import Mapping

from luthier.errors import UsageError
from luthier.prepare import text as checks
from luthier.prepare.span import Span, replaced
from luthier.prepare.steps import Outcome, outcome

_BRACKETS = "{}$<>[]【】〔〕［］《》「」（）()% \t"


def placeholder_filling(text: str, values: str | Mapping[str, str] = "") -> Outcome:
    """Fills in {{name}}, [Your Name] and their like, by name: values="name=Lily,author=Our Team".

    Pitfall: a template in the data may be meant (a lesson on Jinja, a form letter that somebody asked for).
    So only names that are given are filled in; the others stay and are reported as suggestions. Names are
    compared without brackets, blanks at the ends, and case. Raises UsageError for values that name nothing.
    """
    known = _values(values)
    found = checks.placeholders(text)
    filled = [span for span in found if _name(span, text) in known]
    made = outcome(text, replaced(text, filled, lambda span: known[_name(span, text)]))
    return Outcome(made.text, made.changes, made.reason, tuple(span for span in found if span not in filled))


def _name(span: Span, text: str) -> str:
    return text[span.start : span.end].strip(_BRACKETS).casefold()


def _values(given: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(given, Mapping):
        return {str(name).casefold(): str(value) for name, value in given.items()}
    pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
    if any(not name.strip() or not equals for name, equals, _ in pairs):
        raise UsageError(f"placeholder_filling: {given!r} -> values=name=Lily,author=Our Team")
    return {name.strip().casefold(): value for name, _, value in pairs}
