"""Keys of a training run: schedule, optimizer, precision, evaluation, saving, logging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier.config.schema.key import key

SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
)
OPTIMIZERS = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "paged_lion_8bit",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
)
TRACKERS = ("none", "all", "tensorboard", "wandb", "mlflow", "swanlab", "trackio")
_INTERVALS = ("no", "steps", "epoch")
_NO = {"false": "no", "none": "no"}


@dataclass(frozen=True)
class Train:
    output_dir: str | None = key(
        None, "The run directory: everything that the run writes is in it.", cosmetic=True
    )
    do_train: bool = key(False, "Train. Taken as true when neither do_eval nor do_predict is given.")
    do_eval: bool = key(False, "Evaluate at the end.", cosmetic=True)
    do_predict: bool = key(
        False, "Write the model's answers to eval_dataset (or the held-out part) at the end.", cosmetic=True
    )
    predict_with_generate: bool = key(
        False,
        "Answers are generated: evaluations measure the task's own metrics on them. Needed by do_predict.",
        cosmetic=True,
    )
    overwrite_output_dir: bool = key(
        False, "Delete the earlier run in output_dir and begin again.", cosmetic=True
    )
    resume_from_checkpoint: str | None = key(
        None,
        "Checkpoint to continue from; null = the last one in output_dir, if there is one; false = do not.",
        aliases={"true": "last", "false": "no"},
        cosmetic=True,
    )
    # --- schedule
    num_train_epochs: float = key(3.0, "How often all examples are seen.", limits=(0, None))
    max_steps: int = key(-1, "Optimizer steps in all; above 0 it overrides num_train_epochs.")
    per_device_train_batch_size: int = key(
        8, "Examples of one device in one accumulation step.", limits=(1, None)
    )
    gradient_accumulation_steps: int = key(1, "Accumulation steps in one optimizer step.", limits=(1, None))
    micro_batch_tokens: int | None = key(
        None,
        "Tokens of one forward pass at most; null = as the memory allows. Changes speed only.",
        limits=(1, None),
        cosmetic=True,
    )
    learning_rate: float = key(5e-5, "Highest learning rate.", limits=(0, None))
    lr_scheduler_type: str = key("linear", "Course of the learning rate.", SCHEDULES)
    lr_scheduler_kwargs: Mapping[str, Any] | None = key(
        None, "Further arguments of the schedule, {min_lr: 1e-6}."
    )
    warmup_steps: float = key(
        0,
        "Steps of rising learning rate; below 1 a part of all steps; wins over warmup_ratio.",
        limits=(0, None),
    )
    warmup_ratio: float = key(0.0, "The same as a part of all steps.", limits=(0, 1))
    disable_shuffling: bool = key(False, "See the examples in the order of the files.")
    seed: int = key(42, "Seed of everything random.", limits=(0, None))
    data_seed: int | None = key(None, "Seed of the data order; null = seed.", limits=(0, None))
    # --- optimizer
    optim: str = key(
        "adamw_torch",
        "Optimizer.",
        OPTIMIZERS,
        aliases={
            "adamw_8bit": "adamw_bnb_8bit",
            "adamw_hf": "adamw_torch",
            "adamw": "adamw_torch",
            "paged_adamw": "paged_adamw_32bit",
        },
    )
    weight_decay: float = key(0.0, "Decoupled weight decay; not on norms and biases.", limits=(0, None))
    adam_beta1: float = key(0.9, "Decay of Adam's first moment.", limits=(0, 1))
    adam_beta2: float = key(0.999, "Decay of Adam's second moment.", limits=(0, 1))
    adam_epsilon: float = key(1e-8, "Adam's epsilon.", limits=(0, None))
    max_grad_norm: float = key(1.0, "Gradients are scaled down to this norm; 0 = never.", limits=(0, None))
    neftune_noise_alpha: float | None = key(
        None, "Noise on the embeddings while training (NEFTune).", limits=(0, None)
    )
    # --- precision and machine
    bf16: bool = key(False, "Compute in bfloat16, weights that learn in float32.")
    fp16: bool = key(False, "Compute in float16 with loss scaling, weights that learn in float32.")
    use_cpu: bool = key(False, "Do not use an accelerator even when there is one.")
    # --- evaluation
    eval_strategy: str = key("no", "When to evaluate.", _INTERVALS, aliases=_NO)
    eval_steps: float | None = key(
        None,
        "Steps between evaluations; below 1 a part of all steps; null = logging_steps.",
        limits=(0, None),
    )
    eval_delay: float = key(0, "Steps or epochs before the first evaluation.", limits=(0, None))
    eval_on_start: bool = key(False, "Evaluate before the first step.", cosmetic=True)
    per_device_eval_batch_size: int = key(
        8, "Examples of one forward pass in evaluation.", limits=(1, None), cosmetic=True
    )
    eval_generate_rows: int | None = key(
        200,
        "Rows of each evaluation set that are answered at an evaluation (predict_with_generate); null = all.",
        limits=(1, None),
        cosmetic=True,
    )
    sample_replies: int | None = key(
        None,
        "Rows of each evaluation set whose answers go to samples.jsonl and the screen at each evaluation; "
        "null = 3 with predict_with_generate, else 0.",
        limits=(0, None),
        cosmetic=True,
    )
    load_best_model_at_end: bool = key(
        False, "Keep the weights of the best evaluation, not of the last step."
    )
    metric_for_best_model: str | None = key(
        None, "What best means; null = eval_loss. With predict_with_generate also macro_f1 and its like."
    )
    greater_is_better: bool | None = key(None, "null = as the metric means it.")
    early_stopping_steps: int | None = key(
        None, "Stop after this many evaluations without a better one.", limits=(1, None)
    )
    # --- saving
    save_strategy: str = key("steps", "When to save a checkpoint.", (*_INTERVALS, "best"), aliases=_NO)
    save_steps: float = key(500, "Steps between checkpoints; below 1 a part of all steps.", limits=(0, None))
    save_total_limit: int | None = key(
        None, "Keep at most this many checkpoints.", limits=(1, None), cosmetic=True
    )
    save_only_model: bool = key(
        False, "Checkpoints without optimizer state; they cannot be resumed.", cosmetic=True
    )
    # --- logging
    logging_strategy: str = key("steps", "When to log.", _INTERVALS, aliases=_NO, cosmetic=True)
    logging_steps: float = key(
        500, "Steps between log lines; below 1 a part of all steps.", limits=(0, None), cosmetic=True
    )
    logging_first_step: bool = key(False, "Log the first step as well.", cosmetic=True)
    include_num_input_tokens_seen: str = key(
        "all",
        "Log how many tokens the model has seen.",
        ("no", "all", "non_padding"),
        aliases={"true": "all", "false": "no"},
        cosmetic=True,
    )
    logging_dir: str | None = key(None, "TensorBoard's files; null = runs/ in output_dir.", cosmetic=True)
    report_to: tuple[str, ...] = key((), "Experiment trackers.", TRACKERS, cosmetic=True)
    run_name: str | None = key(None, "Name of the run in trackers; null = output_dir.", cosmetic=True)
    project: str | None = key(
        None, "Project of the run in trackers; WANDB_PROJECT is read too.", cosmetic=True
    )
    plot_loss: bool = key(False, "Draw training_loss.png.", cosmetic=True)
    disable_tqdm: bool | None = key(
        None, "No progress bar; null = only where the output is no terminal.", cosmetic=True
    )
