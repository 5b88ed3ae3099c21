"""Placeholders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from luthier.errors import UsageError
from luthier.prepare import text as checks
from luthier.prepare.span import Span, replaced
from luthier.prepare.steps import Outcome, outcome

GAP = "…"
"""Stands for a value in the command that `luthier data check` prints; nobody wants it in the data."""
_BRACKETS = "{}$<>[]【】〔〕［］《》「」（）()% \t"


def placeholder_filling(text: str, values: str | Mapping[str, str] = "") -> Outcome:
    """Fills in {{name}}, [Your Name] and their like, by name: values="name=Lily,author=Our Team".

    Pitfall: a template in the data may be meant (a lesson on Jinja, a form letter that somebody asked for).
    So only names that are given are filled in; the others stay and are reported as suggestions. Names are
    compared without brackets, blanks at the ends, and case. Raises UsageError for values that name nothing
    and for the "…" of a command that nobody has filled in.
    """
    known = _values(values)
    found = checks.placeholders(text)
    filled = [span for span in found if name(span, text).casefold() in known]
    made = outcome(text, replaced(text, filled, lambda span: known[name(span, text).casefold()]))
    return Outcome(made.text, made.changes, made.reason, tuple(span for span in found if span not in filled))


def name(span: Span, text: str) -> str:
    """What is to be filled in, without brackets: "name" of {{name}}."""
    return text[span.start : span.end].strip(_BRACKETS)


def option(names: Iterable[str]) -> str:
    """The option of this step with a gap for each of `names`: values=name=…,author=…"""
    gaps = dict.fromkeys(names, GAP)
    if any(set(one) & set(",=") for one in gaps):
        return "placeholder_filling.values=" + json.dumps(gaps, ensure_ascii=False)
    return "placeholder_filling.values=" + ",".join(f"{one}={GAP}" for one in gaps)


def _values(given: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(given, Mapping):
        values = {str(key): str(value) for key, value in given.items()}
    else:
        pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
        if any(not key.strip() or not equals for key, equals, _ in pairs):
            raise UsageError(f"placeholder_filling: {given!r} -> values=name=Lily,author=Our Team")
        values = {key.strip(): value for key, _, value in pairs}
    if gaps := [key for key, value in values.items() if value.strip() == GAP]:
        raise UsageError(
            f"placeholder_filling: no value for {', '.join(gaps)} -> write what to say in place of {GAP}"
        )
    return {key.casefold(): value for key, value in values.items()}
