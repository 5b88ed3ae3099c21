"""Multiple choice: the letter that an answer chooses, and whether it is the right one."""

from __future__ import annotations

import re
import unicodedata

from luthier.measure.metrics import mean, wanted
from luthier.measure.types import Answered, Measured

LETTERS = "ABCDEFGHIJ"
# In the patterns, @ stands for the letters of the task.
_NOT_TWO = r"(?!\s*(?:[和与或及跟、,/]|and|or)\s*[@])"
_ONE = r"[（(\[【{《\"'“‘*_\s]*([@])(?![A-Za-z0-9'’])" + _NOT_TWO
# Said outright; the last such sentence counts, because reasoning comes before its result.
_SAID = (
    r"\\boxed\{\s*(?:\\text\{)?\s*([@])(?![A-Za-z])",
    r"(?:答案|正确选项|正确的选项)(?:应该|应当|应)?(?:是|为|选择|选)?[\s:：]*(?:选项|选)?" + _ONE,
    r"(?i:\b(?:answer|choice)\b(?:\s+(?:is|would be|should be))?)[\s:*]*(?i:option\s+)?" + _ONE,
)
# Chosen in passing: 选A, 选择 B, "option C", "I choose D".
_CHOSEN = (
    r"(?<!不)(?<!不能)(?<!别)选(?:择|项)?[\s:：]*" + _ONE,
    r"(?i:\b(?:option|choose|pick|select)\b)[\s:]*(?i:option\s+)?" + _ONE,
)
_FIRST = (
    r"[（(\[【\"'“‘*_\s]*([@])" + _NOT_TWO + r"[)）\]】\"'”’*_]*\s*(?=$|[.。、:：,，;；)）\n\u3400-\u9fff])"
)
_ALONE = r"(?<![A-Za-z0-9])([@])(?![A-Za-z0-9'’])(?!(?<=[AI])\s+[a-z])"


def metrics(answered: Answered) -> dict[str, Measured]:
    """Accuracy of the chosen letters and the share of answers that choose none, which are wrong.

    Raises DataError for a reference that is not one letter.
    """
    right = wanted(
        answered, letter, f"chooses no single letter A to {LETTERS[-1]} -> mend the row, or name the task"
    )
    letters = LETTERS[: max(4, 1 + max(map(LETTERS.index, right)))]
    got = [letter(answer, letters) for answer in answered.answers]
    return {
        "accuracy": mean([float(g == w) for g, w in zip(got, right, strict=True)]),
        "no_letter": mean([float(g is None) for g in got], higher=False),
    }


def letter(text: str, letters: str = LETTERS) -> str | None:
    """The one of `letters` that a text chooses, or None.

    In this order: what it says is the answer ("答案是 B", "the answer is (B)"), the letter that it begins
    with ("B. 因为…"), what it chooses in passing ("选B", "option B"), the only letter that stands alone. No
    choice is "A dog". Small letters count where they are the whole text.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    whole = text.strip(" .。()[]\"'*").upper()
    if len(whole) == 1:
        return whole if whole in letters else None
    for patterns in (_SAID, (r"\A" + _FIRST,), _CHOSEN):
        found = [m for p in patterns for m in re.finditer(p.replace("@", letters), text)]
        if found:
            return str(max(found, key=lambda m: m.end()).group(1))
    alone = set(re.findall(_ALONE.replace("@", letters), text))
    return str(alone.pop()) if len(alone) == 1 else None
