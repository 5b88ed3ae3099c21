"""FILE|DATASET of a command -> the data sets that it names, and the stage that each is made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from luthier.data import prepare, registry, sources
from luthier.data.ledger import Ledger
from luthier.data.spec import DatasetSpec
from luthier.errors import UsageError
from luthier.types import BadRow, Example, Row


@dataclass(frozen=True)
class Opened:
    """A data set whose format is known. ledger: receives notes and what was converted while it is read."""

    spec: DatasetSpec
    stage: str
    ledger: Ledger = field(repr=False)

    def rows(self, limit: int | None = None) -> Iterator[tuple[Row | BadRow, Example | BadRow]]:
        """(row as it stands in the file, what it means), in the order of the file."""
        return prepare.understood(self.spec, self.stage, limit, self.ledger)

    def keep(self, *paths: Path) -> None:
        """Raise UsageError when writing one of `paths` would replace a file of this data set."""
        for file in sources.files(self.spec):
            for path in paths:
                if path.exists() and path.samefile(file):
                    raise UsageError(f"{path}: is the input, which is never changed -> give another name")


def opened(name: str, keys: Mapping[str, str]) -> Opened:
    """The data set `name`: a file, a folder, a hub's name, or an entry of dataset_info.json in dataset_dir.

    keys: dataset_dir, stage and cache_dir are read; without a stage it is told from the data. Raises
    DataError for what is not there, cannot be read at all, or has no format that can be told.
    """
    stage = keys.get("stage")
    hub = {"cache_dir": keys.get("cache_dir")}
    spec = registry.specs([name], keys.get("dataset_dir", "data"), stage=stage, hub=hub)[0]
    return Opened(spec, stage or natural_stage(spec), Ledger(spec.name, notes=list(spec.notes)))


def natural_stage(spec: DatasetSpec) -> str:
    """The stage that a data set is made for: pairs -> rm, verdicts -> kto, text alone -> pt, else sft."""
    if spec.ranking:
        return "rm"
    if spec.columns.get("kto_tag"):
        return "kto"
    alone = spec.formatting == "alpaca" and not spec.columns.get("response")
    return "pt" if spec.formatting == "text" or alone else "sft"
