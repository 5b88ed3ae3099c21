"""Decoding options, and text that appears token by token."""

import pytest

import tiny
from luthier.errors import UsageError
from luthier.infer import engine
from luthier.infer.engine import Generation, TextStream
from luthier.infer.hf import HFEngine


def test_engines_are_found_by_name_and_unknown_ones_name_the_known() -> None:
    assert engine.find("hf") is engine.find("huggingface") is HFEngine
    with pytest.raises(UsageError, match=r"'mlx'.*hf"):
        engine.find("mlx")


def test_budget_is_max_new_tokens_or_what_max_length_leaves() -> None:
    assert Generation(max_new_tokens=7, max_length=10).budget(9) == 7
    assert Generation(max_new_tokens=0, max_length=10).budget(9) == 1
    assert Generation(max_new_tokens=0, max_length=10).budget(12) == 0


def test_a_temperature_of_nought_is_greedy() -> None:
    assert Generation().greedy
    assert Generation(do_sample=True, temperature=0).greedy
    assert not Generation(do_sample=True, temperature=0.5).greedy


def test_streamed_text_never_splits_a_character() -> None:
    tokenizer = tiny.tokenizer()
    text = "Grüße 🎻 龘靐"
    stream = TextStream(tokenizer)
    pieces = [stream.push(i) for i in tokenizer(text).input_ids]
    assert "".join(pieces) + stream.close() == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert "" in pieces  # tokens that hold part of a character wait for the rest
    assert "🎻" in pieces


def test_bytes_that_never_become_a_character_are_shown_at_the_end() -> None:
    tokenizer = tiny.tokenizer()
    half = tokenizer("a🎻").input_ids[:-1]
    stream = TextStream(tokenizer)
    assert "".join(stream.push(i) for i in half) == "a"
    assert stream.close() == "\ufffd"
    assert stream.close() == ""


def test_special_tokens_are_left_out_or_shown() -> None:
    tokenizer = tiny.tokenizer()
    ids = tokenizer("a<|im_end|>b").input_ids
    quiet, loud = TextStream(tokenizer), TextStream(tokenizer, skip_special_tokens=False)
    assert "".join(map(quiet.push, ids)) == "ab"
    assert "".join(map(loud.push, ids)) == "a<|im_end|>b"


def test_a_stop_string_ends_the_text_and_its_beginning_is_held_back() -> None:
    tokenizer = tiny.tokenizer()
    ids = tokenizer("a <b </s> c").input_ids
    stream = TextStream(tokenizer, stops=("</s>",))
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.close() == "a <b "
    assert stream.ended
    assert engine.text_of(tokenizer, ids, Generation(stop_strings=("</s>",))) == "a <b "
    other = TextStream(tokenizer, stops=("</s>",))
    assert "".join(map(other.push, tokenizer("a </").input_ids)) == "a "
    assert other.close() == "</"
    assert not other.ended
