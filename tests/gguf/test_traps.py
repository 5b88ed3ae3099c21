"""Mistakes that llama.cpp loads without a word: the proof of an export finds each of them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

import ggufs
import tiny
from luthier import gguf
from luthier.export import proof, quantize
from luthier.export.cases import Case
from luthier.gguf import architectures, tensors, vocabulary, write
from luthier.infer import engine
from luthier.infer.engine import Generation
from luthier.types import Message

OVER = "<|over|>"
"""Ends a turn. llama.cpp knows the usual ends by their texts, but not this one."""
CUT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ROWS_UNCUT = 2001
TURNS = tiny.CHATML.replace("<|im_end|>", OVER)


@dataclass(frozen=True)
class Right:
    """A model and what it says to some prompts, which a file of it must say as well."""

    folder: Path
    cases: tuple[Case, ...]
    wanted: proof.Expected

    def prove(self, file: Path, kind: str = "f32") -> dict[str, Any]:
        return proof.prove(file, kind, self.cases, self.wanted, {})


def tokenizer(folder: Path) -> Path:
    """That of `tiny`, with an end of a turn that is its own; a text ends with another."""
    told = tiny._backend().replace("<|im_end|>", OVER)
    ggufs.written(folder, json.loads(told), eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    (folder / "chat_template.jinja").write_text(TURNS)
    return folder


def uncut(folder: Path) -> Path:
    """One that shows by its tokens where a text was cut."""
    told = {**ggufs.uncut(), "pre_tokenizer": CUT}
    told["added_tokens"] = [ggufs.added(0, ggufs.END), ggufs.added(ROWS_UNCUT - 1, OVER)]
    ggufs.written(folder, told)
    (folder / "chat_template.jinja").write_text(TURNS)
    return folder


def right(folder: Path, questions: list[str], answer: int = 24) -> Right:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    trained = ggufs.model(folder)
    asked = []
    for i, text in enumerate(questions):
        said = [{"role": "user", "content": text}]
        prompt = words.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        ids = tuple(words.encode(prompt, add_special_tokens=False))
        asked.append(Case(f"row {i}", (Message("user", text),), (), prompt, ids))
    options = Generation(max_new_tokens=answer, stop_ids=frozenset({0, 2}))
    hf = engine.find("hf")(trained, words, batch_size=len(asked))
    return Right(folder, tuple(asked), proof.expected(trained, hf, asked, options))


# --- a model that has learnt something

NAMES = ("Anna", "Ben", "Cara", "Dan", "Eva", "Finn", "你", "我")
THINGS = ("a red ship", "a blue tree", "two lamps", "no book", "3 cakes", "that road", "一本书", "订单")
ROWS = [
    *((f"What has {name}?", f"{name} has {thing}.") for name, thing in zip(NAMES, THINGS, strict=True)),
    *((f"{a} plus {b}?", str(a + b)) for a in range(6) for b in range(6)),
]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Right:
    """A Llama of 256 dimensions, as wide as a block of the K-quants, after 200 steps."""
    from transformers import AutoTokenizer

    top = tmp_path_factory.mktemp("trained")
    folder = tokenizer(ggufs.random_model(top / "model", "llama", hidden_size=256, intermediate_size=256))
    words = AutoTokenizer.from_pretrained(folder)
    texts = [
        f"<|im_start|>user\n{asked}{OVER}\n<|im_start|>assistant\n{said}{OVER}\n" for asked, said in ROWS
    ]
    stream = torch.tensor(list(chain.from_iterable(words.encode(text) for text in texts * 3)))
    config = ggufs.settings("llama", hidden_size=256, intermediate_size=256)
    model = learnt(config, stream, steps=200)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    return right(folder, [asked for asked, _ in ROWS[:20]])


def learnt(config: Any, stream: torch.Tensor, steps: int) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1, (step + 1) / 10) * (1 - step / steps)
            ids = torch.stack([stream[at : at + 64] for at in torch.randint(len(stream) - 64, (3,))])
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


KL = {"f16": 1e-7, "bf16": 6e-6, "q8_0": 7e-5, "q6_k": 4e-4, "q5_k_m": 1e-3, "q4_k_m": 3e-3}
"""Most that the next-token distributions may differ, in nats."""


@pytest.fixture(scope="session")
def exact(trained: Right) -> Path:
    return gguf.convert(trained.folder, trained.folder.with_name("exact.gguf"), "f32")


@pytest.mark.parametrize("kind", KL)
def test_what_a_number_format_costs(kind: str, trained: Right, exact: Path, tmp_path: Path) -> None:
    file = tmp_path / f"{kind}.gguf"
    if kind in write.FILE_TYPE:
        gguf.convert(trained.folder, file, kind)  # type: ignore[arg-type]
    else:
        quantize.quantize(exact, file, kind)
    found = trained.prove(file, kind)
    assert found["ok"], found["problems"]
    assert found["logits"]["mean_kl"] <= KL[kind]
    assert found["logits"]["same_top"] >= 0.95
    assert found["answers"]["ended"] == found["answers"]["ended_as_served"] >= 15
    if kind in write.FILE_TYPE:
        assert found["answers"]["same"] >= 0.95 * len(trained.cases)


# --- mistakes


@dataclass(frozen=True)
class Mistake:
    """What is written otherwise than it must be, and where the proof says so.

    architecture: fields of its row · numbers, words: metadata that is changed, None leaves it out ·
    without: a tensor that is left out.
    """

    model: str
    keys: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    architecture: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    without: str = "nothing"
    found: str = "log probabilities differ"


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MISTAKES = {
    "rows of q and k in the order of transformers": Mistake("llama", architecture={"rotate": False}),
    "frequencies that are not scaled": Mistake(
        "llama", {"rope_parameters": LLAMA3}, without="rope_freqs.weight"
    ),
    "another base of the positions": Mistake("qwen2", numbers={"rope.freq_base": 5000.0}),
    "no base of the positions": Mistake(
        "qwen2",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        numbers={"rope.freq_base": None},
    ),
    "another epsilon": Mistake(
        "olmo2", {"rms_norm_eps": 1e-2}, numbers={"attention.layer_norm_rms_epsilon": 1e-6}
    ),
    "norms one too small": Mistake("gemma3_text", architecture={"plus_one": False}),
    "another window": Mistake("gemma2", {"sliding_window": 8}, numbers={"attention.sliding_window": 64}),
    "no softcapping of logits": Mistake(
        "gemma2", {"final_logit_softcapping": 2.0}, numbers={"final_logit_softcapping": None}
    ),
    "one expert too few": Mistake("qwen3_moe", numbers={"expert_used_count": 1}),
    "the scale of logits left out": Mistake("granite", numbers={"logit_scale": 1.0}),
    "the whole head rotated": Mistake("glm4", numbers={"rope.dimension_count": 16}),
    "cut by llama.cpp's default": Mistake(
        "llama", words={"tokenizer.ggml.pre": "default"}, found="the tokens differ"
    ),
    "cut as another model": Mistake(
        "llama", words={"tokenizer.ggml.pre": "qwen2"}, found="the tokens differ"
    ),
    "a beginning that training had not": Mistake(
        "llama", words={"tokenizer.ggml.add_bos_token": True}, found="the prompt differs|the tokens differ"
    ),
    "another template": Mistake(
        "llama", words={"tokenizer.chat_template": TURNS.replace("\\n", " ")}, found="the prompt differs"
    ),
    "no template": Mistake("llama", words={"tokenizer.chat_template": None}, found="the prompt differs"),
    "types of tokens left out": Mistake(
        "llama", words={"tokenizer.ggml.token_type": None}, found="the tokens differ"
    ),
}
QUESTIONS = [
    "Hello, how are you?",
    "  12345 is 你好 ",
    "One two three four five six seven eight nine ten eleven",
]


def mistaken(right: Right, mistake: Mistake, out: Path) -> Path:
    """The file that `gguf.convert` would write if it made the mistake."""
    config = gguf.settings(right.folder)
    one = architectures.of(config)
    numbers, _ = architectures.metadata(config, one)
    words = vocabulary.read(right.folder, config.vocab_size, None).fields
    told = {
        **{f"{one.name}.{key}": value for key, value in {**numbers, **mistake.numbers}.items()},
        **words,
        **mistake.words,
    }
    wrong = dataclasses.replace(one, **mistake.architecture)
    found = tensors.plan(tensors.Weights(right.folder), config, wrong, "f32")
    kept = [tensor for tensor in found if tensor.name != mistake.without]
    write.write(out, one.name, {key: value for key, value in told.items() if value is not None}, kept, str)
    return out


@pytest.mark.parametrize("name", MISTAKES)
def test_the_proof_finds(name: str, tmp_path: Path) -> None:
    mistake = MISTAKES[name]
    cuts = "tokenizer.ggml.pre" in mistake.words
    keys = {"vocab_size": ROWS_UNCUT} if cuts else mistake.keys
    folder = (uncut if cuts else tokenizer)(ggufs.random_model(tmp_path / "model", mistake.model, **keys))
    model = right(folder, QUESTIONS, answer=2)
    whole = model.prove(mistaken(model, Mistake(mistake.model), tmp_path / "right.gguf"))
    assert whole["ok"], whole["problems"]
    found = model.prove(mistaken(model, mistake, tmp_path / "wrong.gguf"))
    assert not found["ok"]
    assert all(re.search(mistake.found, problem) for problem in found["problems"]), found["problems"]


def test_the_proof_finds_an_end_that_ends_nothing(trained: Right, tmp_path: Path) -> None:
    """The model writes its own end of a turn, and llama.cpp goes on."""
    mistake = Mistake("llama", words={"tokenizer.ggml.eot_token_id": None})
    found = trained.prove(mistaken(trained, mistake, tmp_path / "wrong.gguf"))
    assert not found["ok"] and found["answers"]["ended_as_served"] == 0
    assert found["problems"] == ["20 of 20 answers that had an end go on: nothing ends a turn"]
