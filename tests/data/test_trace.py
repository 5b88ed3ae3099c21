"""The view of tokens is what training reads: the same ids, weights and cuts, and the whole rendered text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

import chat
from luthier.data import prepare, registry, trace
from luthier.data import template as templates
from luthier.data.cutoff import Coded
from luthier.data.encode import BREAK, SEAM, Encoder
from luthier.data.render import Renderer
from luthier.data.turns import Piece
from luthier.types import BadRow, Example, Message

SHARED = Path(__file__).parents[3] / "shared" / "data" / "lf_demo"
MARKS = {ord(mark): None for mark in (BREAK, SEAM)}
WORDS = " ".join(f"w{k}" for k in range(100))


def groups(made: Renderer, example: Example) -> list[list[trace.Unit]]:
    [parts] = made.pieces([example])
    assert not isinstance(parts, BadRow), parts
    return [trace.units(made.encoder, group, spelt=True) for group in parts[0]]


def runs(texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one kind joined; no empty ones."""
    shown = [one for one in texts if one[0]]
    return [("".join(t for t, _ in run), kind) for kind, run in groupby(shown, lambda one: one[1])]


def compare(made: Renderer, examples: list[Example]) -> int:
    """Units without the cut ones are, token for token, what training gets; how many rows were compared."""
    compared = 0
    for example, parts, seen in zip(examples, made.examples(examples), made.pieces(examples), strict=True):
        if isinstance(parts, BadRow) or isinstance(seen, BadRow):
            assert parts == seen
            continue
        for rendered, coded in zip(parts, seen, strict=True):
            cut = 0
            for tokens, group in zip((rendered.trunk, *rendered.branches), coded, strict=True):
                units = trace.units(made.encoder, group)
                kept = [unit for unit in units if not unit.cut]
                assert [i for unit in kept for i in unit.ids] == tokens.ids.tolist()
                assert [unit.weight for unit in kept for _ in unit.ids] == tokens.mask.tolist()
                cut += sum(len(unit.ids) for unit in units if unit.cut)
                short = runs(trace.texts(made.encoder, group))
                assert short == runs((unit.text, unit.kind) for unit in units)
            assert cut == rendered.cut
        if len(parts) == 1:
            text = "".join(u.text for group in seen[0] for u in trace.units(made.encoder, group))
            assert text == "".join(c.piece.text for group in seen[0] for c in group).translate(MARKS)
            assert len(example.branches) > 1 or text == made.show(example)[0]
        compared += 1
    return compared


@settings(max_examples=40, deadline=None)
@given(
    turns=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=150), min_size=2, max_size=5),
    limit=st.integers(40, 400),
    name=st.sampled_from([*chat.ALL]),
    spaces=st.booleans(),
)
def test_any_conversation(turns: list[str], limit: int, name: str, spaces: bool) -> None:
    tokenizer = chat.sentencepiece() if spaces else chat.tokenizer()
    made = chat.renderer(chat.ALL[name], tokenizer, cutoff_len=limit)
    compare(made, [chat.example(chat.say(*turns[: len(turns) // 2 * 2]))])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published data sets are not here")
@pytest.mark.parametrize(
    "name", ["identity", "dpo_zh_demo", "kto_en_demo", "c4_demo", "glaive_toolcall_zh_demo"]
)
def test_published_data(name: str) -> None:
    [spec] = registry.specs([name], str(SHARED))
    stage = {"dpo_zh_demo": "rm", "kto_en_demo": "kto", "c4_demo": "pt"}.get(name, "sft")
    rows = [row for row in prepare.examples(spec, stage, 10) if isinstance(row, Example)]
    assert compare(chat.renderer("qwen", cutoff_len=1200), rows) > 5


def test_what_is_cut_stands_where_it_was() -> None:
    made = chat.renderer(chat.CHATML, cutoff_len=100)
    trunk, reply = groups(made, chat.example(chat.say(WORDS, "yes", system="Be brief.")))
    cut = "".join(unit.text for unit in trunk if unit.cut)
    kinds = [unit.kind for unit in trunk]
    assert cut in WORDS and "w50" in cut and kinds.index("cut") > 20
    assert "".join(unit.text for unit in trunk).endswith(WORDS + "<|im_end|>\n<|im_start|>assistant\n")
    assert [unit.kind for unit in reply] == ["trained"] * (len(reply) - 1) + ["masked"]


def test_a_character_of_several_tokens_is_one_unit() -> None:
    for tokenizer in (chat.tokenizer(), chat.sentencepiece()):
        made = chat.renderer(chat.CHATML, tokenizer)
        _, reply = groups(made, chat.example(chat.say("q", "a龘😀b")))
        several = {unit.text: " ".join(unit.bytes) for unit in reply if len(unit.ids) > 1}
        assert several == {"龘": "e9 be 98", "😀": "f0 9f 98 80"}
        assert not any("\ufffd" in unit.text for unit in reply)


def test_a_tokenizer_that_knows_no_places() -> None:
    encoder = Encoder(ByT5Tokenizer())
    text = "a龘 é!"
    ids, _ = encoder.encode([(text, True)])
    found = trace.units(encoder, [Coded(Piece(text, 0, 1), True, ids, 1.0)])
    assert [unit.text for unit in found] == [*text]
    assert [i for unit in found for i in unit.ids] == ids.tolist()


def test_texts_that_spell_control_tokens_are_shown_as_they_stand() -> None:
    made = chat.renderer(chat.CHATML)
    trunk, _ = groups(made, chat.example(chat.say("say <|im_end|> now", "yes")))
    text = "".join(unit.text for unit in trunk)
    assert text == "<|im_start|>user\nsay <|im_end|> now<|im_end|>\n<|im_start|>assistant\n"
    assert [unit.text for unit in trunk].count("<|im_end|>") == 1


def test_flags() -> None:
    made = chat.renderer(chat.CHATML, cutoff_len=90)
    reply = Message("assistant", "a")
    rows = [
        chat.example(chat.say("q", "a")),
        chat.example([*chat.say("q"), reply]),
        chat.example(chat.say(WORDS, "a")),
        Example(tuple(chat.say("q")), ((Message("assistant", "a", 1.0),), (reply,))),
        Example((), ((Message("text", "a"),),)),
    ]
    found = [trace.flags(parts) for parts in made.pieces(rows) if not isinstance(parts, BadRow)]
    assert found == [[], [trace.UNTRAINED], [trace.CUT], [trace.UNTRAINED], []]


def test_a_reply_or_a_document_without_an_end() -> None:
    bare = chat.tokenizer()
    bare.eos_token = None
    made = Renderer(templates.load(chat.ENDLESS, bare), bare)
    rows = [chat.example(chat.say("q", "a")), Example((), ((Message("text", "a"),),))]
    found = [trace.flags(parts) for parts in made.pieces(rows) if not isinstance(parts, BadRow)]
    assert found == [[trace.ENDLESS], [trace.ENDLESS]]


def test_an_end_that_was_cut_or_is_not_learnt() -> None:
    def coded(weight: float, gone: list[tuple[int, np.ndarray]], end: int = 1) -> Coded:
        return Coded(Piece("abc.", 0, end), True, np.arange(3, dtype=np.int32), weight, (), gone)

    last = np.arange(1, dtype=np.int32)
    assert trace.flags([[[], [coded(1.0, [(3, last)])]]]) == [trace.ENDLESS, trace.CUT]
    assert trace.flags([[[], [coded(1.0, [(1, last)])]]]) == [trace.CUT]
    assert trace.flags([[[], [coded(1.0, []), coded(0.0, [])]]]) == [trace.ENDLESS]
