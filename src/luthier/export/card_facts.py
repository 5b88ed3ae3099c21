"""What a model card is made of: facts that lie with the run, its base and its evaluations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from luthier.data import prepare, registry
from luthier.errors import DataError, RunError
from luthier.runs import Run, atomic, hashing
from luthier.runs.run import RESOLVED
from luthier.types import Example

if TYPE_CHECKING:
    from luthier.config import Config

LICENCES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")
"""Files of a base that have to go along with what is made of it."""
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_FIRST = 100  # rows of a data set that are read to tell its language
_LONGEST = 1 << 20  # bytes of a card or licence that are looked at
# First words of a licence -> its name on the hubs.
_TEXTS = {
    r"apache license\s+version 2\.0": "apache-2.0",
    r"mit license|permission is hereby granted, free of charge": "mit",
    r"redistribution and use in source and binary forms.*neither the name": "bsd-3-clause",
    r"llama 3\.3 community": "llama3.3",
    r"llama 3\.2 community": "llama3.2",
    r"llama 3\.1 community": "llama3.1",
    r"meta llama 3 community": "llama3",
    r"gemma terms of use": "gemma",
}
_CACHED = re.compile(r"models--([^/\\]+?)--([^/\\]+)[/\\]snapshots")
_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Base:
    """name: as people call it · id: on a hub, or "" · licence: as the hubs write it, or "" · more: its
    `license_name` and `license_link` · files: to be kept with what is made of it."""

    name: str
    id: str = ""
    licence: str = ""
    more: Mapping[str, str] | None = None
    files: tuple[Path, ...] = ()


def title(config: Config) -> str:
    """What the model is called: as its run, or as the model."""
    place = Path(str(config.run or config.model_name_or_path))
    return place.resolve().name if place.exists() else place.name


def base(config: Config) -> Base:
    """The base of a request, from the files that lie with it."""
    given = _base_of(config)
    folder = Path(given)
    if not folder.is_dir():
        return Base(given, given if _ID.fullmatch(given) else "")
    cached = _CACHED.search(str(folder.resolve()))
    name = f"{cached[1]}/{cached[2]}" if cached else ""
    kept = sorted({path for pattern in LICENCES for path in folder.glob(pattern) if path.is_file()})
    front = _front(folder / "README.md")
    licence = front.get("license") or next(filter(None, map(_recognised, kept)), "")
    licence = licence if isinstance(licence, str) else str(licence[0])
    if not licence and kept:
        licence = "other"
    more = {key: str(front[key]) for key in ("license_name", "license_link") if front.get(key)}
    if licence == "other" and kept:
        more.setdefault("license_name", "of-the-base")
        more.setdefault("license_link", kept[0].name)
    return Base(name or folder.resolve().name, name, licence, more, tuple(kept))


def _base_of(config: Config) -> str:
    """What was tuned: of a whole tuned model the run says it."""
    if config.run is not None and not config.adapter_name_or_path:
        told = Run.open(config.run).marker.get("base")
        told = told.get("path") or told.get("name") if isinstance(told, dict) else told
        if told:
            return str(told)
    return str(config.model_name_or_path)


def _front(card: Path) -> dict[str, Any]:
    """The YAML at the top of a card; {} where there is none that can be read."""
    if not card.is_file() or card.stat().st_size > _LONGEST:
        return {}
    found = _FRONT.match(card.read_text("utf-8", "replace"))
    try:
        told = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _recognised(file: Path) -> str:
    if file.stat().st_size > _LONGEST:
        return ""
    text = " ".join(file.read_text("utf-8", "replace").lower().split())
    return next((name for words, name in _TEXTS.items() if re.search(words, text)), "")


@dataclass(frozen=True)
class Data:
    """One data set of the run. id: on a hub, or "" · files: name -> sha256 of what was read."""

    name: str
    id: str
    rows: int
    trained: int
    files: Mapping[str, str]


def resolved(config: Config) -> dict[str, Any]:
    """The configuration of the run, {} for a model that was not tuned here."""
    if config.run is None:
        return {}
    found: dict[str, Any] = Run.open(config.run).read_json(RESOLVED)
    return found


def data(config: Config) -> list[Data]:
    """Rows read and trained on, with the sha256 of the files; [] where the run did not count."""
    if config.run is None or not (Path(config.run) / "ledger.json").is_file():
        return []
    run = Run.open(config.run)
    hashes = {Path(one["path"]): one["sha256"] for one in run.read_json("manifest.json").get("data", ())}
    asked = run.read_json(RESOLVED)
    found = []
    for line in run.read_json("ledger.json"):
        name = str(line["dataset"])
        where, place = _place(name, asked)
        files = {
            path.name: digest
            for path, digest in hashes.items()
            if (where == "file" and (path == place or place in path.parents)) or path.stem == name
        }
        known = place.as_posix() if where == "hf" else ""
        found.append(Data(Path(name).name, known, int(line["rows_in"]), int(line["kept"]), files))
    return found


def _place(name: str, asked: Mapping[str, Any]) -> tuple[str, Path]:
    try:
        (spec,) = registry.specs([name], asked.get("dataset_dir") or "data", look=False)
    except DataError:  # it has moved since; its rows are known all the same
        return "", Path(name)
    return spec.where, Path(spec.location).absolute() if spec.where == "file" else Path(spec.location)


def method(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Main settings of a run, in words; what was not used is left out."""
    if not told:
        return []
    adapters = told.get("finetuning_type") == "lora"
    extras = [
        word
        for key, word in {"use_dora": "DoRA", "use_rslora": "rsLoRA", "pissa_init": "PiSSA"}.items()
        if told.get(key)
    ]
    extras += ["LoRA+"] if told.get("loraplus_lr_ratio") else []
    bits = told.get("quantization_bit")
    kind = " + ".join(extras or ["LoRA"]) if adapters else str(told.get("finetuning_type"))
    rows = int(told.get("per_device_train_batch_size") or 1) * int(
        told.get("gradient_accumulation_steps") or 1
    )
    lines = {
        "stage": told.get("stage"),
        "method": kind + (f" on a base in {bits} bits ({told.get('quantization_type')})" if bits else ""),
        "rank, alpha, dropout": _joined(told, "lora_rank", "lora_alpha", "lora_dropout")
        if adapters
        else None,
        "adapted layers": ", ".join(told.get("lora_target") or ()) if adapters else None,
        "learning rate": _joined(told, "learning_rate", "lr_scheduler_type"),
        "epochs": told.get("num_train_epochs"),
        "rows a step": rows,
        "longest example": f"{told.get('cutoff_len')} tokens",
        "seed": told.get("seed"),
    }
    return [(name, str(value)) for name, value in lines.items() if value not in (None, "")]


