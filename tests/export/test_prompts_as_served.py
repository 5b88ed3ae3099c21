"""Prompts as llama.cpp makes them of a conversation: the token at the beginning is there once, as trained."""

import json

import pytest

import ggufs
from luthier import gguf
from luthier.config import Config
from luthier.data.render import Renderer
from luthier.export import cases as proof_cases
from luthier.export import modelfile, proof
from luthier.gguf import read
from luthier.model import load

pytest.importorskip("xllamacpp")
BEGIN = "<|im_start|>"
TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}assistant: "


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model whose tokenizer puts a token before each text, as those of Llama 3 and Gemma do."""
    folder = ggufs.random_model(
        tmp_path_factory.mktemp("base") / "llama", "llama", max_position_embeddings=512
    )
    told = json.loads((folder / "tokenizer.json").read_text())
    first, rest = {"SpecialToken": {"id": BEGIN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    told["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, rest],
        "pair": [first, rest, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BEGIN: {"id": BEGIN, "ids": [1], "tokens": [BEGIN]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(told))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": BEGIN}))
    return folder


def served(base, tmp_path, trained, written):
    """What the proof says of a file with the template `written` about prompts rendered by `trained`."""
    renderer = Renderer.of(Config(template=trained), load.tokenizer(Config(model_name_or_path=str(base))))
    asked, _ = proof_cases.cases(Config(), renderer, 500)
    file = gguf.convert(base, tmp_path / "file.gguf", "f32", template=written, say=str)
    assert modelfile.begins(read.header(file).metadata) == BEGIN
    with ggufs.opened(file) as opened:
        found = proof._prompts(opened, asked[:12], {})
    assert len(asked) > 12
    return found["same_text"], found["same_tokens"], found["problems"]


def test_a_template_that_begins_with_it(base, tmp_path):
    text = "{{ bos_token }}" + TURNS
    assert served(base, tmp_path, text, text) == (12, 12, [])


def test_a_template_that_writes_it_otherwise(base, tmp_path):
    texts, tokens, problems = served(
        base, tmp_path, "{{ bos_token }}" + TURNS, "{{ bos_token }}Chat:\n" + TURNS
    )
    assert texts == 0 and tokens == 12 and len(problems) == 12
    assert "was trained" in problems[0] and "Chat:" in problems[0]
