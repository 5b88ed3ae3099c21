"""How many tokens one forward pass may hold: an estimate from the model's sizes and the machine's memory.

An estimate may err towards too many: the loop then splits the step smaller and repeats it. It changes
speed only, never the mathematics.
"""

from __future__ import annotations

from typing import Any

from luthier.config import Machine

LARGEST = {"cpu": 4096}
DEFAULT_LARGEST = 32768
"""Beyond this a longer row does not run faster; it only takes longer until the next Ctrl-C is heard."""


def tokens_per_pass(
    config: Any, machine: Machine, weight_bytes: int, trained_bytes: int, checkpointing: bool
) -> int:
    """Token budget for a transformer described by a transformers `config`.

    Activations kept for the backward pass, per token and layer: about 16 hidden-sized and 3
    intermediate-sized values (Korthikanti et al., 2022, without the attention matrix, which sdpa does not
    keep); with gradient checkpointing one hidden-sized value per layer. Logits: 3 float32 copies.
    Trained weights need a gradient and two moments.
    """
    text = config.get_text_config()
    hidden, layers = int(text.hidden_size), int(getattr(text, "num_hidden_layers", 12))
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    value_bytes = 4 if machine.device == "cpu" else 2
    per_layer = hidden * value_bytes if checkpointing else (16 * hidden + 3 * inner) * value_bytes
    per_token = layers * per_layer + 3 * 4 * int(text.vocab_size)
    free = 0.7 * machine.memory_bytes - weight_bytes - 3 * trained_bytes
    largest = LARGEST.get(machine.device, DEFAULT_LARGEST)
    return max(256, min(largest, int(free / per_token))) if free > 0 else 256
