"""Tokens with a meaning: where a text begins and ends, tools, padding, and what must not be guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ggufs
import tiny
from ggufs import END, Pair, added, written
from luthier import gguf
from luthier.errors import ExportError
from luthier.gguf import tokenizer, vocabulary
from luthier.gguf.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED
from luthier.types import Message

QWEN_ENDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_pad|>"]
QWEN_TOOLS = "<tool_call> </tool_call> <|fim_prefix|> <|fim_pad|> <|file_sep|> <think> </think>".split()
CHATML = tiny.CHATML


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """As Qwen 2.5 and 3: NFC, no bos, tokens after the vocabulary, tools that are not special, padding."""
    from transformers import AddedToken, Qwen2Tokenizer

    told = json.loads(tiny._backend())["model"]
    plain = {text: i for i, text in enumerate(text for text in told["vocab"] if text not in tiny.SPECIALS)}
    merges = [tuple(pair) for pair in told["merges"]]
    made = Qwen2Tokenizer(plain, merges, unk_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_tokens([AddedToken(text, special=True, normalized=False) for text in QWEN_ENDS])
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in QWEN_TOOLS])
    made.chat_template = CHATML
    folder = tmp_path_factory.mktemp("qwen")
    made.save_pretrained(folder / "tokenizer")
    ends = made.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    (folder / "tokenizer" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    pair = Pair(folder, folder / "tokenizer", rows=448)
    yield pair
    pair.served.close()


MIXED = st.lists(
    st.sampled_from([*QWEN_ENDS, *QWEN_TOOLS, "<|im_", "end|>", "<tool", "_call>", " ", "\n", "Hi", "中"]),
    max_size=12,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(text=MIXED)
def test_special_and_tool_tokens_in_texts(qwen: Pair, text: str) -> None:
    assert qwen.served.tokenize(text) == qwen.hf.encode(text, add_special_tokens=False)


def test_ids_and_types(qwen: Pair) -> None:
    told = qwen.head.metadata
    tokens, types = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.token_type"]
    kinds = dict(zip(tokens, types, strict=True))
    assert len(tokens) == 448
    assert {kinds[text] for text in QWEN_ENDS} == {CONTROL}
    assert {kinds[text] for text in QWEN_TOOLS} == {USER_DEFINED}
    assert kinds["a"] == NORMAL
    assert types[len(qwen.hf) :] == [UNUSED] * (448 - len(qwen.hf))
    assert tokens[told["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert tokens[told["tokenizer.ggml.eot_token_id"]] == "<|endoftext|>"
    assert tokens[told["tokenizer.ggml.padding_token_id"]] == "<|endoftext|>"
    assert told["tokenizer.ggml.add_bos_token"] is False


def test_every_end_ends_and_no_other_token_does(qwen: Pair) -> None:
    """Without an id of its own llama.cpp would take token 11 for the beginning or the end of a text."""
    told = qwen.head.metadata
    assert told["tokenizer.ggml.bos_token_id"] == told["tokenizer.ggml.eos_token_id"] != 11
    assert qwen.served.tokenize("a", begin=True) == qwen.served.tokenize("a")


def test_accents_that_are_not_joined_are_said(qwen: Pair) -> None:
    """The one thing that differs; it is why there is a note."""
    assert any("NFC" in line for line in qwen.said)
    assert qwen.hf.encode("e\u0301") == qwen.served.tokenize("é") != qwen.served.tokenize("e\u0301")


def test_the_same_tokenizer_is_read_back(qwen: Pair) -> None:
    again = tokenizer.tokenizer(qwen.served.path)
    text = "<|im_start|>user\nCall <tool_call>{}</tool_call> 你好<|im_end|>\n"
    assert again.encode(text) == qwen.hf.encode(text)
    assert (again.eos_token, again.pad_token, again.chat_template) == ("<|im_end|>", "<|endoftext|>", CHATML)


# --- the beginning of a text


def byte_level(folder: Path, before: list[str], after: list[str], **config: Any) -> Path:
    """A tokenizer that puts tokens around each text. <b> is a bos, <g> another token."""
    told = json.loads(tiny._backend())
    number = len(told["model"]["vocab"])
    told["added_tokens"] += [added(number, "<b>"), added(number + 1, "<g>")]
    ids = {"<b>": number, "<g>": number + 1, "<|im_end|>": 2}
    parts = [{"SpecialToken": {"id": text, "type_id": 0}} for text in before]
    parts += [{"Sequence": {"id": "A", "type_id": 0}}]
    parts += [{"SpecialToken": {"id": text, "type_id": 0}} for text in after]
    told["post_processor"] = {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in ids.items()},
    }
    return written(folder, told, eos_token="<|im_end|>", **config)


BEGINNINGS: dict[str, tuple[list[str], list[str], str, list[str], str]] = {
    # before, after, template -> what llama.cpp puts before a text, words of the note
    "llama 3": (["<b>"], [], "{{ bos_token }}" + CHATML, ["<b>"], ""),
    "said outright": (["<b>"], [], "<b>" + CHATML, ["<b>"], ""),
    "not in the template": (["<b>"], [], CHATML, [], "leaves out <b>"),
    "glm 4": (["<g>", "<b>"], [], "<g><b>" + CHATML, [], "leaves out <g> <b>"),
    "an end after each text": ([], ["<|im_end|>"], CHATML, [], r"leaves out <\|im_end\|>, which"),
    "nothing": ([], [], CHATML, [], ""),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_chat_begins_as_in_training(name: str, tmp_path: Path) -> None:
    """As it is served: rendered by llama.cpp, and tokenised with what it puts before a text by itself."""
    before, after, chat, begins, note = BEGINNINGS[name]
    folder = byte_level(tmp_path / "tokenizer", before, after, bos_token="<b>")
    (folder / "chat_template.jinja").write_text(chat)
    pair = Pair(tmp_path, folder)
    said = [{"role": "user", "content": "Hello"}]
    trained = pair.hf.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    wanted = pair.hf.encode(trained, add_special_tokens=False)
    with pair.served as served:
        assert served.tokenize(served.apply_template([Message("user", "Hello")]), begin=True) == wanted
        first = pair.hf.convert_tokens_to_ids(begins)
        assert served.tokenize("Hello", begin=True) == [*first, *served.tokenize("Hello")]
    assert [bool(re.search(note, line)) for line in pair.said] == ([True] if note else [])


# --- blanks around special tokens


def test_special_tokens_that_take_the_blanks_after_them(tmp_path: Path) -> None:
    """Phi-3's do, and llama.cpp looks for that at the model's name."""
    texts = ["<unk>", "<s>", "</s>", "<|user|>", END]
    told = json.loads(tiny._backend())
    number = len(told["model"]["vocab"])
    told["added_tokens"] = [
        {**one, "rstrip": one["content"] not in vocabulary.PHI3} for one in told["added_tokens"]
    ] + [added(number + i, text, rstrip=text not in vocabulary.PHI3) for i, text in enumerate(texts)]
    pair = Pair(tmp_path, written(tmp_path / "tokenizer", told))
    assert "phi-3" in pair.head.metadata["general.name"] and not pair.said
    again = tokenizer.tokenizer(pair.served.path)
    with pair.served:
        for text in ("<|user|>\nHello <|end|>\n <s> a</s>  b", "<|endoftext|> a", " <|user|> "):
            pair.compare(text)
            assert again.encode(text) == pair.hf.encode(text)


def test_a_name_does_not_make_a_phi_3(tmp_path: Path) -> None:
    source = tiny.make_tokenizer(tmp_path / "tokenizer")
    folder = ggufs.with_tokenizer(tmp_path / "distilled-from-phi3", source, tiny.VOCAB)
    with ggufs.opened(gguf.convert(folder, tmp_path / "phi3.gguf", "f16")) as served:
        assert served.tokenize("<|im_end|>\n") == tiny.tokenizer().encode("<|im_end|>\n")


@pytest.mark.parametrize("how", ["lstrip", "rstrip", "single_word"])
def test_other_ways_with_blanks_are_said(how: str, tmp_path: Path) -> None:
    told = json.loads(tiny._backend())
    told["added_tokens"] += [added(len(told["model"]["vocab"]), END, **{how: True})]
    assert any(repr(END) in note for note in vocabulary.read(written(tmp_path, told), 500, None).notes)


# --- refused


def changed(model: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    told = json.loads(tiny._backend())
    return {**told, "model": {**told["model"], **(model or {})}, **keys}


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # tokenizer.json, tokenizer_config.json -> words of the error
    "word pieces": (changed({"type": "WordPiece"}), {}, "WordPiece tokenizer cannot"),
    "unigram": (changed({"type": "Unigram"}), {}, "Unigram tokenizer cannot"),
    "dropout": (changed({"dropout": 0.1}), {}, "without dropout"),
    "ends of words": (changed({"end_of_word_suffix": "</w>"}), {}, "end_of_word_suffix"),
    "lower case": (changed(normalizer={"type": "Lowercase"}), {}, "Lowercase"),
    "no end": (changed(), {"eos_token": None}, "no token that ends a text"),
    "twice the same": (changed(added_tokens=[added(401, "a")]), {}, "twice the same"),
    "a zero": (changed(added_tokens=[added(401, "a\0b")]), {}, "a NUL"),
    "more than the model": (changed(added_tokens=[added(2000, END)]), {}, "2001 tokens, the model 1000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_gguf_cannot_say_is_refused(name: str, tmp_path: Path) -> None:
    told, config, why = REFUSED[name]
    with pytest.raises(ExportError, match=why):
        vocabulary.read(written(tmp_path, told, **{"eos_token": "<|im_end|>", **config}), 1000, None)


def test_four_ends_are_one_too_many(tmp_path: Path) -> None:
    folder = written(tmp_path, changed(), eos_token="<|im_end|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0, 1]}))
    assert vocabulary.read(folder, 400, None).fields["tokenizer.ggml.eom_token_id"] == 1
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0, 1, 5]}))
    with pytest.raises(ExportError, match="three end tokens, not for 4"):
        vocabulary.read(folder, 400, None)


@pytest.mark.parametrize("text, why", [(None, "is missing.*save_pretrained"), ("{", "is no JSON")])
def test_a_tokenizer_that_is_not_there_is_named(text: str | None, why: str, tmp_path: Path) -> None:
    folder = ggufs.random_model(tmp_path / "model", "llama")
    (folder / "tokenizer.json").unlink()
    if text is not None:
        (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ExportError, match=f"tokenizer.json: {why}"):
        gguf.convert(folder, tmp_path / "model.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
