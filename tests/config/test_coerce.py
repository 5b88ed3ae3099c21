"""How values are written."""

from __future__ import annotations

import pytest

from luthier.config import KEYS
from luthier.config.coerce import coerce


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("bf16", "True", True),
        ("bf16", "no", False),
        ("bf16", 1, True),
        ("lora_rank", "16", 16),
        ("seed", 2**62 + 1, 2**62 + 1),
        ("lora_rank", 8.0, 8),
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("lora_alpha", None, None),
        ("lora_alpha", "None", None),
        ("max_steps", None, -1),
        ("save_steps", 500.0, 500),
        ("save_steps", 0.1, 0.1),
        ("dataset", "a, b,", ("a", "b")),
        ("dataset", ["a", "b"], ("a", "b")),
        ("dataset", None, ()),
        ("report_to", "none", ()),
        ("report_to", ["wandb", "tensorboard"], ("wandb", "tensorboard")),
        ("interleave_probs", "0.7,0.3", (0.7, 0.3)),
        ("eval_strategy", False, "no"),
        ("template", 3, "3"),
        ("flash_attn", True, "fa2"),
        ("flash_attn", "off", "disabled"),
        ("optim", "adamw_8bit", "adamw_bnb_8bit"),
        ("quantization_bit", "4", 4),
        ("quantization_method", "bitsandbytes", "bnb"),
        ("resume_from_checkpoint", True, "last"),
        ("resume_from_checkpoint", "saves/checkpoint-5", "saves/checkpoint-5"),
        ("lr_scheduler_kwargs", '{"min_lr": 0.1}', {"min_lr": 0.1}),
        ("enable_thinking", "null", None),
        ("include_num_input_tokens_seen", True, "all"),
        ("system", "None of it", "None of it"),
    ],
)
def test_a_value_is_read_as_its_key_wants_it(name: str, written: object, value: object) -> None:
    found = coerce(KEYS[name], written)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "written", "words"),
    [
        ("bf16", "maybe", 'must be true or false, not "maybe"'),
        ("lora_rank", 1.5, "must be a whole number, not 1.5"),
        ("lora_rank", "x", 'must be a whole number, not "x"'),
        ("seed", 2**63, "must be smaller, not 9223372036854775808"),
        ("seed", 10**400, "must be a whole number, not 1000"),
        ("learning_rate", "1" + "0" * 400, 'must be finite, not "1000'),
        ("lora_rank", True, "must be a whole number, not true"),
        ("lora_rank", 0, "must be at least 1, not 0"),
        ("lora_dropout", 1.5, "must be at most 1, not 1.5"),
        ("learning_rate", "nan", 'must be finite, not "nan"'),
        ("stage", "sftt", 'must be one of pt, sft, rm, dpo, kto, ppo, grpo, not "sftt" (nearest: sft)'),
        ("quantization_bit", 3, "must be one of 4, 8, not 3"),
        ("report_to", "wandb,tensorbord", '"tensorbord" (nearest: tensorboard)'),
        ("template", ["a"], 'must be text, not ["a"]'),
        ("dataset", {"a": 1}, 'must be names with commas between them, not {"a": 1}'),
        ("interleave_probs", "0.5,x", 'must be numbers with commas between them, not "x"'),
        ("lr_scheduler_kwargs", "min_lr", 'must be a mapping or a JSON object, not "min_lr"'),
        ("lr_scheduler_kwargs", 3, "must be a mapping, not 3"),
    ],
)
def test_a_wrong_value_says_what_it_must_be(name: str, written: object, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        coerce(KEYS[name], written)
    assert words in str(caught.value)
