"""The nouns that flow: Row -> Example -> Rendered -> Plan -> Batch -> Step -> Run -> Report.

Frozen, free of torch and of any other heavy import, so that every layer may use them.
(`Batch` holds tensors and therefore lives in `luthier.data.batch`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Role = Literal["system", "user", "assistant", "tool", "text"]


@dataclass(frozen=True, slots=True)
class Row:
    """One record as found in a file; `source` is "file:row", counted from 1 ("train.json:17")."""

    data: dict[str, Any]
    source: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A record that could not be read or understood: where, which field, why."""

    source: str
    field: str
    reason: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call made by the assistant. `arguments` is the parsed JSON object (or raw text)."""

    name: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    role: "system", "user", "assistant", "tool" (an observation) or "text" (pre-training text).
    train: weight with which the model learns to write this turn; 0 means read only.
    """

    role: Role
    content: str
    train: float = 0.0
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """Shared messages (`trunk`), then alternative endings (`branches`).

    pt, sft: 1 branch · preference: 2, chosen first · kto: 1 and a verdict ·
    prompt-only (grpo, ppo, predict): 0, with the reference text in `answer` where there is one.
    """

    trunk: tuple[Message, ...]
    branches: tuple[tuple[Message, ...], ...] = ()
    verdict: bool | None = None
    answer: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Token ids (int32, shape [n]) and, for each, the weight with which it is learnt (float32, [n])."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return int(self.ids.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """An Example in tokens. `trunk + branches[k]` is the k-th whole sequence.

    `cut` counts tokens that `cutoff_len` removed (they are in the ledger, never silent).
    """

    trunk: Tokens
    branches: tuple[Tokens, ...]
    verdict: bool | None = None
    source: str = ""
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step did.

    index: 1 for the first step · epoch: fractional, at the end of the step · loss: mean over the
    step's trained tokens (or pairs), natural log · grad_norm: L2, before clipping · trained: tokens
    (or pairs) that carried loss, over all ranks · seen: tokens that went through the model.
    """

    index: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    trained: float
    seen: int
    seconds: float
    micro_batches: int = 1
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: where (file:line or key), what, and what to write instead."""

    where: str
    what: str
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" -> {self.instead}" if self.instead else "")