def _joined(told: Mapping[str, Any], *names: str) -> str:
    return ", ".join(str(told[name]) for name in names if told.get(name) is not None)


def evaluations(config: Config) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """(name, report.json) of each evaluation of the weights as they are now; and notes on the others."""
    found, notes = [], []
    here = set(_weights(config))
    for file in sorted((Path(str(config.run)) / "eval").glob("*/report.json")) if config.run else ():
        name = file.parent.name
        try:
            report = atomic.read_json(file)
            then = report["systems"].get("after", {}).get("weights", {})
        except (RunError, KeyError, TypeError, AttributeError):
            notes.append(f"the evaluation {name} cannot be read, so it is not told here")
            continue
        if here and here <= {digest for files in then.values() for digest in files.values()}:
            found.append((name, report))
        else:
            notes.append(f"the evaluation {name} is of other weights than these, so it is not told here")
    return found, notes


def _weights(config: Config) -> Iterator[str]:
    """sha256 of the weights that were trained."""
    for place in config.adapter_name_or_path or (str(config.model_name_or_path),):
        for file in sorted(Path(str(place)).glob("*.safetensors")):
            yield hashing.cached(file)


def texts(told: Mapping[str, Any]) -> list[str]:
    """What the first rows of each data set say; [] where they are not to be had any more."""
    names, stage = told.get("dataset") or [], told.get("stage") or "sft"
    try:
        specs = registry.specs(names, told.get("dataset_dir") or "data", stage=stage)
        rows = [row for spec in specs for row in prepare.examples(spec, stage, limit=_FIRST)]
    except DataError:
        return []
    return [
        message.content
        for row in rows
        if isinstance(row, Example)
        for message in (*row.trunk, *(turn for branch in row.branches for turn in branch))
        if message.role != "system"
    ]


def languages(texts: Sequence[str]) -> list[str]:
    """Codes of languages that a good part of the texts is in, told by letters; English by common words."""
    text = " ".join(texts)
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return []
    found = []
    for code, low, high in _SCRIPTS:
        if sum(low <= c <= high for c in letters) > 0.1 * len(letters):
            found.append(code)
    if "ja" in found and "zh" in found:
        found.remove("zh")
    words = re.findall(r"[a-z]+", text.lower())
    english = sum(word in _ENGLISH for word in words)
    if len(words) * 5 > 0.1 * len(letters) and english > 0.15 * len(words):
        found.append("en")
    return found


_SCRIPTS = (
    ("zh", "一", "鿿"), ("ja", "぀", "ヿ"), ("ko", "가", "힣"), ("ru", "Ѐ", "ӿ"),
    ("ar", "؀", "ۿ"), ("hi", "ऀ", "ॿ"), ("th", "฀", "๿"), ("el", "Ͱ", "Ͽ"), ("he", "֐", "׿"),
)  # fmt: skip
_ENGLISH = frozenset("the a an of to and in is are you your i it for on that this with what be my me".split())
