"""Data sets of Hugging Face and ModelScope -> files on this disk, read by our own readers.

Nothing of a repository is run: only its card (README.md) and data files are fetched. Which files make up
a subset and split is said by the card (`configs:`) or by their names, as the `datasets` library reads them.
HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and HF_TOKEN work as huggingface_hub means them.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

from luthier.config import plain
from luthier.data.sources.encoding import note
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError, MissingPackage

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def fetch(spec: DatasetSpec, notes: list[str] | None = None) -> list[Path]:
    """The files of a hub's data set, from the cache or downloaded. Raises DataError, MissingPackage."""
    from luthier.data.sources import READERS

    if re.search(r"[\[\]+%]", spec.split):
        raise DataError(
            f'{spec.name}: split "{spec.split}": slices are not read -> split: train with max_samples'
        )
    card = _configs(download(spec, ["README.md"]) / "README.md")
    wanted = _patterns(card, spec)
    prefix = f"{spec.folder.strip('/')}/" if spec.folder else ""
    allow = [prefix + pattern for pattern in wanted] or [
        f"{prefix}*{kind}{packed}" for kind in READERS for packed in ("", ".gz")
    ]
    root = download(spec, allow)
    found = select(root, spec, notes)
    if not found:
        raise DataError(
            f"{spec.name}: {spec.location} has no data files that are read here"
            f" (subset {spec.subset}, split {spec.split}, folder {spec.folder})"
            f" -> look at its file list, and set subset, split or folder in dataset_info.json"
        )
    return found


def download(spec: DatasetSpec, allow: list[str]) -> Path:
    """The local folder of a hub's data set with (at least) the files that match the globs."""
    return (_from_modelscope if spec.where == "ms" else _from_hugging_face)(spec, allow)


def select(root: Path, spec: DatasetSpec, notes: list[str] | None = None) -> list[Path]:
    """The data files under `root` that make up the spec's folder, subset and split, sorted."""
    from luthier.data.sources import is_data, places

    start = root / spec.folder if spec.folder else root
    found = sorted(file for file in places.below(start) if is_data(file))
    names = {file: file.relative_to(start).as_posix() for file in found}
    patterns = _patterns(_configs(root / "README.md"), spec)
    if patterns:
        return [file for file in found if any(_matches(names[file], pattern) for pattern in patterns)]
    if spec.subset:
        found = [file for file in found if spec.subset.lower() in _parts(names[file])] or [
            file for file in found if _words(spec.subset) <= _words(names[file])
        ]
    chosen = _of_split(found, names, spec.split)
    if len(chosen) < len(found):
        note(notes, f"{spec.name}: split {spec.split}: {len(chosen)} of {len(found)} files")
    return chosen


def _matches(name: str, pattern: str) -> bool:
    """Glob match as in a card's data_files: "**/" may also stand for nothing."""
    return fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, pattern.replace("**/", ""))


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))


def _parts(name: str) -> set[str]:
    """Folder names and the bare file name, lower case."""
    parts = name.lower().split("/")
    return {*parts, parts[-1].partition(".")[0]}


def _of_split(found: list[Path], names: dict[Path, str], split: str) -> list[Path]:
    """Files whose path names the split. Files that name no split at all are the training split."""

    def names_split(file: Path, words: tuple[str, ...]) -> bool:
        text = names[file].lower()
        return any(re.search(rf"(^|[^a-z0-9]){re.escape(word)}([^a-z0-9]|$)", text) for word in words)

    chosen = [file for file in found if names_split(file, SPLITS.get(split, (split.lower(),)))]
    if chosen or split != "train":
        return chosen
    others = tuple(word for key, words in SPLITS.items() if key != "train" for word in words)
    return [file for file in found if not names_split(file, others)] or found


def _configs(card: Path) -> list[dict[str, Any]]:
    """The `configs` of a data card's YAML header; [] where there is none."""
    import yaml

    if not card.is_file():
        return []
    try:
        text = plain.read_bytes(card, plain.LONGEST_JSON).decode("utf-8", "replace")
        header = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
        parsed = yaml.safe_load(header.group(1)) if header else None
    except (plain.Unreadable, yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(
            f"{card}: its YAML header cannot be read: {error} -> mend it, or delete it"
        ) from error
    configs = parsed.get("configs") if isinstance(parsed, dict) else None
    return [config for config in configs or [] if isinstance(config, dict) and "data_files" in config]


def _patterns(configs: list[dict[str, Any]], spec: DatasetSpec) -> list[str]:
    """The card's globs for the subset and split; [] when the card says nothing and names must decide."""
    if not configs:
        return []
    named = {str(config.get("config_name", "default")): config for config in configs}
    first = next((config for config in configs if config.get("default")), named.get("default", configs[0]))
    if spec.subset and spec.subset not in named:
        raise DataError(
            f'{spec.name}: {spec.location} has no subset "{spec.subset}"'
            f" -> use one of {', '.join(sorted(named))}"
        )
    by_split = _by_split((named[spec.subset] if spec.subset else first)["data_files"])
    if spec.split not in by_split:
        raise DataError(
            f'{spec.name}: {spec.location} has no split "{spec.split}"'
            f" -> use one of {', '.join(sorted(by_split))}"
        )
    return by_split[spec.split]


def _by_split(data_files: Any) -> dict[str, list[str]]:
    """A card's data_files (a glob, globs, or {split, path} entries) as split -> globs."""
    result: dict[str, list[str]] = {}
    for entry in data_files if isinstance(data_files, list) else [data_files]:
        split, path = (
            (entry.get("split", "train"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        )
        result.setdefault(str(split), []).extend([path] if isinstance(path, str) else list(path or []))
    return result


def _from_hugging_face(spec: DatasetSpec, allow: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        root = snapshot_download(
            spec.location,
            repo_type="dataset",
            allow_patterns=allow,
            cache_dir=spec.cache_dir,
            token=spec.token,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if constants.is_offline_mode():
            why, instead = (
                "it is not in the cache, and HF_HUB_OFFLINE forbids the network",
                "unset HF_HUB_OFFLINE",
            )
        else:
            cause = (str(error).strip() or type(error).__name__).splitlines()[0]
            why = f"it could not be fetched from {constants.ENDPOINT} ({cause})"
            instead = (
                "check the name; set HF_ENDPOINT to a mirror (https://hf-mirror.com), HF_TOKEN if private"
            )
        raise DataError(
            f"{spec.name}: {spec.location}: {why} -> {instead}; or download the files and give their path:"
            f" hf download --repo-type dataset {spec.location} --local-dir DIR"
        ) from error
    return Path(root)


def _from_modelscope(spec: DatasetSpec, allow: list[str]) -> Path:
    try:
        from modelscope import dataset_snapshot_download
    except ImportError as error:
        raise MissingPackage(
            "modelscope", f"the ModelScope data set {spec.location}", "modelscope"
        ) from error
    try:
        root = dataset_snapshot_download(spec.location, cache_dir=spec.cache_dir, allow_file_pattern=allow)
    except (
        Exception
    ) as error:  # its client raises requests' errors and a dozen of its own without a common base
        raise DataError(
            f"{spec.name}: {spec.location}: it could not be fetched from ModelScope ({error})"
            " -> check the name and the network; or download the files and give their path"
        ) from error
    return Path(root)
