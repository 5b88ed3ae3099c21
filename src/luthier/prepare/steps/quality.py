"""Filters of low quality."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from luthier.errors import UsageError
from luthier.prepare import measure
from luthier.prepare import text as checks
from luthier.prepare.steps import Outcome


def quality_filter(
    text: str,
    rules: str | Mapping[str, float] = "answers",
    shortest: int = 1,
    longest: int = 0,
    languages: Collection[str] = (),
    detector: Callable[[str], str] = measure.language,
) -> Outcome:
    """Drops a text that is too short, too long, repeats itself, is mostly symbols, or in another language.

    rules: "answers" (limits that a list, a table and a label pass), "gopher" (for documents: Rae et al. 2021,
    table A1), or limits by the names of `measure.measures`. shortest, longest: in characters, 0 for no limit.
    languages: those to keep, told by script (`measure.language`) or by `detector`; a text without letters
    ("42") has none and stays.

    Pitfall: limits that are too strict throw away good data, too loose ones keep noise. The usual limits were
    made for web pages and English words; a Chinese label of two characters fails all of them. So the default
    drops only what nobody meant to write, and the reason tells the figure beside the limit: look at what goes
    before tightening. It is asked of answers and documents alone: a question may hold a log of a thousand
    equal lines, and the worse answer of a pair is there because it is bad.
    """
    size = len(text.strip())
    if size < shortest:
        return Outcome(None, reason=f"{size} characters < {shortest}")
    if longest and size > longest:
        return Outcome(None, reason=f"{size} characters > {longest}")
    if languages and (told := detector(text)) and told not in languages:
        return Outcome(None, reason=f"language {told}, not {' or '.join(languages)}")
    found = [*measure.beyond(text, _limits(rules)), *checks.loops(text)]
    if found:
        return Outcome(None, reason="; ".join(f"{each.kind} {each.shown}" for each in found[:3]))
    return Outcome(text)


def _limits(rules: str | Mapping[str, float]) -> Mapping[str, float]:
    if not isinstance(rules, str):
        return rules
    if rules not in ("answers", "gopher"):
        raise UsageError(f"quality_filter: no rules {rules!r} -> answers, gopher, or limits by name")
    limits: Mapping[str, float] = checks.rules()[rules]
    return limits
