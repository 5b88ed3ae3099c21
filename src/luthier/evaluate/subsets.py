"""Nested parts of the data that a run was trained on, as data sets of their own.

A part is written as JSON Lines with the rows as they stand in the user's files, beside a dataset_info.json
that gives each data set the format, columns and tags under which the run read it: so it goes through the
ordinary loader, and the user's files are not touched. Each data set gives the same share of its rows, and a
row that a mix or num_samples repeats is repeated as often, so the proportions of a mix stay; the part is then
read in the order of its files and shuffled as usual.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.errors import UsageError
from luthier.measure import closed, tasks
from luthier.measure.strings import normalise
from luthier.runs import atomic
from luthier.types import BadRow, Row

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.spec import DatasetSpec


@dataclass(frozen=True)
class Part:
    """One data set of a run. times: "file:row" -> how often its training saw the row in an epoch · order: the
    rows so that the first k are the part of k rows · limit: how many rows of the files were read, None:
    all."""

    spec: DatasetSpec
    times: Mapping[str, int]
    order: tuple[str, ...]
    limit: int | None = None

    def chosen(self, share: int) -> tuple[str, ...]:
        """The rows of `share` per cent; those of a smaller share are among them."""
        return self.order[: max(1, round(share * len(self.order) / 100))]


def rows(parts: Sequence[Part], share: int) -> int:
    """How many different rows a share is."""
    return sum(len(part.chosen(share)) for part in parts)


def seen(parts: Sequence[Part], share: int) -> int:
    """How many rows an epoch over a share sees, repeated ones as often as they are repeated."""
    return sum(part.times[source] for part in parts for source in part.chosen(share))


def trained(config: Config) -> tuple[list[Part], dict[str, str]]:
    """The rows that training with `config` learns from, and path -> sha256 of the files that hold them.

    Raises DataError where they cannot be read, UsageError where what is learnt is no set of rows.
    """
    from luthier.data import prepare, registry, sources
    from luthier.runs import hashing

    specs = registry.specs(config.dataset, config.dataset_dir, stage=config.stage, hub=prepare.hub_of(config))
    if config.streaming or (config.stage == "pt" and _by_blocks(config, specs)):
        raise UsageError(
            "--curve: the run holds out or reads blocks of text (streaming, val_size, num_samples), so no "
            "share of its rows can be trained on -> a run without these"
        )
    found = []
    for k, (spec, times) in enumerate(zip(specs, _times(config, specs), strict=True)):
        limit = config.max_samples if spec.num_samples is None else None
        answers = {
            example.source: tasks.asked(example).answer.strip()
            for example in prepare.examples(spec, config.stage, limit)
            if not isinstance(example, BadRow) and (times is None or example.source in times)
        }
        labels = _labels(list(answers.values()))
        order = nested(labels, [config.seed, k])
        names = list(answers)
        found.append(Part(spec, times or dict.fromkeys(names, 1), tuple(names[i] for i in order), limit))
    files = {str(path): hashing.cached(path) for spec in specs for path in sources.files(spec)}
    return found, files


def nested(labels: Sequence[str], seed: Sequence[int]) -> list[int]:
    """An order of the rows of which each beginning has the classes in their proportions, as far as it can.

    The j-th row of a class of m stands at j / m, so the first row of each class comes before any second one.
    """
    places = np.random.default_rng(seed).permutation(len(labels))
    size, before = Counter(labels), Counter[str]()
    key = {}
    for i in places.tolist():
        key[i] = (before[labels[i]] / size[labels[i]], -size[labels[i]])
        before[labels[i]] += 1
    return sorted(places.tolist(), key=lambda i: key[i])


def write(parts: Sequence[Part], share: int, folder: Path) -> list[str]:
    """Write a share to `folder`, whole or not at all; the names of its data sets in dataset_info.json."""
    from luthier.data import sources
    from luthier.data.spec import INFO

    names = _names([part.spec.name for part in parts])
    info = {name: _entry(name, part.spec) for name, part in zip(names, parts, strict=True)}
    with atomic.directory(folder) as place:
        for name, part in zip(names, parts, strict=True):
            chosen = set(part.chosen(share))
            with open(place / f"{name}.jsonl", "wb") as file:
                for row in sources.read(part.spec, limit=part.limit):
                    if isinstance(row, Row) and row.source in chosen:
                        file.write(_line(row.data) * part.times[row.source])
        (place / INFO).write_bytes(atomic.encode_json(info, where=str(folder / INFO), indent=2))
    return names


def _by_blocks(config: Config, specs: Sequence[DatasetSpec]) -> bool:
    return config.val_size > 0 or any(spec.num_samples is not None for spec in specs)


def _times(config: Config, specs: Sequence[DatasetSpec]) -> list[dict[str, int]] | list[None]:
    """Of each data set: row -> how often it stands in the training corpus. None: each good row, once."""
    if config.stage == "pt":
        return [None] * len(specs)
    from luthier.data import prepare, store
    from luthier.infer import loading

    _, renderer = loading.text(config, lambda _: None)
    corpus = prepare.prepare(config, renderer, lambda _: None).train
    assert isinstance(corpus, store.Corpus), "only pre-training streams"
    found: list[dict[str, int]] = [defaultdict(int) for _ in specs]
    examples, counts = np.unique(corpus.index, axis=0, return_counts=True)
    for (k, example), count in zip(examples.tolist(), counts.tolist(), strict=True):
        source = corpus.stores[k].source(example)
        found[k][source] = max(found[k][source], count)  # a row may give several examples
    return found


def _labels(answers: Sequence[str]) -> list[str]:
    """The class of each row; one class where the answers are no closed set."""
    if closed.labels(answers) is None:
        return [""] * len(answers)
    return [normalise(answer) for answer in answers]


def _names(given: Sequence[str]) -> list[str]:
    """File names for data sets that may be paths or names of a hub, each once."""
    plain = [re.sub(r"[^\w.+-]+", "_", Path(name).stem).strip(".") or "data" for name in given]
    return [f"{name}-{k}" if plain.count(name) > 1 else name for k, name in enumerate(plain, 1)]


def _entry(name: str, spec: DatasetSpec) -> dict[str, Any]:
    """dataset_info.json's entry that reads the same columns and roles as `spec`."""
    from luthier.data.spec import COLUMNS, OPENAI_COLUMNS, OPENAI_TAGS, TAGS

    openai = spec.formatting == "openai"
    tables = (
        ("columns", spec.columns, OPENAI_COLUMNS if openai else COLUMNS),
        ("tags", spec.tags, OPENAI_TAGS if openai else TAGS),
    )
    named = {
        key: {name: value for name, value in table.items() if value}
        for key, table, default in tables
        if key in spec.listed or dict(table) != default
    }
    return {"file_name": f"{name}.jsonl", "formatting": spec.formatting, "ranking": spec.ranking, **named}


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode("utf-8", "backslashreplace")
