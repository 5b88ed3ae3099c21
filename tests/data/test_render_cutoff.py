"""Too long: prompts give way in the middle; headers, system messages and ends of turns never do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat
from luthier.data.render import CUTOFF, Renderer
from luthier.errors import DataError
from luthier.types import BadRow, Example, Message

WORDS = " ".join(f"w{k}" for k in range(100))
HEADER, END = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"


def one(made: Renderer, example: Example) -> Any:
    [found] = made.examples([example])
    assert not isinstance(found, BadRow), found
    return found[0]


def text(made: Renderer, rendered: Any, branch: int = 0) -> str:
    return made.tokenizer.decode(chat.sequence(rendered, branch)[0])


def test_a_prompt_is_cut_in_the_middle_of_the_users_text() -> None:
    row = chat.example(chat.say(WORDS, "yes", system="Be brief."))
    whole = one(chat.renderer(chat.CHATML), row)
    made = chat.renderer(chat.CHATML, cutoff_len=100)
    rendered = one(made, row)
    cut = text(made, rendered)
    assert cut.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nw0 w1")
    assert cut.endswith("w99" + HEADER + "yes" + END) and "w50" not in cut
    assert len(chat.sequence(rendered)[0]) == 100
    assert rendered.cut == len(chat.sequence(whole)[0]) - 100
    assert chat.learnt(made, rendered) == ["yes<|im_end|>"]


def test_the_longest_texts_are_cut_first() -> None:
    made = chat.renderer(chat.CHATML, cutoff_len=130)
    rendered = one(made, chat.example(chat.say("short one", "a", WORDS, "b")))
    assert "short one" in text(made, rendered) and len(chat.sequence(rendered)[0]) == 130


def test_a_long_reply_loses_its_end_but_not_its_end_of_turn() -> None:
    made = chat.renderer(chat.CHATML, cutoff_len=90)
    rendered = one(made, chat.example(chat.say("Tell me", WORDS, system="Be brief.")))
    cut = text(made, rendered)
    assert "user\nTell me" + HEADER + "w0 w1" in cut and cut.endswith(END) and "w99" not in cut
    assert len(chat.sequence(rendered)[0]) == 90


def test_characters_are_never_cut_in_two() -> None:
    made = chat.renderer(chat.CHATML, cutoff_len=80)
    for length in range(60, 90):
        rendered = one(made, chat.example(chat.say("龘鱻" * length, "靐齉" * 40)))
        assert "\ufffd" not in text(made, rendered)
        assert len(chat.sequence(rendered)[0]) <= 80


def test_preference_pairs_fit_with_both_ends() -> None:
    ends = tuple((Message("assistant", end, 1.0),) for end in ("ok", WORDS))
    made = chat.renderer(chat.CHATML, cutoff_len=120)
    rendered = one(made, Example(tuple(chat.say(WORDS)), ends))
    lengths = [len(chat.sequence(rendered, k)[0]) for k in (0, 1)]
    assert max(lengths) == 120
    assert text(made, rendered, 0).endswith(HEADER + "ok" + END)
    assert text(made, rendered, 1).endswith(END) and HEADER + "w0" in text(made, rendered, 1)


def test_what_cannot_be_cut_makes_a_bad_row() -> None:
    made = chat.renderer(chat.CHATML, cutoff_len=40)
    [bad] = made.examples([chat.example(chat.say("q", "a", system=WORDS), "s:1")])
    assert isinstance(bad, BadRow) and bad.field == CUTOFF and "cutoff_len = 40" in bad.reason


def test_drop_and_error() -> None:
    rows = [chat.example(chat.say(t, "a"), f"d:{k}") for k, t in enumerate((WORDS, "q", WORDS))]
    made = chat.renderer(chat.CHATML, cutoff_len=40, cutoff_policy="drop")
    bad, good, worse = made.examples(rows)
    assert isinstance(bad, BadRow) and isinstance(worse, BadRow) and not isinstance(good, BadRow)
    assert bad.field == CUTOFF and "more than cutoff_len = 40" in bad.reason
    with pytest.raises(DataError, match=r"d:0: (.|\n)*d:2: (.|\n)*cutoff_policy: cut_prompt"):
        chat.renderer(chat.CHATML, cutoff_len=40, cutoff_policy="error").examples(rows)


def test_a_row_is_too_long_only_when_its_prompt_and_one_ending_are() -> None:
    row = chat.example(chat.say(WORDS, "yes"))
    length = len(chat.sequence(one(chat.renderer(chat.CHATML), row))[0])
    for policy in ("drop", "error"):
        assert one(chat.renderer(chat.CHATML, cutoff_len=length, cutoff_policy=policy), row).cut == 0
    [bad] = chat.renderer(chat.CHATML, cutoff_len=length - 1, cutoff_policy="drop").examples([row])
    assert isinstance(bad, BadRow) and bad.reason == f"{length} tokens, more than cutoff_len = {length - 1}"


def test_a_prompt_alone_is_shortened_too() -> None:
    made = chat.renderer(chat.CHATML, cutoff_len=60)
    rendered = one(made, Example(tuple(chat.say(WORDS))))
    assert len(rendered.trunk) == 60 and made.tokenizer.decode(rendered.trunk.ids).endswith(HEADER)


def test_with_a_tokenizer_that_puts_spaces_before_texts() -> None:
    made = chat.renderer(chat.TRAILING, chat.sentencepiece(), cutoff_len=120)
    rendered = one(made, chat.example(chat.say(WORDS, "yes", "and " + WORDS, "no")))
    cut = text(made, rendered)
    assert cut.startswith("<user>\nw0") and cut.endswith("w99<end>\n<bot>\nno<end>\n</s>")
    assert len(chat.sequence(rendered)[0]) <= 120


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 120), min_size=2, max_size=6),
    limit=st.integers(60, 300),
    name=st.sampled_from([*chat.ALL]),
)
def test_what_fits_is_always_a_shortened_whole(lengths: list[int], limit: int, name: str) -> None:
    turns = chat.say(
        *(" ".join(f"t{k}x{i}" for i in range(n)) for k, n in enumerate(lengths[: len(lengths) // 2 * 2]))
    )
    made = chat.renderer(chat.ALL[name], cutoff_len=limit)
    whole = one(chat.renderer(chat.ALL[name], cutoff_len=10**6), chat.example(turns))
    [found] = made.examples([chat.example(turns)])
    if isinstance(found, BadRow):
        return
    ids, weights = chat.sequence(found[0])
    all_ids, all_weights = chat.sequence(whole)
    assert len(ids) <= limit and len(ids) + found[0].cut == len(all_ids)
    rest = iter(zip(all_ids, all_weights, strict=True))
    assert all(pair in rest for pair in zip(ids, weights, strict=True))
    special = set(made.tokenizer.all_special_ids)
    assert [i for i in ids if i in special] == [i for i in all_ids if i in special]
