"""Finding a template, writing choices into its text, making the tokenizer ready, and saying what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import chat
from luthier.data import jinja, named
from luthier.data import template as templates
from luthier.errors import TemplateError

ASK = [{"role": "user", "content": "hi"}]


def test_the_tokenizers_own_template_is_taken_as_it_is() -> None:
    made = chat.tokenizer(chat.CHATML)
    assert templates.load(None, made).text == chat.CHATML
    assert templates.load("tokenizer", made).name == "tokenizer"


def test_without_any_template_the_error_says_which_to_use() -> None:
    with pytest.raises(TemplateError, match="template: default"):
        templates.load(None, chat.tokenizer())
    assert templates.load(None, chat.tokenizer(), required=False).name == "empty"


def test_an_unknown_name_brings_the_nearest_one() -> None:
    with pytest.raises(TemplateError, match=r"'qwem'.*qwen"):
        templates.load("qwem", chat.tokenizer())


def test_a_file_and_a_text_are_templates_too(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(chat.STRIPS, encoding="utf-8")
    assert templates.load(str(file), chat.tokenizer()).text == chat.STRIPS
    assert templates.load(chat.STRIPS, chat.tokenizer()).text == chat.STRIPS
    with pytest.raises(TemplateError, match=r"gone\.jinja cannot be read"):
        templates.load(str(tmp_path / "gone.jinja"), chat.tokenizer())


def test_broken_jinja_is_named_with_its_line() -> None:
    with pytest.raises(TemplateError, match="line 2"):
        templates.load("{% for m in messages %}\n{% endfor", chat.tokenizer())


def test_a_named_template_read_back_from_a_run_is_the_same_one(tmp_path: Path) -> None:
    made = chat.known("qwen3")
    first = templates.load("qwen3", made, default_system="Be brief.", enable_thinking=False)
    file = tmp_path / templates.FILE
    file.write_text(first.text, encoding="utf-8")
    again = templates.load(str(file), made, enable_thinking=True)
    assert again == first
    assert again.stops == ("<|im_end|>",) and again.thought == ("<think>\n", "\n</think>\n\n")


def test_a_default_system_message_is_written_into_the_text() -> None:
    ours = templates.load("qwen", chat.tokenizer(), default_system='Say "no"\n你好')
    assert ours.render(ASK).startswith('<|im_start|>system\nSay "no"\n你好<|im_end|>\n<|im_start|>user\nhi')
    off = templates.load("qwen", chat.tokenizer(), default_system="")
    assert off.render(ASK).startswith("<|im_start|>user\nhi")
    theirs = templates.load(chat.CHATML, chat.tokenizer(), default_system="Be brief.")
    assert theirs.render(ASK).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi")
    own = [{"role": "system", "content": "mine"}, *ASK]
    assert theirs.render(own).startswith("<|im_start|>system\nmine<|im_end|>\n<|im_start|>user\nhi")


def test_choices_are_written_only_once() -> None:
    first = templates.load(chat.REWRITES, chat.tokenizer(), default_system="Be brief.", enable_thinking=False)
    again = templates.load(first.text, chat.tokenizer(), default_system="Be brief.", enable_thinking=False)
    assert again.text == first.text != chat.REWRITES


def test_thinking_switched_off_stays_off_for_everyone_who_renders_the_text() -> None:
    for name in ("qwen3", chat.REWRITES):
        text = templates.load(name, chat.tokenizer(), enable_thinking=False).text
        asked = jinja.render(text, ASK, None, {"add_generation_prompt": True})
        assert asked.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_templates_run_in_a_sandbox() -> None:
    for text in ("{{ messages.__class__.__mro__ }}", "{{ ''.__class__.__subclasses__() }}"):
        with pytest.raises(TemplateError, match="is unsafe"):
            jinja.render(text, ASK, None, {})
    with pytest.raises(TemplateError, match="is unsafe"):
        jinja.render("{{ messages.append(1) }}", ASK, None, {})


def test_generation_tags_loop_controls_and_plain_json_are_known() -> None:
    text = (
        "{% for m in messages %}{% if loop.index0 %}{% break %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}"
    )
    assert jinja.render(text, [{"role": "user", "content": "<你>"}, *ASK], None, {}) == (
        '{"role": "user", "content": "<你>"}'
    )


def test_the_templates_own_words_come_back() -> None:
    with pytest.raises(jinja.RenderProblem, match="no system here"):
        jinja.render(chat.STRIPS, [{"role": "system", "content": "x"}], None, {"bos_token": ""})
    with pytest.raises(jinja.RenderProblem, match="the template fails"):
        jinja.render("{{ 'a' + 1 }}", ASK, None, {})


def test_prepare_sets_the_end_the_padding_and_the_template() -> None:
    made = chat.known("chatml")
    made.pad_token = None
    chosen = templates.load("chatml", made)
    notes = templates.prepare_tokenizer(chosen, made)
    assert made.eos_token == "<|im_end|>" and made.pad_token == "<|im_end|>"
    assert made.chat_template == chosen.text
    assert notes == ["end of text is now <|im_end|> (was </s>), as template chatml has it"]


def test_tokens_are_never_added_silently() -> None:
    made = chat.tokenizer()
    size = len(made)
    chosen = templates.load("gemma", made)
    notes = templates.prepare_tokenizer(chosen, made)
    assert len(made) == size and made.eos_token == "</s>"
    assert "<end_of_turn>" in notes[0] and "resize_vocab: true" in notes[0]
    notes = templates.prepare_tokenizer(chosen, made, add=True)
    assert len(made) == size + 1 and made.eos_token == "<end_of_turn>"
    assert notes[0] == "added to the vocabulary for template gemma: <end_of_turn>"


def test_a_tokenizer_without_any_end_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    )
    with pytest.raises(TemplateError, match="no end-of-text token"):
        templates.prepare_tokenizer(templates.load("default", bare), bare)


def test_every_named_template_renders_and_can_be_reused_for_many_rows() -> None:
    assert len(named.names()) >= 100
    for name in set(named.names().values()):
        text = named.text(name)
        asked = [*ASK, {"role": "assistant", "content": "yo"}]
        done = jinja.render(text, asked, None, {"bos_token": "<s>", "eos_token": "</s>"})
        assert "hi" in done and "yo" in done, name
        assert jinja.watched(text).verbatim, name


def test_what_a_template_looks_for_in_messages() -> None:
    assert jinja.watched(chat.CHATML) == jinja.Watched(True, (), frozenset())
    assert jinja.watched(chat.REWRITES).inside == ("</think>", "<think>")
    assert jinja.watched("{{ messages[0].content | wordwrap }}").verbatim is False
    assert jinja.watched("{{ messages[0].content[:3] }}").verbatim is False
    assert jinja.watched("{% set c = messages[0].content %}{{ c | length }}").verbatim is False
    assert jinja.watched("{{ messages | length }}").verbatim is True
    assert (
        jinja.watched("{% macro f(x) %}{{ x[0] }}{% endmacro %}{{ f(messages[0].content) }}").verbatim
        is False
    )


def test_the_first_line_of_a_named_template_is_a_comment_that_says_what_it_is() -> None:
    first = templates.load("glm4", chat.tokenizer()).text.splitlines()[0]
    assert first.startswith("{#- luthier ") and first.endswith(" -#}")
    assert json.loads(first.removeprefix("{#- luthier ").removesuffix(" -#}"))["name"] == "glm4"
