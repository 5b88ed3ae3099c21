"""The fast way (a template rendered once per shape) gives what the exact way gives, for any text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat
from luthier.data.jinja import Watched
from luthier.data.shapes import Shapes, texts_of
from luthier.data.turns import Piece
from luthier.types import Message

PIECES = [
    "a", "B", "你好", " ", "\n", "\t", "  \n", "<think>", "</think>", "<think>\n", "\n</think>\n\n",
    "<|im_end|>", "<end>",
    "user", "assistant", '"', "'", "\\", "{{ x }}", "<", "</", "é", "😀", "<|im_start|>user\n", "\u3000", "",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
NAMES = [*chat.ALL, "qwen", "qwen3", "llama3", "glm4", "alpaca", "mistral"]
RENDERERS = {name: chat.renderer(chat.ALL.get(name, name)) for name in NAMES}


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), texts=st.lists(TEXT, min_size=2, max_size=5), system=st.none() | TEXT)
def test_fast_equals_exact(name: str, texts: list[str], system: str | None) -> None:
    made = RENDERERS[name]
    messages = chat.say(*texts, system=None if name == "strips" else system)
    drafter = made._drafter
    broken = texts_of(messages, drafter._controls)
    assert broken is not None
    exact = drafter.turns.cut(drafter._plain(messages))
    fast = drafter._shapes.pieces(messages, broken, lambda: exact)
    if fast is None:
        return
    encoded = [
        made._encoder.encode([(p.text, k == 0) for k, p in enumerate(pieces)]) for pieces in (fast, exact)
    ]
    assert [ids.tolist() for ids in encoded[0]] == [ids.tolist() for ids in encoded[1]]
    assert [(p.turn, p.end) for p in fast] == [(p.turn, p.end) for p in exact]


def test_ordinary_rows_take_the_fast_way() -> None:
    for name, made in RENDERERS.items():
        messages = chat.say("What is a user?", "Someone.\nYou 你好", " And you? ", "Me.\n")
        texts = texts_of(messages, made._drafter._controls)
        assert texts is not None and made._drafter._shapes.pieces(messages, texts, list) is not None, name


def test_a_template_that_is_not_understood_is_rendered_row_by_row() -> None:
    shouts = (
        "{% for m in messages %}{{ m['role'] + ':' "
        "+ (m['content'] | upper if m['role'] == 'user' else m['content']) + '<end>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    made = chat.renderer(shouts)
    messages = chat.say("1?", "a", "2?", "b")
    assert made._drafter._shapes.pieces(messages, [m.content for m in messages], list) is None
    assert (
        chat.shown(made, chat.example(messages))[0]
        == "user:1?<end>assistant:a<end>user:2?<end>assistant:b<end>"
    )


def test_a_shape_that_turns_out_different_is_given_up() -> None:
    made = chat.renderer(chat.CHATML.replace("m.content", "(m.content if 'X' not in m.content else 'yy')"))
    drafter = made._drafter
    drafter._shapes = Shapes(
        drafter.turns.cut, Watched(True), made._encoder.with_seams
    )  # wrong: it looks for X
    plain, odd = (chat.say(text, "b") for text in ("a", "X"))

    def fast(messages: list[Message]) -> list[Piece] | None:
        exact = drafter.turns.cut(drafter._plain(messages))
        return drafter._shapes.pieces(messages, [m.content for m in messages], lambda: exact)

    assert fast(plain) is not None
    true = fast(odd)
    assert true is not None and true[0].text.startswith("<|im_start|>user\nyy<|im_end|>")
    assert fast(plain) is None


@pytest.mark.parametrize("text", ["x", " x", "x\n\n", "\n x \t"])
def test_spaces_around_texts(text: str) -> None:
    for name in ("strips", "rewrites", "chatml"):
        made = RENDERERS[name]
        messages = [Message("user", text), Message("assistant", text, 1.0)]
        exact = made._drafter.turns.cut(made._drafter._plain(messages))
        fast = made._drafter._shapes.pieces(messages, [text, text], lambda exact=exact: exact)  # type: ignore[misc]
        assert fast is not None
        assert "".join(p.text for p in fast).replace("\ufdd3", "") == "".join(p.text for p in exact)
