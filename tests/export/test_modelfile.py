"""Modelfiles as Ollama reads them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ollamas
import tiny
from luthier.config import Config
from luthier.data.render import Renderer
from luthier.export import modelfile
from luthier.export.modelfile import Modelfile

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PRINTED = TEXT.filter(lambda text: all(c.isprintable() or c in "\n\t" for c in text))


@given(stop=PRINTED, system=PRINTED, template=PRINTED)
@settings(max_examples=300, deadline=None)
def test_every_text_is_read_back_or_refused(stop, system, template):
    made = Modelfile("./a.gguf", (stop,), system=system, template=template)
    try:
        text = made.text()
    except ValueError as error:
        assert '"""' in str(error) and '"""\n' in "".join((stop, "\0", system, "\0", template)).replace(
            " ", ""
        ).replace("\t", "").replace("\r", "\n")
        return
    read = ollamas.commands(text)
    assert ("from", "./a.gguf") in read and ("stop", stop) in read
    assert [value for name, value in read if name == "system"] == ([system] if system else [])
    assert [value for name, value in read if name == "template"] == ([template] if template else [])


@given(TEXT)
@settings(max_examples=300, deadline=None)
def test_a_character_that_ollama_drops_is_refused(text):
    lost = any(not c.isprintable() and c not in "\n\r\t" for c in text)
    try:
        said = modelfile.said(text)
    except ValueError as error:
        assert lost == ("loses the character U+" in str(error))
        return
    assert not lost
    assert ollamas.commands(f"FROM a\nSYSTEM {said}\n")[-1] == ("system", text)


def test_the_whole_file():
    made = Modelfile(
        "./run-f16.gguf",
        ['a"b', "a\nb", "<|im_end|>", 'a"b'],
        context=4096,
        trained=2048,
        longest=32768,
        adapter="./lora.gguf",
        sampling={"temperature": 0.7, "top_k": 40},
        system="Be kind.",
        licences=["MIT"],
    )
    assert made.text().splitlines() == [
        "FROM ./run-f16.gguf",
        "ADAPTER ./lora.gguf",
        "REQUIRES 0.30.0",
        "",
        "# tokens of prompt and answer together; trained on up to 2048 tokens; the model reads 32768",
        "PARAMETER num_ctx 4096",
        'PARAMETER stop """a"b"""',
        'PARAMETER stop """a',
        'b"""',
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0.7",
        "PARAMETER top_k 40",
        "",
        'SYSTEM """Be kind."""',
        "",
        'LICENSE """MIT"""',
    ]
    read = ollamas.commands(made.text())
    assert [value for name, value in read if name == "stop"] == ['a"b', "a\nb", "<|im_end|>"]
    assert ("num_ctx", "4096") in read and ("requires", "0.30.0") in read


@pytest.mark.parametrize(
    ("trained", "longest", "context"),
    [(None, None, 4096), (2048, 32768, 4096), (8192, 32768, 8192), (8192, 6000, 6000), (None, 512, 512)],
)
def test_context(trained, longest, context):
    assert modelfile.context(trained, longest) == context


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        ({"LICENSE": "Apache\fLicense\n", "README.md": "---\nlicense: mit\n---\n"}, ["ApacheLicense"]),
        (
            {"README.md": "---\nlicense: mit\nlicense_link: LICENSE\ntags: [a]\n---\nx"},
            ["license: mit\nlicense_link: LICENSE"],
        ),
        ({"README.md": "# no front matter\nlicense: mit\n"}, []),
        ({}, []),
    ],
)
def test_the_licence_of_the_base(files, kept, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found, notes = modelfile.licence(Config(model_name_or_path=str(tmp_path)))
    assert found == kept
    assert bool(notes) == (not kept)


def test_system_only_where_it_changes_no_prompt():
    def system(text, name="chatml"):
        config = Config(template=name, default_system=text, system=text)
        return modelfile._system(config, Renderer.of(config, tiny.tokenizer()))

    assert system("Be kind.") == ("Be kind.", [])
    found, notes = system("家族👩\u200d👧です。")
    assert found == "" and "loses the character U+200D" in notes[0]
    assert system("") == ("", [])
