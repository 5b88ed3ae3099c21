"""Unicode classes one by one, the account of changes, and what a plain NFKC would have broken."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import UsageError
from luthier.prepare import normal
from luthier.prepare.span import Change, apply, chain, revert

CASES = [
    ("Ａ１ｚ", "A1z", "width"),
    ("⻓⼯⺁", "长工厂", "radicals"),
    ("\uf9e4", "理", "ideographs"),
    ("ﬁne oﬃce", "fine office", "ligatures"),
    ("a\u00a0b\u2009c", "a b c", "spaces"),
    ("\ufeffa\u200bb\u00adc", "abc", "invisible"),
    ("a\u200db中\u200c文", "ab中文", "invisible"),
    ("hid\U000e0041\U000e0042den", "hidden", "invisible"),
    ("\u202eabc\u2066", "abc", "bidi"),
    ("a\x00b\x07\x1b[31mc", "abc", "controls"),
    ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne", "lines"),
    ("ｶﾞｷﾞ｡", "ガギ。", "kana"),
    ("e\u0301", "é", "compose"),
    ("\u1112\u1161\u11ab", "한", "compose"),
    ("\u2126", "\u03a9", "compose"),
    ("\ud83d\ude00\ud800", "😀\ufffd", "surrogates"),
]
KEPT = [
    "你好，世界！（测试）：“引号”；《书名》……～、。「」　缩进",
    "，。：；！？（）",
    "x² ① ½ ㎏ ™ …",
    "👩\u200d💻 👨\u200d👩\u200d👧 ❤️",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "می\u200cخواهم",
    "क्\u200dष",
    "שלום \u200eabc\u200f",
    "plain ASCII\twith a tab\nand a line",
    "＋％＠",
]


@pytest.mark.parametrize(("text", "new", "kind"), CASES)
def test_a_class(text: str, new: str, kind: str) -> None:
    made, changes = normal.normalise(text)
    assert made == new
    assert {change.kind for change in changes} == {kind}
    assert revert(made, changes) == text
    assert normal.normalise(text, **{kind: False})[1] == []


@pytest.mark.parametrize("text", KEPT)
def test_kept(text: str) -> None:
    assert normal.normalise(text) == (text, [])


def test_what_nfkc_does_instead() -> None:
    """The reason for a map of our own; the second line fails when Unicode has changed its mind."""
    assert unicodedata.normalize("NFKC", "你好，世界！") == "你好,世界!"
    assert unicodedata.normalize("NFKC", "⻓") == "⻓"


def test_every_radical_and_compatibility_ideograph_becomes_unified() -> None:
    supplement = [chr(code) for code in range(0x2E81, 0x2EF4) if code != 0x2E9A]
    kangxi = [chr(code) for code in range(0x2F00, 0x2FD6)]
    compatible = [chr(code) for code in [*range(0xF900, 0xFA0E), *range(0x2F800, 0x2FA1E)]]
    for sign in [*supplement, *kangxi, *compatible]:
        new, _ = normal.normalise(sign)
        assert len(new) == 1 and "UNIFIED" in unicodedata.name(new), (sign, new)


def test_classes_that_are_off() -> None:
    assert normal.normalise("＋％＠", symbols=True)[0] == "+%@"
    assert normal.normalise("x²①㎏，……", compatibility=True)[0] == "x21kg，……"


def test_account() -> None:
    new, changes = normal.normalise("Ａ１，\u200b⻓")
    assert new == "A1，长"
    assert changes == [
        Change("width", 0, 2, "Ａ１", "A1"),
        Change("invisible", 3, 4, "\u200b", ""),
        Change("radicals", 4, 5, "⻓", "长"),
    ]


def test_composition_after_another_class_is_one_change() -> None:
    new, changes = normal.normalise("Ａ\u0301")
    assert new == "Á" and changes == [Change("width", 0, 2, "Ａ\u0301", "Á")]


def test_unknown_class() -> None:
    with pytest.raises(UsageError, match="widht"):
        normal.normalise("x", widht=True)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=30))
def test_any_text_comes_back_and_twice_is_once(text: str) -> None:
    new, changes = normal.normalise(text)
    assert revert(new, changes) == text and apply(text, changes) == new
    again, _ = normal.normalise(new)
    assert again == normal.normalise(again)[0]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="e\u0301각각A理אབྷΩ", max_size=20))
def test_composition_is_nfc(text: str) -> None:
    only = {name: name == "compose" for name in normal.CLASSES} | {"ideographs": True}
    assert normal.normalise(text, **only)[0] == unicodedata.normalize("NFC", text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abc", max_size=12), st.randoms(use_true_random=False))
def test_chained_changes_are_both(text: str, random: object) -> None:
    first = _some(text, random)
    middle = apply(text, first)
    second = _some(middle, random)
    both = chain(first, second)
    assert apply(text, both) == apply(middle, second)
    assert revert(apply(middle, second), both) == text


def _some(text: str, random: object) -> list[Change]:
    """A few changes of `text`, empty ones among them."""
    changes, at = [], 0
    while at <= len(text) and random.random() < 0.7:  # type: ignore[attr-defined]
        start = random.randint(at, len(text))  # type: ignore[attr-defined]
        end = random.randint(start, min(len(text), start + 3))  # type: ignore[attr-defined]
        new = "XYZ"[: random.randint(0, 3)]  # type: ignore[attr-defined]
        if text[start:end] != new:
            changes.append(Change("k", start, end, text[start:end], new))
        at = end + 1
    return changes
