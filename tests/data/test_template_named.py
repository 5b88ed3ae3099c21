"""Named templates write the published formats, byte for byte. The texts are in named_templates.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import chat
from luthier.data import template as templates

TEXTS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "named_templates.json").read_text(encoding="utf-8")
)
VALUES = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {
    "name": "weather",
    "description": '今天 "now"',
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where", "enum": ["a", "b"]},
            "days": {"type": "array", "items": {"type": "integer"}, "description": "When"},
        },
        "required": ["city"],
    },
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "北京", "days": [1, 2]}}}
CASES: dict[str, list[dict[str, Any]]] = {
    "plain": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1 等于几？"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": " and \n3? "},
        {"role": "assistant", "content": "6"},
    ],
    "alone": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
    "tools": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"t": 3}'},
        {"role": "assistant", "content": "warm"},
    ],
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_named_template_writes_the_published_format(name: str) -> None:
    found = templates.load(name, chat.tokenizer())
    for case, expected in TEXTS[name].items():
        tools = [TOOL] if case == "tools" else None
        assert found.render(CASES[case], tools=tools, **VALUES) == expected, case


def test_other_names_of_the_same_template() -> None:
    for alias, name in (("phi3", "phi"), ("qwen2_5", "qwen"), ("qwen2", "qwen"), ("mllama", "llama3")):
        assert (
            templates.load(alias, chat.tokenizer()).render(CASES["plain"], **VALUES) == TEXTS[name]["plain"]
        )


def test_llama3_writes_the_date_into_definitions_of_tools() -> None:
    text = templates.load("llama3", chat.tokenizer()).render(CASES["tools"], tools=[TOOL], **VALUES)
    assert "Be brief.Cutting Knowledge Date: December 2023\nToday Date: " in text
    assert '{"name": "weather", "parameters": {"city": "北京", "days": [1, 2]}}<|eot_id|>' in text
    assert "<|start_header_id|>ipython<|end_header_id|>\n\n" in text


def test_glm4_refuses_two_calls_in_one_turn() -> None:
    from luthier.data.jinja import RenderProblem

    turns = [CASES["tools"][1], {**CASES["tools"][2], "tool_calls": [CALL, CALL]}]
    with pytest.raises(RenderProblem, match="one call per turn"):
        templates.load("glm4", chat.tokenizer()).render(turns, **VALUES)


def test_reasoning_is_kept_or_taken_out_as_history_says() -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nb\n</think>\n\nc"},
        {"role": "user", "content": "d"},
    ]
    kept = templates.load("qwen3", chat.tokenizer(), history="as_trained")
    assert "<|im_start|>assistant\n<think>\nb\n</think>\n\nc<|im_end|>" in kept.render(turns)
    gone = templates.load("qwen3", chat.tokenizer(), history="as_template")
    assert "<|im_start|>assistant\nc<|im_end|>" in gone.render(turns)


def test_what_the_rows_say_beside_the_text() -> None:
    made = chat.tokenizer()
    assert templates.load("qwen", made).default_system == (
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    )
    assert templates.load("glm4", made).stops == ("<|user|>", "<|observation|>")
    assert templates.load("llama3", made).replace_eos is True
    assert templates.load("deepseekr1", made).thought == ("<think>\n", "\n</think>\n\n")
    assert templates.load("qwen3_nothink", made).thought is None
    assert templates.load("empty", made).bare is True
