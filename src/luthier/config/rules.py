"""What a configuration may not ask for at once, and what each verb needs: tables of conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from luthier.config.schema import TRAINED_STAGES, Config


@dataclass(frozen=True)
class Rule:
    """When `broken` holds, `what` is wrong with `key`; `instead` says what to write."""

    key: str
    broken: Callable[[Config], object]
    what: str
    instead: str


NEEDS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("model_name_or_path", "a directory or a name such as Qwen/Qwen3-0.6B"),
        ("output_dir", "a directory for the run, saves/my-run"),
    ),
    "chat": (("model_name_or_path", "a run directory, a model directory or a name on the hub"),),
    "predict": (("model_name_or_path", "a run directory, a model directory or a name on the hub"),),
    "export": (
        ("model_name_or_path", "a run directory, or model_name_or_path and adapter_name_or_path"),
        ("export_dir", "export_dir=DIR"),
    ),
    "data": (("model_name_or_path", "--model DIR: a model or a run, for its tokenizer and template"),),
}


def _wants_eval(c: Config) -> bool:
    return c.do_eval or c.do_predict or c.predict_with_generate or c.eval_strategy != "no"


def _has_eval(c: Config) -> bool:
    return bool(c.eval_dataset) or c.val_size > 0


def _trains(c: Config) -> bool:
    return c.do_train or not (c.do_eval or c.do_predict)


def _only_lora(c: Config) -> list[str]:
    asked = {
        "use_rslora": c.use_rslora,
        "use_dora": c.use_dora,
        "pissa_init": c.pissa_init,
        "loraplus_lr_ratio": c.loraplus_lr_ratio is not None,
    }
    return [name for name, on in asked.items() if on]


def _uneven(steps: float, by: float | None) -> bool:
    return bool(by) and steps >= 1 and float(by or 1) >= 1 and steps % float(by or 1) != 0


ANYWHERE: tuple[Rule, ...] = (
    Rule(
        "adapter_name_or_path",
        lambda c: c.adapter_name_or_path and c.verb == "train" and c.finetuning_type != "lora",
        "adapters go with finetuning_type lora only",
        "finetuning_type: lora, or the merged model as model_name_or_path",
    ),
    Rule(
        "quantization_bit",
        lambda c: c.quantization_bit and c.verb == "train" and c.finetuning_type != "lora",
        "a quantized base cannot change; only adapters on it can",
        "finetuning_type: lora, or leave out quantization_bit",
    ),
    Rule(
        "pissa_init",
        lambda c: c.quantization_bit and c.pissa_init,
        "PiSSA takes the weights apart and needs them unquantized",
        "one of pissa_init and quantization_bit",
    ),
    Rule(
        "resize_vocab",
        lambda c: c.quantization_bit and c.resize_vocab,
        "the embeddings of a quantized model cannot grow",
        "one of resize_vocab and quantization_bit",
    ),
    Rule(
        "create_new_adapter",
        lambda c: c.quantization_bit and c.adapter_name_or_path and c.create_new_adapter,
        "an adapter cannot be merged into a quantized base",
        "export the merged model first, or leave out create_new_adapter",
    ),
    Rule(
        "adapter_name_or_path",
        lambda c: c.quantization_bit and len(c.adapter_name_or_path) > 1,
        "a quantized base takes one adapter",
        "export the merged model first",
    ),
)

TRAIN: tuple[Rule, ...] = (
    Rule(
        "stage",
        lambda c: c.stage not in TRAINED_STAGES,
        "this stage is trained by a later version",
        "stage: sft or pt",
    ),
    Rule(
        "dataset",
        lambda c: _trains(c) and not c.dataset,
        "is missing",
        "a name in dataset_info.json or a file",
    ),
    Rule(
        "val_size",
        lambda c: c.val_size > 0 and c.eval_dataset,
        "val_size and eval_dataset both say what to evaluate on",
        "one of the two",
    ),
    Rule(
        "val_size",
        lambda c: c.val_size > 0 and not c.dataset,
        "there is no dataset to hold a part out of",
        "dataset",
    ),
    Rule(
        "mask_history",
        lambda c: c.mask_history and c.train_on_prompt,
        "mask_history learns less and train_on_prompt more",
        "one of the two",
    ),
    Rule(
        "mask_history",
        lambda c: c.stage != "sft" and (c.mask_history or c.train_on_prompt),
        "mask_history and train_on_prompt belong to stage sft",
        "leave it out",
    ),
    Rule(
        "neat_packing",
        lambda c: c.neat_packing and c.packing is False,
        "packing: false contradicts it",
        "one of the two",
    ),
    Rule(
        "bf16",
        lambda c: (c.bf16 or c.pure_bf16) and c.fp16,
        "bf16 and fp16 are two answers to one question",
        "one of the two",
    ),
    Rule(
        "interleave_probs",
        lambda c: c.interleave_probs and c.mix_strategy == "concat",
        "concat takes all examples and draws none",
        "mix_strategy: interleave_under or interleave_over",
    ),
    Rule(
        "interleave_probs",
        lambda c: c.interleave_probs and c.dataset and len(c.interleave_probs) != len(c.dataset),
        "needs one number for each data set",
        "as many numbers as there are names in dataset",
    ),
    Rule(
        "interleave_probs",
        lambda c: c.interleave_probs and (sum(c.interleave_probs) <= 0 or min(c.interleave_probs) < 0),
        "probabilities may not be negative or all 0",
        "0.7,0.3",
    ),
    Rule(
        "streaming",
        lambda c: c.streaming and c.stage != "pt",
        "only stage pt reads while it trains",
        "leave it out; tokens are kept on disk, not in memory",
    ),
    Rule(
        "max_samples",
        lambda c: c.streaming and c.max_samples,
        "streaming does not count its examples beforehand",
        "max_steps, or streaming: false",
    ),
    Rule(
        "val_size",
        lambda c: c.streaming and 0 < c.val_size < 1,
        "streaming cannot take a fraction of an unknown number",
        "a whole number of examples",
    ),
    Rule(
        "max_steps", lambda c: c.streaming and c.max_steps <= 0, "streaming needs an end", "max_steps: 1000"
    ),
    Rule(
        "eval_strategy",
        lambda c: _wants_eval(c) and not _has_eval(c),
        "there is nothing to evaluate or predict on",
        "val_size: 0.1, or eval_dataset",
    ),
    Rule(
        "do_predict",
        lambda c: c.do_predict and not c.predict_with_generate and c.stage == "sft",
        "predictions are written by generating",
        "predict_with_generate: true",
    ),
    Rule(
        "predict_with_generate",
        lambda c: c.predict_with_generate and c.stage == "pt",
        "stage pt has no answers to predict",
        "leave it out",
    ),
    Rule(
        "sample_replies",
        lambda c: c.sample_replies and c.stage == "pt",
        "stage pt has no answers to show",
        "leave it out",
    ),
    Rule(
        "sample_replies",
        lambda c: c.sample_replies and not c.do_eval and c.eval_strategy == "no",
        "without evaluations nothing is answered",
        "eval_strategy: steps",
    ),
    Rule(
        "load_best_model_at_end",
        lambda c: c.load_best_model_at_end and c.eval_strategy == "no",
        "without evaluations there is no best",
        "eval_strategy: steps",
    ),
    Rule(
        "load_best_model_at_end",
        lambda c: (
            c.load_best_model_at_end
            and c.save_strategy not in ("best", c.eval_strategy)
            and c.eval_strategy != "no"
        ),
        "the best evaluation must have been saved",
        "the same save_strategy as eval_strategy, or best",
    ),
    Rule(
        "load_best_model_at_end",
        lambda c: (
            c.load_best_model_at_end
            and c.save_strategy == c.eval_strategy == "steps"
            and _uneven(c.save_steps, c.eval_steps or c.logging_steps)
        ),
        "checkpoints between two evaluations have no score",
        "save_steps: a multiple of eval_steps",
    ),
    Rule(
        "early_stopping_steps",
        lambda c: c.early_stopping_steps and c.eval_strategy == "no",
        "without evaluations nothing can stop early",
        "eval_strategy: steps",
    ),
    Rule(
        "use_rslora",
        lambda c: c.finetuning_type != "lora" and _only_lora(c),
        "use_rslora, use_dora, pissa_init and loraplus_lr_ratio belong to finetuning_type lora",
        "leave them out",
    ),
    Rule(
        "pissa_init",
        lambda c: c.pissa_init and c.use_dora,
        "DoRA and PiSSA start differently",
        "one of the two",
    ),
    Rule(
        "freeze_trainable_layers",
        lambda c: c.finetuning_type == "freeze" and c.freeze_trainable_layers == 0,
        "0 layers would learn nothing",
        "2, or -2 for the first ones",
    ),
    Rule(
        "gradient_checkpointing",
        lambda c: c.gradient_checkpointing and c.disable_gradient_checkpointing,
        "disable_gradient_checkpointing contradicts it",
        "one of the two",
    ),
    Rule(
        "logging_steps",
        lambda c: c.logging_strategy == "steps" and c.logging_steps == 0,
        "0 steps never come",
        "logging_steps: 10, or logging_strategy: no",
    ),
    Rule(
        "save_steps",
        lambda c: c.save_strategy == "steps" and c.save_steps == 0,
        "0 steps never come",
        "save_steps: 500, or save_strategy: no",
    ),
    Rule(
        "num_train_epochs",
        lambda c: _trains(c) and c.max_steps <= 0 and c.num_train_epochs <= 0,
        "nothing would be trained",
        "3.0",
    ),
    Rule(
        "report_to",
        lambda c: "none" in c.report_to and len(c.report_to) > 1,
        "none excludes the others",
        "one or the other",
    ),
)
