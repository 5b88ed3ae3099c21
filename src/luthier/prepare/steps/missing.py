"""Missing text."""

from __future__ import annotations

import re

from luthier.prepare.steps import Outcome
from luthier.types import Example

_SAYS_NOTHING = re.compile(r"(?i:n/?a|nan|none|null|nil|undefined|-+|\.+|#n/a|空|无|暂无|缺失|未填写)?")


def missing_text(example: Example, words: bool = False, system: bool = False) -> Outcome:
    """Drops an example whose question or answer is empty; `.text` of the outcome is "" when it stays.

    Pitfall: dropping too much. Only what training needs counts: each branch must say something (a message or
    a tool call), and where there are turns before it, the last of them. An empty system prompt or an empty
    `input` is normal and stays (`system=True` asks for one too); "无" and "None" may be a right answer, so
    they count as missing only with `words=True`. The counts of dropped rows should be looked at by label:
    when one class loses most of its rows, ask why instead of dropping them.
    """
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
