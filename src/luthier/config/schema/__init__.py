"""Every key once: `Config` is the sum of the sections, `KEYS` describes each key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luthier.config.schema.data import Data
from luthier.config.schema.key import Key, keys_of
from luthier.config.schema.method import TRAINED_STAGES, Method
from luthier.config.schema.model import Model
from luthier.config.schema.train import Train
from luthier.config.schema.use import Export, Generate, Luthier

__all__ = ["KEYS", "OWN", "SECTIONS", "TRAINED_STAGES", "VERB_SECTIONS", "Config", "Key"]

SECTIONS: dict[str, type] = {
    "model": Model,
    "data": Data,
    "method": Method,
    "train": Train,
    "generate": Generate,
    "export": Export,
    "luthier": Luthier,
}
VERB_SECTIONS: dict[str, tuple[str, ...]] = {
    "train": ("model", "method", "data", "train", "generate", "luthier"),
    "chat": ("model", "data", "generate", "luthier"),
    "predict": ("model", "data", "generate", "luthier"),
    "export": ("model", "data", "export", "luthier"),
}
# What LLaMA-Factory and transformers do not have; every other key is theirs, with their meaning.
OWN = frozenset(
    "hub cutoff_policy history prefix_sharing on_bad_rows bad_rows_limit micro_batch_tokens system "
    "eval_generate_rows sample_replies merge_into export_hub_private format confirm_changes".split()
)
KEYS: dict[str, Key] = {
    name: found for title, section in SECTIONS.items() for name, found in keys_of(section, title).items()
}


@dataclass(frozen=True)
class Config(Luthier, Export, Generate, Train, Method, Data, Model):
    """All keys of a request, flat, and what is known about how they came about.

    verb: what is asked for · run: the run directory that the request starts from, if any · written: key ->
    value as the user wrote it (LLaMA-Factory's names) · where: key -> "train.yaml:12", "--lora_rank" ·
    derived: key -> why `resolve` gave it another value · notes: what the user should be told, one line each.
    """

    verb: str = "train"
    run: str | None = None
    written: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """key -> value in plain JSON types, in the order of the schema."""
        return {name: _plain(getattr(self, name)) for name in KEYS}

    def replace(self, **changes: Any) -> Config:
        """A new Config with some keys changed."""
        return dataclasses.replace(self, **changes)

    def place(self, name: str) -> str:
        """Where the key was written, with its name when the place does not show it."""
        where = self.where.get(name, name)
        return where if name in where else f"{where} ({name})"

    def is_set(self, name: str) -> bool:
        """True when the user (or the run) gave the key; False when it has its default."""
        return name in self.where


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
