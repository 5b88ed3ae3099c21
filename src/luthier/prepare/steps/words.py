"""Steps that come from search engines and bags of words. All are off: a language model is better without
them.

A model reads word forms, case, commas and function words as meaning, has seen billions of words with them,
and learns to write what it is shown: trained on text without them, it answers without them. They are here for
texts that feed something else (a classifier on word counts, a key for comparing), and because people ask for
them.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Collection, Iterator
from importlib.resources import files
from typing import Any

import yaml

from luthier.errors import MissingPackage, UsageError
from luthier.measure.strings import word_cutter
from luthier.prepare.span import Span, replaced
from luthier.prepare.steps import Outcome, outcome
from luthier.prepare.text import without_code

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]+(?:['’][A-Za-z]+)*")
_MARK = re.compile(r"[^\w\s]+")
_NEGATIONS = ("not", "no", "nor", "不", "没", "没有")
_TYPOGRAPHIC = {'"': "“”„‟«»", "'": "‘’‚‛", "-": "—–―‐‑", "...": "…"}
_UNIFORM = {ord(sign): plain for plain, signs in _TYPOGRAPHIC.items() for sign in signs}


def lowercasing(text: str, keep: Collection[str] = ()) -> Outcome:
    """Lower case outside of code, but for the words in `keep`.

    Pitfall: proper names and what case tells (US and us, Polish and polish, WHO) are lost; that is why it is
    off. Chinese has no case. Rarely helps: a tokenizer has its own tokens for "The" and "the" and knows both.
    """
    view, kept = without_code(text), set(keep)
    spans = (found for found in _WORD.finditer(view) if found.group() not in kept)
    found = [Span("lowercased", *word.span(), "") for word in spans if word.group() != word.group().lower()]
    return outcome(text, replaced(text, found, lambda place: text[place.start : place.end].lower()))


def punctuation_removal(text: str, mode: str = "uniform", keep: str = "") -> Outcome:
    """mode="uniform": typographic quotation marks, dashes and "…" to ASCII; "remove": no punctuation at all.

    Pitfall: marks carry meaning: "?" asks, "!" shouts, "." divides 3.14, "-" negates. So removing is not the
    default even of this step, marks between digits and those in `keep` stay, and code is left alone.
    "uniform" leaves Chinese texts alone, whose quotation marks and dashes are right as they are.
    """
    if mode not in ("uniform", "remove"):
        raise UsageError(f"punctuation_removal: no mode {mode!r} -> uniform or remove")
    view = without_code(text)
    if mode == "uniform":
        if re.search("[\u3001-\u30ff\u4e00-\u9fff]", text):
            return Outcome(text)
        found = [Span("punctuation", *m.span(), "") for m in re.finditer("[“”„‟«»‘’‚‛—–―‐‑…]", view)]
        return outcome(text, replaced(text, found, lambda p: text[p.start : p.end].translate(_UNIFORM)))
    found = [
        Span("punctuation", at, at + 1, "")
        for run in _MARK.finditer(view)
        for at in range(*run.span())
        if text[at] not in keep and text[at] != "\0" and not _between_digits(text, at) and view[at] != "\0"
    ]
    return outcome(text, replaced(text, found, lambda _: ""))


def _between_digits(text: str, at: int) -> bool:
    return 0 < at < len(text) - 1 and text[at - 1].isdigit() and text[at + 1].isdigit()


def stop_word_removal(text: str, language: str = "en", keep: Collection[str] = _NEGATIONS) -> Outcome:
    """Removes function words of English ("en") or Chinese ("zh", cut into words by jieba).

    Pitfall: "to be or not to be" is all stop words, and "not" turns a sentence round, so negations stay
    (`keep`). Chinese must be cut into words first: 的 in 目的 is no stop word. Rarely helps: function words
    are what a model reads grammar from.
    """
    if language not in ("en", "zh"):
        raise UsageError(f"stop_word_removal: no list for {language!r} -> en or zh")
    stop = _stop_words()[language] - set(keep)
    view = without_code(text)
    if language == "en":
        words = re.finditer(r"[A-Za-z']+[ \t]?", view)
        spans = [word.span() for word in words if word.group().strip().lower() in stop]
    else:
        spans = [(at, at + len(word)) for at, word in _chinese_words(view) if word in stop]
    return outcome(text, replaced(text, [Span("stop_word", *span, "") for span in spans], lambda _: ""))


def _chinese_words(text: str) -> Iterator[tuple[int, str]]:
    """(where it begins, word) by jieba, of which `measure.strings` is the door."""
    cut, how = word_cutter()
    if how != "jieba":
        raise MissingPackage("jieba", "removing Chinese stop words", "data")
    at = 0
    for word in cut(text):
        yield at, word
        at += len(word)


@functools.cache
def _stop_words() -> dict[str, set[str]]:
    text = files("luthier.prepare.steps").joinpath("stop_words.yaml").read_text(encoding="utf-8")
    return {language: set(words.split()) for language, words in yaml.safe_load(text).items()}


def lemmatization(text: str, language: str = "en") -> Outcome:
    """Words to their dictionary form by simplemma (MIT, offline dictionaries of some 50 languages).

    Pitfall: costs time, and loses what a model must learn to write ("went" becomes "go"); it beats stemming
    only in giving real words. Without the sentence a form may be taken for another ("saw"). Chinese has no
    inflection.
    """
    simplemma = _package("simplemma", "lemmatization")
    view = without_code(text)
    found = [Span("lemma", *word.span(), "") for word in _LATIN_WORD.finditer(view)]

    def lemma(place: Span) -> str:
        word = text[place.start : place.end]
        try:
            return str(simplemma.lemmatize(word, lang=language))
        except ValueError as error:
            raise UsageError(f"lemmatization: {error} -> a code such as en, de, fr") from error

    return outcome(text, replaced(text, found, lemma))


def spelling(text: str, known: Collection[str] = (), language: str = "en", most: int = 20) -> Outcome:
    """Suggests corrections of misspelt words (pyspellchecker, MIT, offline); never changes anything.

    Pitfall: automatic correction brings new errors and changes meaning: names, terms and new words are
    "misspelt" too. So it only suggests, skips code, capitals, digits and `known` words, and stops after
    `most`. Chinese has no misspelt words in this sense, only wrong characters, which need a model.
    """
    checker = _spell_checker(language)
    accepted = {word.lower() for word in known}
    suggested = []
    for word in re.finditer(r"(?<![\w@./#-])[a-z]{4,20}(?![\w@/'’-]|\.\w)", without_code(text)):
        if word.group() in accepted or word.group() in checker:
            continue
        better = checker.correction(word.group())
        if better and better != word.group():
            suggested.append(Span("spelling", *word.span(), f"{word.group()} → {better}?"))
        if len(suggested) >= most:
            break
    return Outcome(text, suggested=tuple(suggested))


@functools.cache
def _spell_checker(language: str) -> Any:
    package = _package("spellchecker", "spelling")
    try:
        return package.SpellChecker(language=language, distance=1)
    except ValueError as error:
        raise UsageError(f"spelling: {error} -> en, de, es, fr, it, nl, pt, ru, ar") from error


def _package(name: str, why: str) -> Any:
    """simplemma or spellchecker, whose only door this is."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        wheel = "pyspellchecker" if name == "spellchecker" else name
        raise MissingPackage(wheel, why, "data") from missing
