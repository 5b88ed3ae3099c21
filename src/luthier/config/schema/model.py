"""Keys that say which model is loaded, and how."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.config.schema.key import key


@dataclass(frozen=True)
class Model:
    model_name_or_path: str | None = key(
        None, "Base model: a local directory with config.json, or a name on the hub (Qwen/Qwen3-0.6B)."
    )
    adapter_name_or_path: tuple[str, ...] = key(
        (), "Adapters to put on the base, in order: directories, run directories or hub names."
    )
    model_revision: str = key("main", "Branch, tag or commit of a model on the hub.")
    cache_dir: str | None = key(
        None, "Where downloaded models are kept; null = the hub's own cache.", cosmetic=True
    )
    trust_remote_code: bool = key(
        False, "Allow Python code that comes with the model to run. Only for models you trust."
    )
    train_from_scratch: bool = key(
        False, "Start from random weights: only config.json and the tokenizer are read."
    )
    resize_vocab: bool = key(
        False, "Grow the embedding matrix when the tokenizer has more tokens than the model."
    )
    add_tokens: tuple[str, ...] = key((), "Ordinary tokens to add to the tokenizer.")
    add_special_tokens: tuple[str, ...] = key((), "Control tokens to add to the tokenizer.")
    flash_attn: str = key(
        "auto",
        "Attention of the transformers model where Luthier's own batches do not decide it (generation).",
        ("auto", "disabled", "sdpa", "fa2", "fa3"),
        aliases={"true": "fa2", "false": "disabled", "off": "disabled", "eager": "disabled"},
    )
    disable_gradient_checkpointing: bool = key(False, "Keep all activations: faster, more memory.")
    gradient_checkpointing: bool | None = key(
        None, "Recompute activations in the backward pass; null = on an accelerator yes, on a CPU no."
    )
    infer_dtype: str = key(
        "auto",
        "Number format of the weights in chat, predict and evaluation.",
        ("auto", "float16", "bfloat16", "float32"),
    )
    quantization_bit: int | None = key(None, "Load the base in this many bits (QLoRA).", (4, 8))
    quantization_method: str = key(
        "bnb", "Who quantizes while loading.", ("bnb",), aliases={"bitsandbytes": "bnb"}
    )
    quantization_type: str = key("nf4", "Number format of 4-bit weights.", ("nf4", "fp4"))
    double_quantization: bool = key(True, "Quantize the quantization constants as well (4 bit).")
    hub: str = key(
        "huggingface",
        "Where names that are not local paths are looked up; USE_MODELSCOPE_HUB=1 means modelscope.",
        ("huggingface", "modelscope"),
        aliases={"hf": "huggingface", "ms": "modelscope"},
        cosmetic=True,
    )
