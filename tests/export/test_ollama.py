"""Go templates derived for Ollama, and `ollama create` with what comes of it."""

import dataclasses
import json
from pathlib import Path

import pytest

import ollamas
import tiny
from luthier.config import Config, load
from luthier.data.render import Renderer
from luthier.errors import UsageError
from luthier.export import cases as proof_cases
from luthier.export import cli, derived, modelfile, ollama
from luthier.export.modelfile import Modelfile
from luthier.types import Message

ORDERS = [
    ("Where is my order?", "shipping"),
    ("Can I return it?", "returns"),
    ("I want money back.", "returns"),
]


# Templates in Go


def renderer(name):
    config = Config(template=name)
    return Renderer.of(config, tiny.tokenizer())


def asked(made, tools=False):
    config = Config()
    found, _ = proof_cases.cases(config, made, 10_000)
    return [case for case in found if tools or not case.tools]


PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"
FORMS = {
    "in place": PLAIN,
    "default": "{% if messages[0].role != 'system' %}<system>D</system>{% endif %}" + PLAIN,
    "above": (
        "{% if messages[0].role == 'system' and messages[0].content %}[{{ messages[0].content }}]{% endif %}"
        "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    ),
    "inside": (
        "{% set n = namespace(s='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set n.s = m.content %}"
        "{% elif m.role == 'user' %}"
        "[INST] {% if n.s %}{{ n.s }}\n\n{% set n.s = '' %}{% endif %}{{ m.content }} [/INST]"
        "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    ),
    "no system": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"
    ),
    "words of Go": PLAIN.replace("<assistant>", '{{ "{{ .Content }}" }}\u3000"""\n{{ "{" }}'),
}


@pytest.mark.parametrize("form", FORMS)
def test_derived_and_verified(form):
    made = renderer(FORMS[form])
    cases = asked(made)
    found = derived.find(made, cases)
    assert found.differs == () and found.text is not None
    assert found.report() == {"template": "derived", "verified": len(cases), "of": len(cases), "differs": []}
    assert len(cases) >= 25
    assert ("template", found.text) in ollamas.commands(Modelfile("a", template=found.text).text())


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (PLAIN.replace("m.content", "m.content | trim"), "built-in:leading_blanks"),
        (PLAIN.replace("m.content", "m.content.split('</think>')[-1]"), "built-in:thought"),
        (
            PLAIN.replace("<assistant>", "{{ 'long' if messages | length > 3 }}<assistant>"),
            "built-in:three_turns_zh",
        ),
    ],
)
def test_what_go_cannot_say_has_no_template(text, source):
    made = renderer(text)
    found = derived.find(made, asked(made))
    assert found.text is None and found.report()["template"] == "none"
    assert found.verified + len(found.differs) == len(asked(made))
    where = dict(found.differs)[source]
    assert "was trained" in where and "would be served" in where


def test_a_template_with_tools_stays_what_it_is():
    made = renderer("qwen")
    everything = derived.find(made, asked(made, tools=True))
    assert everything.text is None
    assert {source for source, _ in everything.differs} == {"built-in:tool_offered", "built-in:tool_called"}
    assert derived.find(made, asked(made)).differs[0][0] == "tools"


def test_a_token_that_llama_cpp_adds_is_left_out():
    begun = renderer("<|endoftext|>" + PLAIN)
    found = derived.find(begun, asked(begun), "<|endoftext|>")
    assert found.text is not None and "<|endoftext|>" not in found.text
    assert "<|endoftext|>" in str(derived.find(begun, asked(begun)).text)
    plain = renderer(PLAIN)
    none = derived.find(plain, asked(plain), "<|endoftext|>")
    assert none.text is None and "training did not" in none.differs[0][1]
    metadata = {"tokenizer.ggml.tokens": ["a", "<s>"], "tokenizer.ggml.bos_token_id": 1}
    assert modelfile.begins(metadata) == ""
    assert modelfile.begins({**metadata, "tokenizer.ggml.add_bos_token": True}) == "<s>"


