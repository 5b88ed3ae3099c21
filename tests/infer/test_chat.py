"""Conversations: from Python, through a pipe, and at a terminal."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import tiny
from luthier.data import template as templates
from luthier.data.render import Renderer
from luthier.errors import LuthierError
from luthier.infer import chat as chats
from luthier.infer.chat import Session, chat, main
from luthier.infer.engine import Generation, text_of
from luthier.infer.hf import HFEngine
from luthier.types import Message

SHORT = {"max_new_tokens": 8, "do_sample": False}


class Terminal(io.StringIO):
    """Lines that look as if they were typed."""

    def isatty(self) -> bool:
        return True


def session(**options: Any) -> Session:
    """A conversation with a tiny random model."""
    tokenizer = tiny.tokenizer()
    model = tiny.build("qwen3")
    renderer = Renderer(templates.load("qwen", tokenizer), tokenizer)
    generation = Generation(max_new_tokens=8, stop_ids=frozenset(renderer.stop_ids))
    return Session(HFEngine(model, tokenizer), renderer, tokenizer, generation, **options)


def run_main(words: list[str], typed: str, monkeypatch: pytest.MonkeyPatch, terminal: bool = False) -> int:
    monkeypatch.setattr("sys.stdin", Terminal(typed) if terminal else io.StringIO(typed))
    return main([*words, "max_new_tokens=8", "do_sample=false"])


def test_an_answer_is_what_the_model_says_to_the_prompt_of_training() -> None:
    talk = session()
    model, tokenizer = tiny.build("qwen3"), tiny.tokenizer()
    prompt = talk._renderer.prompt([Message("user", "Where is my order?")])
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=2)
    expected = tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)
    assert talk.say("Where is my order?") == expected
    assert talk.history == [Message("user", "Where is my order?"), Message("assistant", expected)]


def test_pieces_add_up_and_the_history_is_part_of_the_next_prompt() -> None:
    talk, other = session(), session()
    first = "".join(talk.stream("One two"))
    assert other.say("One two") == first
    second = talk.say("three")
    prompt = other._renderer.prompt([*other.history, Message("user", "three")])
    ids = other._engine.generate([prompt], other.options)[0]
    assert second == text_of(tiny.tokenizer(), ids, other.options)
    talk.clear()
    assert talk.say("One two") == first


def test_control_tokens_that_the_user_types_are_text() -> None:
    talk = session()
    prompt = talk._renderer.prompt([Message("user", "a<|im_end|>b")])
    plain = talk._renderer.prompt([Message("user", "ab")])
    assert prompt.count(2) == plain.count(2)


def test_an_answer_that_is_stopped_stays_in_the_history() -> None:
    talk = session()
    stream = talk.stream("One two")
    pieces = [next(stream), next(stream), next(stream)]
    stream.close()
    assert talk.history == [Message("user", "One two"), Message("assistant", "".join(pieces))]
    assert session().say("One two").startswith("".join(pieces))


def test_a_full_context_is_an_error_and_the_message_is_not_kept() -> None:
    talk = session()
    with pytest.raises(LuthierError, match="the model reads 512"):
        talk.say("nine ten " * 300)
    assert talk.history == []


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["<thi", "nk>\n", "\n</think>", "\n\n", "spo", "rt"], "sport"),
        (["<think>", "\nIt is", " a ball\n</think>\n\nsport"], "<think>\nIt is a ball\n</think>\n\nsport"),
        (["<", "b>"], "<b>"),
        (["<think>\n\n</think>"], ""),
        (["<thi"], "<thi"),
        ([""], ""),
    ],
)
def test_an_empty_thought_is_not_shown(pieces: list[str], shown: str) -> None:
    words = ("<think>\n", "\n</think>\n\n")
    assert "".join(chats._without_empty_thought(iter(pieces), words)) == shown
    assert list(chats._without_empty_thought(iter(pieces), None)) == pieces


def test_a_run_knows_its_base_template_and_system_message(place: Path) -> None:
    talk = chat(place / "run", **SHORT)
    assert talk.system == "Answer with one word."
    assert f"base {place / 'base'} · adapter {place / 'run'} · template qwen" in talk.about
    tokenizer = tiny.tokenizer()
    messages = [Message("system", "Answer with one word."), Message("user", "Can I return it?")]
    prompt = torch.tensor([Renderer(templates.load("qwen", tokenizer), tokenizer).prompt(messages)])
    base = AutoModelForCausalLM.from_pretrained(place / "base")
    adapted = PeftModel.from_pretrained(base, str(place / "run"))
    ids = adapted.generate(input_ids=prompt, max_new_tokens=8, do_sample=False, eos_token_id=2)
    assert talk.say("Can I return it?") == tokenizer.decode(
        ids[0, prompt.shape[1] :], skip_special_tokens=True
    )


def test_a_pipe_is_one_message_a_line_and_commands_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "talk.json"
    lines = [
        "One two",
        "",
        "/system Be brief.",
        "three",
        f"/save {file}",
        f"/save {file}",
        "/dance",
        "/system",
    ]
    typed = "\n".join([*lines, "exit", "never read"])
    assert run_main([str(place / "run")], typed, monkeypatch) == 0
    out, err = capsys.readouterr()
    talk = chat(place / "run", **SHORT)
    first = talk.say("One two")
    talk.system = "Be brief."
    talk.clear()
    second = talk.say("three")
    assert out == f"{first}\n{second}\n"
    assert json.loads(file.read_text(encoding="utf-8")) == [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "three"},
                {"role": "assistant", "content": second},
            ]
        }
    ]
    for line in ("base ", "written: ", "exists already", "there is no /dance", "system message: Be brief."):
        assert line in err


def test_the_flags_of_llama_factory_are_those_of_a_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model_name_or_path", str(place / "base"), "--adapter_name_or_path", str(place / "run")]
    flags += ["--template", "qwen", "--finetuning_type", "lora"]
    assert run_main(flags, "One two\n", monkeypatch) == 0
    assert capsys.readouterr().out == chat(place / "run", **SHORT).say("One two") + "\n"


def test_clear_begins_again_and_two_slashes_begin_a_message(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main([str(place / "run")], "One\nclear\nOne\n/clear\n//help me\n", monkeypatch) == 0
    first, again, third = capsys.readouterr().out.splitlines()
    assert first == again
    assert third == chat(place / "run", **SHORT).say("/help me")


def test_three_quotes_hold_several_lines(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main([str(place / "run")], '"""One\ntwo\n"""\n"""three"""\n', monkeypatch) == 0
    talk = chat(place / "run", **SHORT)
    assert capsys.readouterr().out == f"{talk.say(chr(10).join(['One', 'two']))}\n{talk.say('three')}\n"


def test_json_has_one_object_a_message(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main([str(place / "run"), "--format", "json"], "One\ntwo\n", monkeypatch) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    talk = chat(place / "run", **SHORT)
    assert [(r["user"], r["assistant"]) for r in records] == [
        ("One", talk.say("One")),
        ("two", talk.say("two")),
    ]


def test_ctrl_c_stops_the_answer_not_the_program(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3 + 4:  # three passes compare the lean one with the model's own
            raise KeyboardInterrupt

    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: interrupt() if type(module) is torch.nn.Embedding else None
    )
    try:
        assert run_main([str(place / "run")], "One two\n/clear\nthree\n", monkeypatch, terminal=True) == 0
    finally:
        handle.remove()
    out = capsys.readouterr().out
    assert f"{chat(place / 'run', **SHORT).say('three')}\n" in out
    assert " …\n" in out


def test_a_terminal_shows_an_error_and_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = "nine ten " * 300 + "\nOne\n"
    assert run_main([str(place / "run")], typed, monkeypatch, terminal=True) == 0
    out, err = capsys.readouterr()
    assert "error: the prompt has" in err
    assert out.rstrip().endswith(chat(place / "run", **SHORT).say("One").rstrip() + "\n\nUser:")


def test_sampling_is_the_default_and_follows_the_seed(place: Path) -> None:
    options = chat(place / "run").options
    assert (options.do_sample, options.temperature, options.top_p, options.top_k) == (True, 0.95, 0.7, 50)
    assert chat(place / "run", temperature=0.2, top_k=0).options.temperature == 0.2


def test_no_such_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LuthierError, match="nowhere"):
        chat(tmp_path / "nowhere")
