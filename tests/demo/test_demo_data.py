"""The demo's data, pre-training text and tokenizer, as a newcomer and the model get them."""

import json
import random
import re
from collections import Counter

import pytest

from luthier.demo import corpus, grammar, task, tokenizer


@pytest.fixture(scope="module")
def sets():
    return task.rows()


@pytest.fixture(scope="module")
def documents():
    return corpus.documents()


@pytest.fixture(scope="module")
def conversations():
    return corpus.conversations()


@pytest.fixture(scope="module")
def small_tokenizer(documents, tmp_path_factory):
    from transformers import AutoTokenizer

    directory = tokenizer.train(documents[:2000], tmp_path_factory.mktemp("tokenizer"))
    return AutoTokenizer.from_pretrained(directory)


def plain(text):
    """A request without case, punctuation and spaces."""
    return "".join(c for c in text.lower() if c.isalnum())


def wordings(template):
    """Every way to choose the template's alternatives; slots stay as they are written."""
    inner = re.search(r"\(([^()]*)\)", template)
    if inner is None:
        return {template}
    before, after = template[: inner.start()], template[inner.end() :]
    return {text for choice in inner[1].split("|") for text in wordings(before + choice + after)}


def test_size_and_balance(sets):
    sizes = {name: len(rows) for name, rows in sets.items()}
    assert sizes == {"identity": 94, "intent": 2048, "conversation": 320, "intent_eval": 320}
    assert set(Counter(row["output"] for row in sets["intent"]).values()) == {128}
    assert set(Counter(row["output"] for row in sets["intent_eval"]).values()) == {20}
    assert len(task.labels()) == 16


def test_both_languages_share_the_labels():
    zh, en = (grammar.table(f"intents.{language}.yaml")["intents"] for language in ("zh", "en"))
    assert list(zh) == list(en) == task.labels()


def test_training_rows_are_distinct(sets):
    questions = [row["instruction"] for row in sets["identity"] + sets["intent"]]
    assert len(set(questions)) == len(questions) == 2142


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_training_template_can_write_a_held_out_request(language):
    intents = grammar.table(f"intents.{language}.yaml")["intents"].values()
    trained, held_out = (
        {plain(text) for intent in intents for template in intent[part] for text in wordings(template)}
        for part in ("train", "eval")
    )
    assert len(held_out) > 150
    assert not trained & held_out


def test_no_held_out_request_is_part_of_a_training_row(sets):
    trained = "\n".join(plain(row["instruction"]) for row in sets["intent"])
    assert not [row for row in sets["intent_eval"] if plain(row["instruction"]) in trained]


def test_no_template_marks_are_left(sets, documents, conversations):
    texts = [row["instruction"] + row["output"] for rows in sets.values() for row in rows] + documents
    texts += [text for turns in conversations for turn in turns for text in turn]
    assert not [text for text in texts if set(text) & set("<>|()#")]


def test_same_seed_same_rows_other_seed_other_rows(sets):
    assert task.rows(0) == sets
    assert task.rows(1)["intent"] != sets["intent"]


def test_written_as_a_user_would(sets, tmp_path):
    task.write(tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
    assert {name: entry["file_name"] for name, entry in info.items()} == {
        name: f"{name}.json" for name in sets
    }
    assert info["intent"] == {"file_name": "intent.json"}
    assert info["conversation"]["columns"]["history"] == "history"
    assert json.loads((tmp_path / "intent.json").read_text(encoding="utf-8")) == sets["intent"]
    assert set(sets["intent"][0]) == {"instruction", "input", "output"}


def test_base_texts_are_deterministic_and_of_the_right_size(documents, conversations):
    assert (corpus.documents(), corpus.conversations()) == (documents, conversations)
    assert 1_000_000 < sum(len(text.encode()) for text in documents) < 3_000_000
    assert {len(turns) for turns in conversations} == {1, 2, 3}


def test_base_never_sees_a_request_nor_an_intent_as_an_answer(sets, documents, conversations):
    turns = [turn for conversation in conversations for turn in conversation]
    assert not {answer for _, answer in turns} & set(task.labels())
    texts = [plain(text) for text in documents] + [plain(question) for question, _ in turns]
    known = "\n".join(sorted(set(texts)))
    assert not [row for row in sets["intent_eval"] if plain(row["instruction"]) in known]


def test_base_data_written_as_a_user_would(tmp_path):
    corpus.write(tmp_path)
    read = {p.name: json.loads(p.read_text(encoding="utf-8")) for p in tmp_path.iterdir()}
    assert list(read["text.json"][0]) == ["text"]
    assert [m["role"] for m in read["talk.json"][0]["messages"]][:2] == ["user", "assistant"]
    assert set(read["dataset_info.json"]) == {"text", "talk"}


def test_slots_keep_their_value_from_question_to_answer():
    slots = {"city": ["A", "B"], "order": ["##"], "thing": [{"zh": "猫", "en": "cat"}]}
    rng, values = random.Random(0), {}
    question = grammar.expand("<city> <city#2> <order> <thing.zh>", slots, rng, values)
    assert grammar.expand("<city> <city#2> <order>", slots, rng, values) + " 猫" == question
    assert sorted(question.split()[:2]) == ["A", "B"]
    assert grammar.expand("<thing.en>", slots, rng, values) == "cat"


def test_alternatives_articles_and_spaces():
    rng = random.Random(0)
    assert {grammar.expand("a (x|(y|z)|)", {}, rng) for _ in range(99)} == {"a x", "a y", "a z", "a"}
    assert grammar.expand("a <w> (|)is a <w>", {"w": ["apple"]}, rng) == "an apple is an apple"
    with pytest.raises(ValueError, match="unbalanced"):
        grammar.expand("(a|b", {}, rng)


@pytest.mark.parametrize(
    "text", ["你好，LT0423 到了吗？", "a  b\n\nc\t", "日本語 ёж 🎻 \u3000", "I'M here, don't 12345"]
)
def test_tokenizer_gives_back_any_text(small_tokenizer, text):
    assert small_tokenizer.decode(small_tokenizer(text)["input_ids"]) == text


def test_no_token_joins_two_chinese_characters(small_tokenizer):
    decoded = [small_tokenizer.decode([token]) for token in range(len(small_tokenizer))]
    assert max(sum("\u4e00" <= c <= "\u9fff" for c in text) for text in decoded) == 1


def test_chat_template_is_chatml(small_tokenizer):
    messages = [{"role": "user", "content": "你好"}]
    text = small_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
    assert small_tokenizer.convert_ids_to_tokens(small_tokenizer(text)["input_ids"])[0] == "<|im_start|>"
    assert small_tokenizer.eos_token == "<|im_end|>"
    assert small_tokenizer.pad_token == "<|endoftext|>"