def test_neighbours_are_put_together_as_ollama_does():
    said = [Message("system", "a"), Message("user", "b"), Message("user", "c"), Message("system", "d")]
    assert derived.values(said) == {
        "System": "a\n\nd",
        "Messages": [
            {"Role": "system", "Content": "a"},
            {"Role": "user", "Content": "b\n\nc"},
            {"Role": "system", "Content": "d"},
        ],
        "Response": "",
    }


# The program


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", ("127.0.0.1", 11434)),
        ("0.0.0.0", ("127.0.0.1", 11434)),
        (":8000", ("127.0.0.1", 8000)),
        ("http://localhost:1234/", ("127.0.0.1", 1234)),
        ("127.0.0.2:5", ("127.0.0.2", 5)),
        ("[::1]:5", ("::1", 5)),
        ("192.168.1.7:11434", None),
        ("http://ollama.example.org", None),
    ],
)
def test_addresses(host, address):
    assert ollama.server(host) == address


@pytest.mark.parametrize("name", ["-f", "a b", "", "a:b:c", "$(x)", "a/../../b;c"])
def test_names(name):
    with pytest.raises(UsageError, match="is no name for Ollama"):
        ollama.check(name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a base whose own template knows no tools."""
    from luthier.train.run import train

    place = tmp_path_factory.mktemp("ollama")
    geometry = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    tiny.make_model(place / "base", "llama", max_position_embeddings=1024, **geometry)
    (place / "base/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    rows = [{"instruction": question, "output": answer} for question, answer in ORDERS]
    (place / "orders.json").write_text(json.dumps(rows))
    request = {
        "model_name_or_path": str(place / "base"), "dataset": str(place / "orders.json"),
        "output_dir": str(place / "tuned"), "lora_target": "all", "template": "tokenizer", "max_steps": 30,
        "learning_rate": 2e-2, "cutoff_len": 256, "temperature": 0.3, "report_to": "none",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(place / "cache"))
        train(load(request, "train"))
    return place / "tuned"


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    with ollamas.running(tmp_path_factory.mktemp("bin")) as found:
        yield found


@pytest.fixture(scope="module")
def exported(run, there):
    """`--to ollama --create` as it is typed: what it printed, and where."""
    out = run.parent / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in there.environment.items():
            patch.setenv(name, value)
        words = [str(run), f"export_dir={out}", "--to", "ollama,lora-gguf", "--create", "tuned:v1"]
        code = cli.main([*words, "--format", "json"])
    return code, out


def test_create_and_compare(exported, there):
    code, out = exported
    parity = json.loads((out / "parity.json").read_text())
    told = parity["ollama"]
    assert code == 0 and parity["ok"] is True
    assert (told["template"], told["differs"], told["file"]) == ("derived", [], "tuned-f16.gguf")
    assert told["verified"] == told["of"] == parity["files"][0]["cases"] >= 30
    made = told["create"]
    assert made["created"] and made["ok"] and made["asked"] >= 8 and made["same"] == made["asked"]
    read = dict(there.models["tuned:v1"])
    assert read["from"] == str(out / "tuned-f16.gguf") and read["template"] == made["template"]
    assert (read["stop"], read["num_ctx"], read["temperature"]) == ("<|im_end|>", "1024", "0.3")
    assert read["license"] == "license: apache-2.0" and read["requires"] == "0.30.0"
    assert len(there.asked) >= made["asked"]
    assert all(message["role"] != "tool" for body in there.asked for message in body["messages"])


def test_the_adapter_apart_from_its_base(exported):
    _, out = exported
    told = json.loads((out / "parity.json").read_text())
    one = next(one for one in told["files"] if "base" in one)
    assert (
        one["ok"]
        and one["logits"]["same_top"] == 1.0
        and one["answers"]["same"] >= 0.9 * one["answers"]["of"]
    )
    read = ollamas.commands((out / "Modelfile.lora").read_text())
    assert read[:2] == [("from", "./base-base-f16.gguf"), ("adapter", "./tuned-lora.gguf")]
    sizes = {name: (out / name).stat().st_size for name in ("tuned-lora.gguf", "base-base-f16.gguf")}
    assert sizes["tuned-lora.gguf"] < sizes["base-base-f16.gguf"]
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_ollama_serves_the_adapter_as_well(given, installed):
    apart = dataclasses.replace(given, modelfile=given.modelfile.with_name("Modelfile.lora"))
    assert ollama.create("tuned-lora", apart)["ok"]


@pytest.fixture(scope="module")
def given(exported, there):
    """Prompts and trained answers, from llama.cpp as it served the merged file."""
    _, out = exported
    made = renderer(tiny.CHATML)
    cases = asked(made)[:6]
    answers = []
    for case in cases:
        messages = [{"role": message.role, "content": message.content} for message in case.messages]
        body = {"model": "tuned:v1", "messages": messages, "stream": False}
        told = there.chat({**body, "options": {"temperature": 0, "num_predict": 24}})
        answers.append(told["message"]["content"])
    return ollama.Served(out / "Modelfile", cases, answers, 24, 1.0)


@pytest.fixture
def installed(there, monkeypatch):
    for name, value in there.environment.items():
        monkeypatch.setenv(name, value)


def test_a_wrong_template_is_seen(given, installed, there, monkeypatch):
    assert ollama.create("right", given)["ok"]
    monkeypatch.setattr(there, "library", "{{ range .Messages }}USER: {{ .Content }}\n{{ end }}ASSISTANT:")
    told = ollama.create("wrong", given)
    assert told["created"] and not told["ok"] and told["same"] < 4
    assert (
        "answers as trained" in told["problems"][0] and "ollama show --template wrong" in told["problems"][0]
    )
    assert told["differing"][0]["source"].startswith("built-in:")


def test_without_ollama_the_commands_are_told(given, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    told = ollama.create("name", given)
    assert (told["created"], told["ok"], told["why"]) == (False, True, "ollama is not installed here")
    assert ollama.commands(Path("a b/Modelfile"), "name") == [
        "ollama create name -f 'a b/Modelfile'",
        "ollama run name",
    ]
    ollamas.program(tmp_path)
    monkeypatch.setenv("OLLAMA_HOST", "192.168.1.7")
    assert "another machine" in ollama.create("name", given)["why"]


def test_a_server_that_is_not_there(given, installed, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    told = ollama.create("name", given)
    assert not told["created"] and not told["ok"]
    assert (
        "could not connect to ollama server" in told["problems"][0] and "ollama serve" in told["problems"][0]
    )


def test_what_is_typed_wrongly(run, tmp_path):
    for words, what in (
        (["--create", "-x"], "is no name for Ollama"),
        (["--install", "elsewhere"], "one of lmstudio, jan"),
        (["--to", "hf", "--quant", "f16"], "is for GGUF files"),
        (["--to", "olama"], "some of hf, gguf, ollama"),
    ):
        with pytest.raises(UsageError, match=what):
            cli.main([str(run), f"export_dir={tmp_path / 'x'}", *words])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("to", "given", "targets"),
    [
        (None, {}, ["hf"]),
        (None, {"create": "a"}, ["ollama", "gguf"]),
        (None, {"install": "jan"}, ["gguf"]),
        ("ollama,hf", {}, ["ollama", "hf", "gguf"]),
        ("vllm", {}, ["vllm", "hf"]),
        ("lora-gguf", {}, ["lora-gguf"]),
        ("hf", {"create": "a"}, ["hf", "gguf"]),
    ],
)
def test_what_a_target_needs(to, given, targets):
    assert cli._targets(to, {"create": None, "install": None, **given}) == targets
