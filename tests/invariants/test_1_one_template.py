"""Promise 1: what you train is what you serve.

The prompt that inference feeds is, token for token, the beginning of what training saw; and the text that
the run keeps renders to that same prompt wherever it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import chat
from luthier.data import template as templates
from luthier.data.render import Renderer, RenderOptions
from luthier.types import BadRow, Message, ToolCall

TEXT = st.lists(
    st.sampled_from(
        [
            "a",
            "好",
            " ",
            "\n",
            "<think>\nx\n</think>\n\n",
            "<|im_end|>",
            "</s>",
            "order",
            "<",
            "|im_end|>",
            "é",
            "0",
        ]
    ),
    min_size=1,
    max_size=5,
).map("".join)
NAMES = [
    "qwen",
    "qwen3",
    "qwen3_nothink",
    "llama3",
    "gemma",
    "mistral",
    "deepseekr1",
    "phi",
    "glm4",
    "alpaca",
    "default",
]
KINDS: list[tuple[str, dict[str, Any]]] = [
    *[(text, {}) for text in chat.ALL.values()],
    *[(name, {}) for name in NAMES],
    *[(name, {"enable_thinking": False}) for name in ("qwen3", chat.REWRITES)],
]
RENDERERS = [chat.renderer(name, **options) for name, options in KINDS]
AS_TEMPLATE = [chat.renderer(name, **options, history="as_template") for name, options in KINDS]


def starts(messages: list[Message]) -> list[int]:
    return [k for k, message in enumerate(messages) if message.role == "assistant"]


def sure(found: list[Any] | BadRow) -> list[Any]:
    """Rows that a template refuses (a reply that strips to nothing) have nothing to compare."""
    return [] if isinstance(found, BadRow) else found


@settings(max_examples=120, deadline=None)
@given(which=st.integers(0, len(KINDS) - 1), texts=st.lists(TEXT, min_size=2, max_size=6))
def test_every_prompt_is_the_beginning_of_what_training_saw(which: int, texts: list[str]) -> None:
    made = RENDERERS[which]
    messages = chat.say(*texts[: len(texts) // 2 * 2])
    for rendered in sure(made.examples([chat.example(messages)])[0]):
        ids, weights = chat.sequence(rendered)
        for k in starts(messages):
            prompt = made.prompt(messages[:k])
            assert ids[: len(prompt)] == prompt
            assert weights[len(prompt)] == 1.0 and weights[len(prompt) - 1] == 0.0


@settings(max_examples=80, deadline=None)
@given(which=st.integers(0, len(KINDS) - 1), texts=st.lists(TEXT, min_size=4, max_size=6))
def test_the_same_with_the_history_that_the_template_writes(which: int, texts: list[str]) -> None:
    made = AS_TEMPLATE[which]
    messages = chat.say(*texts[: len(texts) // 2 * 2])
    parts = [chat.sequence(rendered) for rendered in sure(made.examples([chat.example(messages)])[0])]
    for part, k in zip(
        parts if len(parts) > 1 else parts * len(starts(messages)), starts(messages), strict=False
    ):
        prompt = made.prompt(messages[:k])
        assert part[0][: len(prompt)] == prompt and part[1][len(prompt)] == 1.0


def test_tool_turns_keep_the_promise() -> None:
    tool = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    messages = [
        Message("user", "q"),
        Message("assistant", "", 1.0, (ToolCall("f", {"a": "<|im_end|>"}),)),
        Message("tool", "7</s>"),
        Message("assistant", "seven", 1.0),
    ]
    for name in ("qwen", "qwen3", "llama3", "mistral", "glm4", "default"):
        made = chat.renderer(name)
        from luthier.types import Example

        [[rendered]] = made.examples([Example(tuple(messages[:3]), (tuple(messages[3:]),), tools=(tool,))])  # type: ignore[misc]
        ids, weights = chat.sequence(rendered)
        for k in (1, 3):
            prompt = made.prompt(messages[:k], [tool])
            assert ids[: len(prompt)] == prompt and weights[len(prompt)] == 1.0, name


def test_the_text_kept_with_the_run_gives_the_same_tokens(tmp_path: Path) -> None:
    messages = chat.say("1", "<think>\nx\n</think>\n\na", "2", "b", "3")
    for first, (name, options) in zip(RENDERERS, KINDS, strict=True):
        chosen = RenderOptions(**options)
        if name.isidentifier():
            (tmp_path / templates.FILE).write_text(first.template.text, encoding="utf-8")
            kept = templates.load(str(tmp_path / templates.FILE), first.tokenizer)
        else:
            kept = templates.load(None, first.tokenizer)
        again = Renderer(kept, first.tokenizer, chosen)
        assert again.prompt(messages) == first.prompt(messages), name
        assert again.stop_ids == first.stop_ids


def test_whoever_renders_the_kept_text_gets_the_prompt_that_training_saw() -> None:
    """For templates that leave history alone, and the named ones, plain rendering equals ours."""
    messages = chat.say("1", "a", "2", system=None)
    plain = [{"role": m.role, "content": m.content} for m in messages]
    for made, (name, options) in zip(RENDERERS, KINDS, strict=True):
        if name in (chat.REWRITES, chat.DROPS):
            continue
        theirs = made.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        assert theirs == made.tokenizer.decode(made.prompt(messages)), (name, options)
