"""Missing text, rows that mean nothing, and rows that a person does not want."""

from __future__ import annotations

import functools
import re

from luthier.errors import UsageError
from luthier.prepare import numbered
from luthier.prepare.steps import Outcome
from luthier.types import BadRow, Example

_SAYS_NOTHING = re.compile(r"(?i:n/?a|nan|none|null|nil|undefined|-+|\.+|#n/a|空|无|暂无|缺失|未填写)?")


def structure(example: Example | BadRow) -> Outcome:
    """Drops a row that training cannot use, whatever the reason: an unknown role, an answer that is a list.

    Pitfall: losing rows that a small repair would save. A misspelt column makes every row unusable, and a row
    that is dropped is not mended. So the step is off: such rows stay in the file and are counted, with their
    reasons, at the end of each cleaning.
    """
    if isinstance(example, BadRow):
        return Outcome(None, reason=_why(example))
    return Outcome("")


def row_removal(example: Example | BadRow, rows: str = "") -> Outcome:
    """Drops rows by the number that they have in the input: rows=17,20-30, of one file rows=b.json:4-9.

    `luthier data check` writes the command with the rows that nothing else mends: answers that stop in the
    middle, characters that were lost.

    Pitfall: dropping what nobody has read, and dropping twice. A check suggests, a person reads; numbers are
    those of the input, so on a file that was cleaned before they mean other rows. Raises UsageError without
    rows, and for words that are no numbers.
    """
    if numbered.has(_numbers(rows), example.source):
        return Outcome(None, reason="was named")
    return Outcome("")


@functools.lru_cache
def _numbers(rows: str) -> numbered.Rows:
    try:
        found = numbered.parsed(rows)
    except ValueError as error:
        raise UsageError(f"row_removal: {error} names no rows -> row_removal.rows=17,20-30") from error
    if not found:
        raise UsageError("row_removal: which rows? -> row_removal.rows=17,20-30")
    return found


def missing_text(example: Example | BadRow, words: bool = False, system: bool = False) -> Outcome:
    """Drops a row whose question or answer is empty or not there; `.text` of the outcome is "" when it stays.

    Pitfall: dropping too much. Only what training needs counts: each branch must say something (a message or
    a tool call), and where there are turns before it, the last of them. An empty system prompt or an empty
    `input` is normal and stays (`system=True` asks for one too); "无" and "None" may be a right answer, so
    they count as missing only with `words=True`. The counts of dropped rows should be looked at by label:
    when one class loses most of its rows, ask why instead of dropping them. A row that cannot be used for
    another reason stays, and so does one whose column seems to be misspelt: renaming it mends the row.
    """
    if isinstance(example, BadRow):
        missing = example.reason.startswith(("empty", "missing; the row has"))
        return Outcome(None, reason=_why(example)) if missing else Outcome("")
    if not any(turn.content.strip() for turn in example.trunk) and example.trunk:
        return Outcome(None, reason="empty prompt")
    if system and not any(turn.role == "system" and turn.content.strip() for turn in example.trunk):
        return Outcome(None, reason="no system prompt")
    if example.trunk and not (example.trunk[-1].content.strip() or example.trunk[-1].tool_calls):
        return Outcome(None, reason=f"empty {example.trunk[-1].role} message")
    for k, branch in enumerate(example.branches):
        said = [turn for turn in branch if turn.tool_calls or not _nothing(turn.content, words)]
        if not said:
            return Outcome(None, reason=f"empty answer{f' {k + 1}' if len(example.branches) > 1 else ''}")
    if example.answer is not None and _nothing(example.answer, words):
        return Outcome(None, reason="empty answer")
    return Outcome("")


def _nothing(text: str, words: bool) -> bool:
    stripped = text.strip().strip("\u200b\ufeff")
    return not stripped or (words and _SAYS_NOTHING.fullmatch(stripped) is not None)


def _why(bad: BadRow) -> str:
    return f"{bad.field}: {bad.reason}" if bad.field else bad.reason
