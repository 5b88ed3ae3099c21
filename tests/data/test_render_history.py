"""Reasoning templates: earlier turns as written or as the template writes them; thinking on, off, both."""

from __future__ import annotations

from typing import Any

import chat
from luthier.data.render import Renderer, RenderOptions
from luthier.types import Example, Message

THOUGHT = "<think>\nhm\n</think>\n\n"
EMPTY = "<think>\n\n</think>\n\n"
ASK, ASSIST = "<|im_start|>user\n{}<|im_end|>\n", "<|im_start|>assistant\n"


def rendered(made: Any, messages: list[Message]) -> list[Any]:
    [found] = made.examples([chat.example(messages)])
    assert isinstance(found, list), found
    return found


def test_as_template_splits_a_conversation_whose_history_is_rewritten() -> None:
    made = chat.renderer(chat.REWRITES, history="as_template")
    turns = chat.say("1", THOUGHT + "a", "2", "b")
    first, second = rendered(made, turns)
    texts = [made.tokenizer.decode(chat.sequence(r)[0]) for r in (first, second)]
    assert texts[0] == ASK.format(1) + ASSIST + THOUGHT + "a<|im_end|>\n"
    assert (
        texts[1]
        == ASK.format(1) + ASSIST + "a<|im_end|>\n" + ASK.format(2) + ASSIST + EMPTY + "b<|im_end|>\n"
    )
    assert [chat.learnt(made, r) for r in (first, second)] == [
        [THOUGHT + "a<|im_end|>"],
        [EMPTY + "b<|im_end|>"],
    ]
    assert made.counts["split"] == 1
    assert list(first.trunk.ids) == made.prompt(turns[:1]) and list(second.trunk.ids) == made.prompt(
        turns[:3]
    )


def test_as_template_keeps_whole_what_the_template_leaves_alone() -> None:
    made = chat.renderer(chat.CHATML, history="as_template")
    [one] = rendered(made, chat.say("1", "a", "2", "b"))
    assert chat.learnt(made, one) == ["a<|im_end|>", "b<|im_end|>"] and made.counts["split"] == 0


def test_as_template_with_only_the_last_reply_learnt_does_not_split() -> None:
    made = chat.renderer(chat.REWRITES, history="as_template", mask_history=True)
    [one] = rendered(made, chat.say("1", THOUGHT + "a", "2", "b"))
    assert made.tokenizer.decode(one.trunk.ids) == (
        ASK.format(1) + ASSIST + "a<|im_end|>\n" + ASK.format(2) + ASSIST
    )


def test_pairs_stand_behind_the_templates_own_prompt() -> None:
    made = chat.renderer(chat.REWRITES, history="as_template")
    trunk = chat.say("1", THOUGHT + "a", "2")
    ends = tuple((Message("assistant", t, 1.0),) for t in ("b", "c"))
    [[pair]] = made.examples([Example(tuple(trunk), ends)])  # type: ignore[misc]
    assert list(pair.trunk.ids) == made.prompt(trunk)
    assert [chat.learnt(made, pair, k) for k in (0, 1)] == [[EMPTY + "b<|im_end|>"], [EMPTY + "c<|im_end|>"]]


def test_the_choice_is_said() -> None:
    kept, rewritten = (chat.renderer(chat.REWRITES, history=h).notes for h in ("as_trained", "as_template"))
    assert "kept as the model wrote them (history: as_trained)" in kept[0]
    assert "are rewritten (history: as_template)" in rewritten[0]
    assert chat.renderer(chat.CHATML).notes == []


def test_thinking_on_learns_an_empty_thought() -> None:
    made = chat.renderer("qwen3", enable_thinking=True)
    [one] = rendered(made, chat.say("1", "a", "2", THOUGHT + "b"))
    assert chat.learnt(made, one) == [EMPTY + "a<|im_end|>", THOUGHT + "b<|im_end|>"]
    assert made.tokenizer.decode(made.prompt(chat.say("1"))) == ASK.format(1) + ASSIST


def test_thinking_off_puts_the_empty_thought_into_the_prompt() -> None:
    for name in ("qwen3", chat.REWRITES):
        made = chat.renderer(name, enable_thinking=False)
        turns = chat.say("1", "a", "2", THOUGHT + "b")
        [one] = rendered(made, turns)
        assert chat.learnt(made, one) == ["a<|im_end|>", "b<|im_end|>"]
        asked = made.prompt(turns[:1])
        assert made.tokenizer.decode(asked) == ASK.format(1) + ASSIST + EMPTY
        assert chat.sequence(one)[0][: len(asked)] == asked


def test_both_kinds_of_data() -> None:
    made = chat.renderer("qwen3", enable_thinking=None)
    [fast] = rendered(made, chat.say("1", "a"))
    [slow] = rendered(made, chat.say("1", THOUGHT + "a"))
    assert chat.learnt(made, fast) == ["a<|im_end|>"] and chat.learnt(made, slow) == [THOUGHT + "a<|im_end|>"]
    assert list(fast.trunk.ids) == made.prompt(chat.say("1"))


def test_a_named_template_of_other_words() -> None:
    made = chat.renderer("deepseekr1")
    [one] = rendered(made, chat.say("1", "a"))
    assert made.tokenizer.decode(one.trunk.ids) == "<s><｜User｜>1<｜Assistant｜>"
    assert chat.learnt(made, one) == [EMPTY + "a</s>"]


def test_history_of_a_named_template_is_in_its_text() -> None:
    turns = [{"role": m.role, "content": m.content} for m in chat.say("1", THOUGHT + "a", "2", "b")]
    for history, first in (("as_trained", THOUGHT + "a"), ("as_template", "a")):
        made = chat.renderer("qwen3", history=history)
        text = made.template.render(turns)
        assert text.startswith(ASK.format(1) + ASSIST + first + "<|im_end|>\n")
        if history == "as_trained":
            assert chat.shown(made, chat.example(chat.say("1", THOUGHT + "a", "2", "b")))[0] == text


def test_a_configuration_gives_its_renderer() -> None:
    from luthier.config import Config

    made = chat.known("qwen")
    config = Config(template="qwen", cutoff_len=77, mask_history=True, default_system="Be brief.")
    renderer = Renderer.of(config, made)
    assert renderer.options == RenderOptions(cutoff_len=77, mask_history=True)
    assert renderer.notes == ["end of text is now <|im_end|> (was </s>), as template qwen has it"]
    assert made.decode(renderer.prompt([Message("user", "q")])).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>"
    )
    assert renderer.vocabulary == len(made)


def test_pre_training_needs_no_template_and_leaves_none_behind() -> None:
    from luthier.config import Config

    made = chat.tokenizer()
    renderer = Renderer.of(Config(stage="pt"), made)
    assert renderer.template.name == "empty" and made.chat_template is None
