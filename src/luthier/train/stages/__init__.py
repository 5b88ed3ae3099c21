"""STAGES: what is learnt. A row is a loss over one forward pass; everything else is the spine's.

A loss takes (model, batch, context) and returns the sum over the pass, to be divided by the step's
count, and sums of whatever it measured. Another package adds a row through the entry-point group
`luthier.stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points

from torch import Tensor, nn

from luthier.data.batch import Batch
from luthier.errors import UsageError

Loss = Callable[[nn.Module, Batch, str], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class Stage:
    """loss: dotted path "module:function" · unit: what the count counts."""

    loss: str
    unit: str


STAGES: dict[str, Stage] = {
    "sft": Stage("luthier.train.stages.sft:loss", "tokens"),
    "pt": Stage("luthier.train.stages.sft:loss", "tokens"),
}


def loss_of(name: str) -> Loss:
    """Raises UsageError for a stage that no row and no entry point names."""
    paths = {n: stage.loss for n, stage in STAGES.items()}
    paths |= {point.name: point.value for point in entry_points(group="luthier.stages")}
    if name not in paths:
        raise UsageError(f"stage: {name!r} is not one of {', '.join(sorted(paths))}")
    module, _, function = paths[name].partition(":")
    found: Loss = getattr(import_module(module), function)
    return found
