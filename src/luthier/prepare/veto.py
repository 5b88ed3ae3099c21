"""Why two texts that look alike are not the same: a number, a name, a "not" or another word that matters.

"Your order 1021 has left" and "Your order 1022 has left" share nearly all their characters and are two facts.
Numbers are compared for every row (`numbers`), the rest only for pairs that resemble each other (`differs`).
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from difflib import SequenceMatcher
from typing import Any

from luthier.errors import MissingPackage
from luthier.prepare.span import whole

_HAN = "\u3400-\u9fff"
# Digits with the letters around them (an order number, "iphone12"), Chinese numerals where they count
# something, English number words. A lone 一 or "one" is mostly a pronoun or an article.
_NUMBER = re.compile(
    r"(?<![a-z])[a-z]*[0-9][a-z0-9]*(?:[.,:/-][0-9]+)*"
    r"|(?:周|星期|礼拜)[一二三四五六日天]"
    r"|第[一二三四五六七八九十百千万零两〇]+"
    r"|[一二三四五六七八九十百千万亿零两〇]{2,}"
    r"|[一二三四五六七八九十两](?=[年月日号章节集期届季点元块岁周倍])"
    r"|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred|thousand|million)\b"
)
_TOKEN = re.compile(rf"[^\W{_HAN}]+(?:['’][a-z]+)?|[{_HAN}]", re.IGNORECASE)
_START = re.compile(r"(?:^|[.!?:;\n\"“”。！？：；(])\s*$")
_TITLE = re.compile(r"《([^《》]+)》")
_NEGATIONS = frozenset("不 没 未 非 无 not no never without cannot none nor neither nothing".split())
_OPPOSITES = frozenset(
    frozenset(pair)
    for pair in "男女 涨跌 升降 增减 买卖 开关 上下 左右 大小 多少 高低 输赢 胜负 进出 前后".split()
)
_SENTENCE = re.compile(r"[.!?](?:\s|$)|[。！？\n]")
_CONTEXT, _WINDOW = 6, 120
# More sentences, or longer ones, than a question has are an edited text; and how alike reworded ones are.
_SENTENCES, _QUESTION, _REWORDED = 2, 300, 0.6
# In a short text a changed word is a changed meaning, unless it is the same word mistyped.
_MISTYPED, _FEW, _ADDED = 0.7, 3, 0.1


def numbers(text: str) -> str:
    """The numbers in a normalised text in their order, as one word; "" where there are none."""
    return " ".join(found.replace(",", "") for found in _NUMBER.findall(text))


def differs(a: str, b: str, short: bool = False) -> str | None:
    """What tells two texts apart: "number", "negation", "title", "name", "word", "sentence"; None if
    nothing does.

    a, b: the texts as written (capitals tell English names). short: a single word weighs much in them, so
    another word is a difference too, except a mistyped one or a few letters more ("the", "new").
    Raises MissingPackage without jieba when Chinese characters differ, because only a dictionary knows names.
    """
    if numbers(a.casefold()) != numbers(b.casefold()):
        return "number"
    mine, theirs = _changed(a, b)
    changed = {*mine, *theirs}
    if not changed:
        return None
    if _letters(mine) == _letters(theirs):
        return None  # two letters or a blank changed places
    if _negations(mine) != _negations(theirs) or changed in _OPPOSITES:
        return "negation"
    if _titles(a) != _titles(b):
        return "title"
    if _mistyped("".join(mine), "".join(theirs)):
        return None
    if changed & (_capitalised(a) | _capitalised(b)):
        return "name"
    if short and ((mine and theirs) or _long("".join(mine + theirs), min(len(a), len(b)))):
        return "word"
    if any("\u3400" <= word <= "\u9fff" for word in changed) and _other_chinese_name(a, b):
        return "name"
    return "sentence" if mine and theirs and _other_sentence(a, b) else None


def _changed(a: str, b: str) -> tuple[list[str], list[str]]:
    """Words (Chinese: characters) without digits, case folded, that a text has more often than the other."""
    words = [
        [word for word in _TOKEN.findall(text.casefold()) if not any(c.isdigit() for c in word)]
        for text in (a, b)
    ]
    counts = [Counter(found) for found in words]
    return list((counts[0] - counts[1]).elements()), list((counts[1] - counts[0]).elements())


def _letters(words: list[str]) -> list[str]:
    return sorted(c for word in words for c in word if c.isalnum())


def _negations(words: list[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith(("n't", "n’t")) for word in words)


def _mistyped(one: str, other: str) -> bool:
    """A slip of the keyboard: one Chinese character, nearly the same word (or two without their blank), or a
    word of which a letter is left that is no word."""
    if max(len(one), len(other)) <= 1:
        return any("\u3400" <= c <= "\u9fff" for c in one + other)
    shorter, longer = sorted((one, other), key=len)
    if len(shorter) == 1 and len(longer) == 2 and shorter in longer and shorter not in "ai":
        return True
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= _MISTYPED


def _long(added: str, length: int) -> bool:
    return len(added) > max(_FEW, _ADDED * length)


def _titles(text: str) -> list[str]:
    """《Titles》, each as its characters in alphabetical order, so that swapping two makes no difference."""
    return sorted("".join(sorted(title)) for title in _TITLE.findall(text))


def _capitalised(text: str) -> set[str]:
    """Words with a capital inside a sentence, case folded; none where most letters are capitals."""
    if sum(c.isupper() for c in text) * 2 > sum(c.islower() for c in text) + 2 * (text[:1].isupper()):
        return set()
    return {
        found.group().casefold()
        for found in _TOKEN.finditer(text)
        if found.group()[0].isupper()
        and found.group() not in ("I", "I'm", "I've", "I'd", "I'll")
        and not _START.search(text[max(0, found.start() - 3) : found.start()])
    }


def _other_sentence(a: str, b: str) -> bool:
    """Whether a long text is the same, and what is asked about it is not.

    That is so when only the first or only the last sentence has other words (a question before or after a
    document, a short input after a long instruction), or when one or two sentences are quite different.
    """
    ours, theirs = (
        [" ".join(s.split()) for s in _SENTENCE.split(text.casefold()) if s.strip()] for text in (a, b)
    )
    mine, other = ([s for s in one if s not in rest] for one, rest in ((ours, {*theirs}), (theirs, {*ours})))
    if not 0 < len(mine) <= _SENTENCES or not 0 < len(other) <= _SENTENCES:
        return False
    alone = len(mine) == len(other) == 1 < min(len(ours), len(theirs))
    if alone and any(mine[0] == ours[end] and other[0] == theirs[end] for end in (0, -1)):
        return True
    one, two = " ".join(mine), " ".join(other)
    if max(len(one), len(two)) > _QUESTION:
        return False
    return SequenceMatcher(None, one, two, autojunk=False).ratio() < _REWORDED


def _other_chinese_name(a: str, b: str) -> bool:
    """Whether a person, place or organisation stands in the part of one text that the other lacks."""
    changed = whole("", a, b)
    if not changed:
        return False
    start, end = changed[0].start, len(a) - changed[0].end
    begin = max(0, start - _CONTEXT)
    windows = [text[begin : len(text) - max(0, end - _CONTEXT)][:_WINDOW] for text in (a, b)]
    mine, theirs = (_names(window) for window in windows)
    return any(name not in b for name in mine) or any(name not in a for name in theirs)


@functools.lru_cache(maxsize=4096)
def _names(text: str) -> frozenset[str]:
    return frozenset(
        pair.word for pair in _tagger().cut(text) if pair.flag in ("nr", "ns", "nt") and len(pair.word) > 1
    )


@functools.cache
def _tagger() -> Any:
    try:
        import jieba
        from jieba import posseg
    except ImportError as error:
        raise MissingPackage("jieba", "telling Chinese names apart", "data") from error
    jieba.setLogLevel("ERROR")
    return posseg
