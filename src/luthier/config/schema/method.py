"""Keys that say what is learnt: the stage, and which weights change."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.config.schema.key import key

STAGES = ("pt", "sft", "rm", "dpo", "kto", "ppo", "grpo")
TRAINED_STAGES = ("pt", "sft")


@dataclass(frozen=True)
class Method:
    stage: str = key(
        "sft", "What is learnt: plain text (pt), replies (sft), preferences (the others).", STAGES
    )
    finetuning_type: str = key(
        "lora",
        "Which weights change: low-rank adapters, all of them, or a few layers.",
        ("lora", "full", "freeze"),
    )
    lora_rank: int = key(8, "Rank of the adapters.", limits=(1, None))
    lora_alpha: float | None = key(None, "Scale of the adapters; null = 2 x lora_rank.")
    lora_dropout: float = key(0.0, "Dropout in front of the adapters.", limits=(0, 1))
    lora_target: tuple[str, ...] = key(("all",), "Modules that get an adapter: names, or all linear layers.")
    additional_target: tuple[str, ...] = key(
        (), "Modules trained in full beside the adapters and saved with them."
    )
    use_rslora: bool = key(False, "Scale by alpha / sqrt(rank) (rank-stabilised LoRA).")
    use_dora: bool = key(False, "Learn magnitude and direction apart (DoRA).")
    pissa_init: bool = key(False, "Start from the principal singular vectors of the weights (PiSSA).")
    pissa_iter: int = key(16, "Iterations of the fast decomposition of PiSSA; -1 = exact.", limits=(-1, None))
    loraplus_lr_ratio: float | None = key(
        None, "Learning rate of B over that of A (LoRA+).", limits=(0, None)
    )
    loraplus_lr_embedding: float = key(
        1e-6, "Learning rate of adapters on embeddings (LoRA+).", limits=(0, None)
    )
    create_new_adapter: bool = key(
        False, "Merge the given adapters into the base and train a new one on top."
    )
    freeze_trainable_layers: int = key(
        2, "freeze: the last n layers learn; a negative n means the first ones."
    )
    freeze_trainable_modules: tuple[str, ...] = key(("all",), "freeze: which modules of those layers learn.")
    freeze_extra_modules: tuple[str, ...] = key((), "freeze: modules outside the layers that learn as well.")
    pure_bf16: bool = key(False, "Keep the trained weights in bfloat16 too: less memory, coarser steps.")
