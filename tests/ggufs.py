"""Tiny models of every type that is written to GGUF, and llama.cpp asked about them beside transformers.

folder = ggufs.random_model(tmp_path, "llama", tie_word_embeddings=True)
with ggufs.opened(gguf.convert(folder, file, "f32")) as served:
    worst = ggufs.difference(served, ggufs.model(folder), ggufs.prompts(3, 40))
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny
from luthier import gguf
from luthier.gguf import read
from luthier.infer.llama_cpp import LlamaCpp

END = "<|end|>"

GEOMETRY: dict[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OWN: dict[str, dict[str, Any]] = {
    "mistral": {"head_dim": 32, "sliding_window": None},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
    },
    "qwen3": {"head_dim": 32},
    "qwen3_moe": {
        "head_dim": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    },
    "gemma2": {
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 48,
        "tie_word_embeddings": True,
    },
    "gemma3_text": {
        "num_hidden_layers": 7,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 48,
        "tie_word_embeddings": True,
    },
    "phi3": {"sliding_window": None, "original_max_position_embeddings": 256},
    "smollm3": {"num_hidden_layers": 4},
    "granite": {
        "embedding_multiplier": 6.0,
        "attention_multiplier": 0.0625,
        "residual_multiplier": 0.5,
        "logits_scaling": 0.6,
    },
    "glm4": {"head_dim": 16},
}
"""What a type needs besides, for its own features to be there: a full layer, a window, experts, scales."""


def settings(model_type: str, **keys: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **{**GEOMETRY, **OWN.get(model_type, {}), **keys})


def random_model(folder: Path, model_type: str, **keys: Any) -> Path:
    """A model whose logits are far from flat, with the tokenizer of `tiny`, written to `folder`."""
    from transformers import AutoModelForCausalLM

    config = settings(model_type, **keys)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, value in made.named_parameters():
            # Norms of 1 and biases of 0 would hide that one is missing, or one too large.
            mean, std = (0.0, 0.25) if value.ndim > 1 else (float("norm" in name), 0.2)
            torch.nn.init.normal_(value, mean - ("gemma" in model_type and mean), std)
    made.save_pretrained(folder)
    return tiny.make_tokenizer(folder)


def with_tokenizer(folder: Path, tokenizer: Path, rows: int) -> Path:
    """The smallest model there is, with `rows` tokens and the tokenizer files of a folder."""
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    random_model(folder, "llama", vocab_size=rows, **small)
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def opened(file: Path, context: int = 0) -> LlamaCpp:
    return LlamaCpp(file, exact=True, slots=1, threads=1, context=context)


@functools.cache
def prompts(*lengths: int) -> tuple[tuple[int, ...], ...]:
    """Random ids above the special ones."""
    draws = np.random.default_rng(0)
    return tuple(tuple(draws.integers(3, tiny.VOCAB, n).tolist()) for n in lengths)


@torch.inference_mode()
def logprobs(trained: Any, ids: Sequence[int]) -> Any:
    """What transformers says to a prompt: float64 [vocabulary]."""
    found = trained(torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[0, -1]
    return found.double().log_softmax(-1).numpy()


def difference(served: LlamaCpp, trained: Any, asked: Iterable[Sequence[int]]) -> float:
    """Largest difference of a log probability over the prompts."""
    return max(
        float(np.abs(served.logprobs(ids, served.letter) - logprobs(trained, ids)).max()) for ids in asked
    )


# --- tokenizers

PIECES = (
    *"a B 1 23 456 7890 ² ٣ Ⅷ 's 'S 'LL ’s don't WE'VE ! … - _ / \\ \" < |> <s> ▁ hello World!".split(),
    *"é e\u0301 ß ı İ Ǆ 中 国 日本 の ー 한 \u1112\u1161 🙂 👩\u200d👩\u200d👧 字 ا \u064b क् 𝒜 𠀀".split(),
    *"。 ， — « “ €".split(),
    *("\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "\ufeff", "\ufffd", "\x00", "\x7f", "\ue000"),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", " world", "Hello, "),
)
"""Texts that ways of cutting treat differently."""


@functools.cache
def uncut() -> dict[str, Any]:
    """A byte-level tokenizer.json whose merges go across every kind of character: a cut elsewhere is seen."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.train_from_iterator(
        [a + b + c for a in PIECES for b in PIECES for c in ("", a, " " + b) if "<s>" not in a + b],
        trainers.BpeTrainer(
            vocab_size=2000,
            special_tokens=[END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    loaded: dict[str, Any] = json.loads(made.to_str())
    return loaded


def added(number: int, text: str, special: bool = True, **keys: Any) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": text, "special": special, **plain, **keys}


def written(folder: Path, told: dict[str, Any], **config: Any) -> Path:
    """A tokenizer folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(told), "utf-8")
    keys = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(keys), "utf-8")
    return folder


class Pair:
    """The same tokenizer in transformers and in llama.cpp."""

    def __init__(self, folder: Path, tokenizer: Path, rows: int = 0) -> None:
        from transformers import AutoTokenizer

        self.hf = AutoTokenizer.from_pretrained(tokenizer)
        self.said: list[str] = []
        with_tokenizer(folder / "model", tokenizer, rows or len(self.hf))
        file = gguf.convert(folder / "model", folder / "model.gguf", "f16", say=self.said.append)
        self.head = read.header(file)
        self.served: LlamaCpp = opened(file)

    def compare(self, text: str) -> None:
        trained = self.hf.encode(text, add_special_tokens=False)
        served = self.served.tokenize(text)
        assert served == trained, (text, *map(self.hf.convert_ids_to_tokens, (trained, served)))
