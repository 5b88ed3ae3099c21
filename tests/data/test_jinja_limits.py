"""What chat templates may spend and reach; whatever honest ones write is what transformers renders."""

from __future__ import annotations

import copy
import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import yaml

import chat
from faults.templates import ATTACKS, BOMBS, CANARY
from luthier.data import jinja, jinja_budget
from luthier.data import template as templates
from luthier.errors import TemplateError

SHARED = Path(__file__).parents[2].parent / "shared" / "chat_templates"
VALUES = {"bos_token": "<s>", "eos_token": "</s>"}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": " What <is> 2+2? "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"},
    {"role": "user", "content": "谢谢"},
]
MEMORY = 200 << 20
HONEST: list[str] = yaml.safe_load(Path(__file__).with_name("honest_jinja.yaml").read_text(encoding="utf-8"))


def reference(text: str, messages: list[dict[str, Any]], **values: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    (rendered,), _ = render_jinja_template([messages], chat_template=text, **{**VALUES, **values})
    return str(rendered)


def ours(text: str, messages: list[dict[str, Any]], **values: Any) -> str:
    return jinja.render(text, messages, None, {**VALUES, **values})


@pytest.mark.parametrize("text", HONEST)
def test_honest_words_are_rendered_as_transformers_does(text: str) -> None:
    assert ours(text, TALK) == reference(text, TALK)


@pytest.mark.parametrize(
    "name", ["qwen3", "llama3", "deepseek3", "gemma4", "gpt_oss", "glm4", "mistral", "qwen"]
)
def test_our_templates_are_rendered_as_transformers_does(name: str) -> None:
    text = templates.load(name, chat.tokenizer()).text
    talk = TALK[1:] if "system" in text else TALK
    for prompt in (False, True):
        values = {"add_generation_prompt": prompt}
        assert ours(text, talk, **values) == reference(text, talk, **values)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published templates are not here")
@pytest.mark.parametrize("turns, size", [(2, 500_000), (2_000, 500), (20, 60)])
def test_long_conversations_are_rendered_as_transformers_does(turns: int, size: int) -> None:
    """A million characters, two thousand turns: no limit is met."""
    talk = [
        {"role": ("user", "assistant")[k % 2], "content": f"{k} word\n" * (size // 7)} for k in range(turns)
    ]
    for file in sorted(SHARED.glob("*.jinja")):
        text = file.read_text(encoding="utf-8")
        assert ours(text, talk) == reference(text, talk), file.name


def test_limits_grow_with_the_conversation() -> None:
    """A template that copies all it has at every turn is poor, and still honest."""
    adding = "{% for m in messages %}{% set ns.t = ns.t + m.content %}{% endfor %}"
    text = "{% set ns = namespace(t='') %}" + adding + "{{ ns.t }}"
    talk = [{"role": "user", "content": "x" * 1_000}] * 300
    assert len(ours(text, talk)) == 300_000
    inner = "{% for n in messages %}{% if m.content == n.content %}{% endif %}{% endfor %}"
    assert ours("{% for m in messages %}" + inner + "{% endfor %}", talk) == ""
    with pytest.raises(TemplateError, match="too much text"):
        ours(text, [{"role": "user", "content": "x"}] * 50_000)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_end_in_an_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    messages, tools = copy.deepcopy(TALK), [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises((TemplateError, jinja.RenderProblem)) as caught:
        templates.load(ATTACKS[name], chat.tokenizer(), required=True).render(messages, tools=tools)
    assert messages == TALK and tools == [{"type": "function", "function": {"name": "f"}}]
    assert not (tmp_path / CANARY).exists() and list(tmp_path.iterdir()) == []
    said = str(caught.value)
    assert " at 0x" not in said and "\x1b" not in said and len(said) < 2_000


def _alone(text: str) -> tuple[str, int]:
    """Render in a process of its own: what it said, and the memory that it took beyond ours, in bytes."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        code = 1
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                said = f"rendered {len(ours(text, TALK))} characters"
            except (TemplateError, jinja.RenderProblem) as error:
                said = f"{type(error).__name__}: {error}"
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os.write(writer, f"{grown} {said}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        grown, _, said = stream.read().partition(" ")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return said, int(grown) * 1024


@pytest.mark.parametrize("name", [name for k, name in enumerate(BOMBS) if k % 3 == 1])
def test_bombs_end_in_an_error(name: str) -> None:
    said, grown = _alone(BOMBS[name])
    assert said.startswith(("TemplateError: ", "RenderProblem: "))
    assert "more memory than there is" not in said and len(said) < 2_000
    assert grown < MEMORY


def test_the_error_says_where_the_template_is_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "stranger.jinja"
    file.write_text("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    with pytest.raises(TemplateError) as caught:
        templates.load(str(file), chat.tokenizer()).render(TALK)
    assert str(caught.value).startswith(
        f"template {file}: the chat template takes too many steps: more than 3,0"
    )
    assert "-> choose another template: `template: NAME`" in str(caught.value)
    made = chat.tokenizer("{{ messages.__class__ }}")
    made.name_or_path = "models/strange"
    with pytest.raises(TemplateError, match=r"^template of the tokenizer in models/strange: .* is unsafe"):
        templates.load(None, made).render(TALK)
    file.write_text("{% include 'x' %}")
    with pytest.raises(TemplateError, match=r"stranger\.jinja: the chat template uses `include` in line 1"):
        templates.load(str(file), chat.tokenizer())


def test_processor_time_is_the_last_resort() -> None:
    budget = jinja_budget.Budget(TALK)
    budget.seconds = 0.0
    with pytest.raises(TemplateError, match="takes too long"):
        for _ in range(jinja_budget.STEPS):
            budget.step(1)


def test_a_first_line_like_ours_is_believed_only_if_it_is_whole() -> None:
    note = '{#- luthier {"name": "qwen", "stops": %s} -#}\n{{ messages }}'
    for stops in ("[]", "3", "["):
        with pytest.raises(TemplateError, match="is not what luthier writes"):
            templates.load(note % stops, chat.tokenizer())


def test_a_template_of_many_names_is_rendered_the_slow_way() -> None:
    """Names that hand a message on, last first, would be followed for as many rounds as there are names."""
    handed = (
        "".join(f"{{% set a{k} = a{k + 1} %}}" for k in range(60)) + "{% set a60 = messages[0].content %}"
    )
    assert not jinja.watched(handed).verbatim
    assert jinja.watched("{% set a = messages[0].content %}{% set b = a %}{{ b }}").verbatim


def test_nothing_else_renders_a_template() -> None:
    """Neither Jinja nor the tokenizer's own rendering is called anywhere but behind the limits.

    Pages and model cards are made of templates of ours, which lie beside the module that names them.
    """
    source = Path(jinja.__file__).parents[1]
    asking = {
        file.name: text
        for file in source.rglob("*.py")
        if re.search(
            r"apply_chat_template|^\s*(from|import) jinja2", text := file.read_text(encoding="utf-8"), re.M
        )
    }
    pages = asking.pop("base.py")
    assert "autoescape=True" in pages and re.findall(r"[\w.]+\.jinja\b", pages) == ["base.html.jinja"]
    assert re.findall(r"[\w.]+\.jinja\b", asking.pop("card.py")) == ["card.md.jinja"]
    assert asking and all(name.startswith("jinja") for name in asking)
