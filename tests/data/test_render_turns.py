"""Masks by pieces: exactly what the model writes is learnt, through its end-of-turn token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import chat
from luthier.errors import TemplateError
from luthier.types import BadRow, Example, Message, ToolCall

SHARED = Path(__file__).parents[2].parent / "shared" / "chat_templates"
TURNS = chat.say("What is 2+2?", "4", "And times 3?", "12")


def spans(template: str, messages: list[Message], **options: Any) -> tuple[str, list[str]]:
    text, found = chat.shown(chat.renderer(template, **options), chat.example(messages))
    return text, [text[a:b] for a, b in found]


def test_chatml_learns_replies_and_their_ends_but_not_the_line_after() -> None:
    assert spans(chat.CHATML, TURNS) == (
        "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
        "<|im_start|>user\nAnd times 3?<|im_end|>\n<|im_start|>assistant\n12<|im_end|>\n",
        ["4<|im_end|>", "12<|im_end|>"],
    )


def test_a_template_that_strips_messages() -> None:
    text, learnt = spans(chat.STRIPS, chat.say("  a b  ", "\nc d  "))
    assert text == "<s><turn>user\na b<end>\n<turn>model\nc d<end>\n"
    assert learnt == ["c d<end>"]


def test_a_template_that_rewrites_history_is_put_together_as_it_was_written() -> None:
    text, learnt = spans(chat.REWRITES, TURNS)
    assert text == (
        "<|im_start|>user\nWhat is 2+2?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n4<|im_end|>\n"
        "<|im_start|>user\nAnd times 3?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n12<|im_end|>\n"
    )
    assert learnt == ["<think>\n\n</think>\n\n4<|im_end|>", "<think>\n\n</think>\n\n12<|im_end|>"]


def test_a_generation_prompt_that_replies_do_not_begin_with_is_left_out() -> None:
    made = chat.renderer(chat.DROPS)
    assert made.tokenizer.decode(made.prompt(chat.say("hi"))) == "<s><user>hi<bot>"
    assert "'<think>\\n'" in made.notes[0]
    text, found = chat.shown(made, chat.example(chat.say("hi", "<think>\nhm\n</think>\n\nyo")))
    assert text == "<s><user>hi<bot>\n\nyo<end>" and [text[a:b] for a, b in found] == ["\n\nyo<end>"]
    assert made.counts["replies changed by the template"] == 1


def test_the_eos_behind_a_whole_conversation_is_not_part_of_a_turn() -> None:
    text, learnt = spans(chat.TRAILING, TURNS)
    assert text.endswith("<bot>\n12<end>\n</s>") and "4<end>\n<user>" in text
    assert learnt == ["4<end>", "12<end>"]


def test_turns_without_an_ending_end_with_the_next_opening_and_the_last_with_the_eos() -> None:
    text, learnt = spans(chat.ENDLESS, TURNS)
    assert text == "<user>\nWhat is 2+2?<bot>\n4<user>\nAnd times 3?<bot>\n12</s>"
    assert learnt == ["4<user>", "12</s>"]


def test_glm4_learns_the_next_opening_as_the_end_of_a_turn() -> None:
    text, learnt = spans("glm4", TURNS)
    assert text == (
        "[gMASK]<sop><|user|>\nWhat is 2+2?<|assistant|>\n4<|user|>\nAnd times 3?<|assistant|>\n12</s>"
    )
    assert learnt == ["\n4<|user|>", "\n12</s>"]


def test_an_end_of_turn_that_the_tokenizer_does_not_know_is_learnt_as_text() -> None:
    import tiny

    plain = tiny.tokenizer()
    plain.chat_template = chat.STRIPS
    made = chat.renderer(None, plain)
    text, found = chat.shown(made, chat.example(TURNS))
    assert [text[a:b] for a, b in found] == ["4<end>", "12<end>"]
    assert made.stop_strings == ("<end>",)


def test_tokens_spell_the_text_and_the_mask_covers_the_spans() -> None:
    for name, template in chat.ALL.items():
        made = chat.renderer(template)
        one = chat.example(TURNS)
        [[rendered]] = made.examples([one])  # type: ignore[misc]
        text, found = chat.shown(made, one)
        ids, _ = chat.sequence(rendered)
        assert made.tokenizer.decode(ids) == text, name
        assert chat.learnt(made, rendered) == [text[a:b] for a, b in found], name


def test_weights_of_messages_history_and_prompts() -> None:
    turns = chat.say("a", "b", "c", "d")
    turns[1] = Message("assistant", "b", 0.5)
    made = chat.renderer(chat.CHATML)
    [[rendered]] = made.examples([chat.example(turns)])  # type: ignore[misc]
    assert set(rendered.trunk.mask) == {0.0, 0.5} and set(rendered.branches[0].mask[:-1]) == {1.0}
    made = chat.renderer(chat.CHATML, mask_history=True)
    [[rendered]] = made.examples([chat.example(turns)])  # type: ignore[misc]
    assert chat.learnt(made, rendered) == ["d<|im_end|>"]
    made = chat.renderer(chat.CHATML, train_on_prompt=True)
    text, found = chat.shown(made, chat.example(chat.say("a", "b")))
    assert found == [(0, len(text))]
    untaught = [*chat.say("a", "b")[:1], Message("assistant", "b", 0.0)]
    assert chat.shown(chat.renderer(chat.CHATML), chat.example(untaught))[1] == []


def test_branches_share_the_prompt_and_keep_their_verdict() -> None:
    trunk = tuple(chat.say("Which?"))
    ends = tuple((Message("assistant", text, 1.0),) for text in ("good", "bad"))
    made = chat.renderer(chat.CHATML)
    [[pair]] = made.examples([Example(trunk, ends, source="p:1")])  # type: ignore[misc]
    assert (
        made.tokenizer.decode(pair.trunk.ids) == "<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [made.tokenizer.decode(b.ids) for b in pair.branches] == ["good<|im_end|>\n", "bad<|im_end|>\n"]
    assert not pair.trunk.mask.any() and pair.branches[1].mask.sum() == len(pair.branches[1]) - 1
    [[kto]] = made.examples([Example(trunk, ends[:1], verdict=False, source="k:1")])  # type: ignore[misc]
    assert kto.verdict is False and kto.source == "k:1"


def test_a_branch_may_begin_with_more_than_a_reply() -> None:
    trunk = tuple(chat.say("a", "b"))
    branch = tuple(chat.say("c", "d"))
    made = chat.renderer(chat.CHATML)
    [[rendered]] = made.examples([Example(trunk, (branch,))])  # type: ignore[misc]
    assert made.tokenizer.decode(rendered.trunk.ids).endswith("assistant\nb<|im_end|>")
    assert made.tokenizer.decode(rendered.branches[0].ids).startswith("\n<|im_start|>user\nc")


def test_examples_without_a_branch_are_prompts() -> None:
    made = chat.renderer(chat.CHATML)
    [[rendered]] = made.examples([Example(tuple(chat.say("hi")), answer="yo")])  # type: ignore[misc]
    assert rendered.branches == ()
    assert list(rendered.trunk.ids) == made.prompt(chat.say("hi"))


def test_a_template_that_refuses_or_forgets_a_system_message_says_so_once() -> None:
    rows = [chat.example(chat.say("q", "a", system="Be brief."), f"r:{k}") for k in range(3)]
    for template, reason in (
        (chat.STRIPS, "no system here"),
        (chat.FORGETS_SYSTEM, "left out without a word"),
    ):
        with pytest.raises(TemplateError, match=rf"r:0: .*cannot express a system message: .*{reason}"):
            chat.renderer(template).examples(rows)


def test_tools_that_a_template_leaves_out_are_an_error() -> None:
    tool = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}
    one = Example(tuple(chat.say("q")), ((Message("assistant", "a", 1.0),),), tools=(tool,), source="r:1")
    with pytest.raises(TemplateError, match="cannot express definitions of tools"):
        chat.renderer(chat.CHATML).examples([one])
    calls = Message("assistant", "", 1.0, (ToolCall("f", {}),))
    with pytest.raises(TemplateError, match="cannot express tool calls"):
        chat.renderer(chat.CHATML).examples([Example(tuple(chat.say("q")), ((calls,),))])


def test_a_row_that_the_template_refuses_is_a_bad_row_with_its_words() -> None:
    alternate = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('turns must alternate') }}{% endif %}"
        "{{ m['role'] + ':' + m['content'] + '<end>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    made = chat.renderer(alternate)
    wrong = [Message("user", "a"), Message("user", "b"), Message("assistant", "c", 1.0)]
    bad, good = made.examples([chat.example(wrong, "f:1"), chat.example(chat.say("a", "b"), "f:2")])
    assert isinstance(bad, BadRow) and bad.source == "f:1" and "turns must alternate" in bad.reason
    assert not isinstance(good, BadRow) and good[0].source == "f:2"


def test_a_template_that_cannot_render_anything_is_refused_at_once() -> None:
    with pytest.raises(TemplateError, match="cannot even render a question"):
        chat.renderer("{{ raise_exception('never') }}")


def test_tool_turns_of_a_named_template() -> None:
    turns = [
        Message("user", "q"),
        Message("assistant", "", 1.0, (ToolCall("f", {"a": 3, "b": "x"}),)),
        Message("tool", "7"),
        Message("assistant", "seven", 1.0),
    ]
    text, learnt = spans("qwen", turns)
    assert "<|im_start|>user\n<tool_response>\n7\n</tool_response><|im_end|>\n<|im_start|>assistant\n" in text
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 3, "b": "x"}}\n</tool_call><|im_end|>'
    assert learnt == [call, "seven<|im_end|>"]


def test_a_template_that_wants_arguments_as_text_gets_them_so() -> None:
    text_only = (
        "{% for m in messages %}{% if m['role'] == 'assistant' and 'tool_calls' in m %}{{ '<bot>' }}"
        "{% for t in m['tool_calls'] %}{{ t['function']['name'] + '(' + t['function']['arguments'] + ')' }}"
        "{% endfor %}{{ '<end>' }}{% else %}{{ ('<bot>' if m['role'] == 'assistant' else '<user>') "
        "+ m['content'] + '<end>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
    )
    turns = [Message("user", "q"), Message("assistant", "", 1.0, (ToolCall("f", {"a": "北"}),))]
    assert spans(text_only, turns)[1] == ['f({"a": "北"})<end>']


@pytest.mark.skipif(not SHARED.is_dir(), reason="published templates are not at hand")
@pytest.mark.parametrize("tokens", ["known", "unknown"])
@pytest.mark.parametrize("path", sorted(SHARED.glob("*.golden.json")), ids=lambda p: p.name.split(".")[0])
def test_published_templates(path: Path, tokens: str) -> None:
    import re

    golden = json.loads(path.read_text(encoding="utf-8"))
    text = path.with_name(path.name.replace(".golden.json", ".jinja")).read_text(encoding="utf-8")
    made = chat.tokenizer(text)
    made.add_special_tokens(golden["tokens"])
    if tokens == "known":
        tags = [*dict.fromkeys(re.findall(r"<[|｜]?\w+[|｜]?>", text))]
        made.add_special_tokens({"additional_special_tokens": tags}, replace_extra_special_tokens=False)
    renderer = chat.renderer(None, made)
    for case in golden["cases"]:
        messages = [
            Message(m["role"], m["content"], float(m["role"] == "assistant")) for m in case["messages"]
        ]
        one = chat.example(messages, case["case"])
        if "error" in case:
            with pytest.raises(TemplateError, match=re.escape(case["error"].removeprefix("TemplateError: "))):
                renderer.examples([one])
            continue
        shown, found = chat.shown(renderer, one)
        assert shown == (case["training_text"] or case["text"])
        _check_spans(shown, found, case["training_spans"] or case["assistant_spans"])
        [[rendered]] = renderer.examples([one])  # type: ignore[misc]
        assert renderer.tokenizer.decode(chat.sequence(rendered)[0]) == shown


def _check_spans(text: str, found: list[tuple[int, int]], golden: list[list[int]]) -> None:
    """Nothing outside a golden span is learnt; of each turn, all from header to end is."""
    inside = {k for a, b in golden for k in range(a, b)}
    learnt = {k for a, b in found for k in range(a, b)}
    assert learnt <= inside
    whole = [g for g in golden if any(a < g[1] and g[0] < b for a, b in found)]
    assert len(whole) == len(found)
    for (a, b), (start, stop) in zip(found, whole, strict=True):
        assert not text[b:stop].strip() and b > a and start <= a
