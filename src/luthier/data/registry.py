"""Names of data sets -> what they are: dataset_info.json with LLaMA-Factory's meaning, paths, and hubs."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from luthier.config import plain
from luthier.data import formats, sources
from luthier.data.sources import places
from luthier.data.sources.encoding import whole
from luthier.data.spec import COLUMNS, INFO, OPENAI_COLUMNS, OPENAI_TAGS, TAG_ROLES, TAGS, DatasetSpec
from luthier.errors import DataError
from luthier.types import Problem

__all__ = ["DatasetSpec", "specs"]

LOOK_AT = 100  # rows read to recognise a format and to see what would stay unread
PLACES = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
OTHER_KEYS = (
    "formatting",
    "ranking",
    "subset",
    "split",
    "folder",
    "num_samples",
    "columns",
    "tags",
    "file_sha1",
)
REFUSED = {
    "om_hub_url": "the openMind hub is not supported -> download the files and use file_name",
    "script_url": "a loading script would run foreign code -> save its rows as a file and use file_name",
    "cloud_file_name": "cloud storage is not read directly -> copy the file here and use file_name",
}
PAIR_STAGES = frozenset({"rm", "dpo", "preference", "orpo", "simpo", "ipo"})


class Refusal(Exception):
    """Why one data set cannot be used; collected, so that all are reported at once."""


def specs(
    names: Sequence[str],
    dataset_dir: str = "data",
    *,
    stage: str | None = None,
    hub: Mapping[str, str | None] | None = None,
    look: bool = True,
) -> list[DatasetSpec]:
    """What the named data sets are, in the order of `names`.

    names: entries of dataset_info.json; or paths of files or folders (as they are, or inside dataset_dir),
    whose format is recognised from their rows; or hub names ("hf:org/name", "ms:org/name", "org/name").
    dataset_dir: the directory of dataset_info.json; "ONLINE" (every name is a hub's) or "REMOTE:org/name"
    (dataset_info.json is in that repository), as in LLaMA-Factory.
    stage: when given, data sets that do not fit it are refused (pairs outside rm/dpo, and so on).
    hub: cache_dir and hf_hub_token. look: read the first rows (hub data sets are downloaded for it) to
    recognise the format and to note what stays unread.
    Raises DataError with the problems of all names at once.
    """
    info = _info(dataset_dir)
    found: list[DatasetSpec] = []
    problems: list[Problem] = []
    for name in names:
        try:
            spec = _one(name, dataset_dir, info, hub or {})
            spec = _looked_at(spec, stage) if look else spec
            _check_stage(spec, stage)
            found.append(spec)
        except (Refusal, DataError) as error:
            what, _, instead = str(error).partition(" -> ")
            problems.append(Problem(name, what.removeprefix(f"{name}: "), instead))
    if problems:
        raise DataError("\n".join(f"data set {problem}" for problem in problems))
    return found


def _info(dataset_dir: str) -> dict[str, Any] | None:
    """dataset_info.json as a dict; {} where there is none, None for ONLINE. Raises DataError."""
    if dataset_dir == "ONLINE":
        return None
    if dataset_dir.startswith("REMOTE:"):
        from luthier.data.sources import hub

        repository = dataset_dir.removeprefix("REMOTE:")
        spec = DatasetSpec(repository, "hf", repository)
        path = hub.download(spec, [INFO]) / INFO
    else:
        path = Path(dataset_dir) / INFO
    if not os.path.lexists(path):
        return {}
    try:
        plain.read_bytes(path, plain.LONGEST_JSON)
        parsed = plain.from_json(whole(path))
        info, doubles = parsed.value, parsed.doubles
    except plain.Unreadable as error:
        line = f"line {error.line}: " if error.line else ""
        raise DataError(f"{path}: {line}{error.what} -> {error.instead}") from error
    if doubles:
        raise DataError(
            "\n".join(f'{path}: line {line}: "{key}" is given twice -> keep one' for key, line in doubles)
        )
    if not isinstance(info, dict) or not all(isinstance(entry, dict) for entry in info.values()):
        raise DataError(f'{path}: not a table of data sets -> write {{"name": {{"file_name": "name.json"}}}}')
    return info


def _one(
    name: str, dataset_dir: str, info: dict[str, Any] | None, hub: Mapping[str, str | None]
) -> DatasetSpec:
    """The spec of one name, before its rows are looked at. Raises Refusal."""
    where = _hub_name(name, info)
    if where is not None:
        spec = DatasetSpec(name, *where)
    elif info is not None and name in info:
        spec = _listed(name, info[name], dataset_dir)
    else:
        path = _existing(Path(name), Path(dataset_dir) / name)
        if path is None:
            raise Refusal(_unknown(name, dataset_dir, info or {}))
        if path.is_file():
            sources.check_extension(path)
        spec = DatasetSpec(name, "file", str(path), base=dataset_dir)
    return replace(spec, cache_dir=hub.get("cache_dir"), token=hub.get("hf_hub_token"))


def _existing(*paths: Path) -> Path | None:
    """The first of the paths where something is. Raises Refusal for one that is there and cannot be read."""
    for path in paths:
        why = places.trouble(path)
        if not why:
            return path
        if why != places.NONE:
            raise Refusal(f"{path}: {why} -> {places.remedy(why)}")
    return None


def _hub_name(name: str, info: dict[str, Any] | None) -> tuple[Literal["hf", "ms"], str] | None:
    """(hub, repository) of a hub's data set: one that says so, or "org/name" that is no place here."""
    default: Literal["hf", "ms"] = "ms" if _prefers_modelscope() else "hf"
    if info is None:
        return default, name
    prefix, _, repository = name.partition(":")
    if prefix in ("hf", "ms") and repository:
        return ("hf" if prefix == "hf" else "ms"), repository
    parts = name.split("/")
    is_repository = len(parts) == 2 and all(parts) and parts[0] not in (".", "..", "~")
    is_place = sources.extension(name) in sources.READERS or not places.trouble(Path(parts[0]))
    return (default, name) if is_repository and not is_place and name not in info else None


def _prefers_modelscope() -> bool:
    return os.environ.get("USE_MODELSCOPE_HUB", "0").lower() in ("true", "y", "1")


def _unknown(name: str, dataset_dir: str, info: dict[str, Any]) -> str:
    place = Path(dataset_dir) / INFO
    if "/" in name or "\\" in name or sources.extension(name) in sources.READERS:
        for beside in (Path(name).parent, (Path(dataset_dir) / name).parent):
            near = difflib.get_close_matches(Path(name).name, _siblings(beside / "_"), 1, 0.6)
            if near:
                break
        return f"no such file or folder, here or in {dataset_dir} -> " + (
            f'did you mean "{beside / near[0]}"?' if near else "check the path"
        )
    near = difflib.get_close_matches(name, list(info), 1, 0.5)
    known = (
        f"it has {', '.join(list(info)[:20])}{' ...' if len(info) > 20 else ''}"
        if info
        else f"there is no {place}"
    )
    hint = f'did you mean "{near[0]}"?' if near else "give a file's path, or add an entry"
    return f"not in {place} ({known}) -> {hint}"


def _listed(name: str, entry: dict[str, Any], dataset_dir: str) -> DatasetSpec:
    """An entry of dataset_info.json, with LLaMA-Factory's defaults and its rule for what is not listed."""
    place = _place(entry, dataset_dir)
    columns, tags, formatting = entry.get("columns"), entry.get("tags"), entry.get("formatting", "alpaca")
    _check_types(entry)
    if formatting not in formats.names():
        near = difflib.get_close_matches(str(formatting), formats.names(), 1, 0.6)
        hint = f'did you mean "{near[0]}"?' if near else f"use one of {', '.join(formats.names())}"
        raise Refusal(f'unknown formatting "{formatting}" -> {hint}')
    samples = entry.get("num_samples")
    openai = formatting == "openai"
    spec = DatasetSpec(
        name,
        place[0],
        place[1],
        base=dataset_dir,
        formatting=formatting,
        ranking=bool(entry.get("ranking", False)),
        subset=entry.get("subset"),
        split=entry.get("split") or "train",
        folder=entry.get("folder"),
        num_samples=samples,
        columns=_names(columns, COLUMNS, OPENAI_COLUMNS if openai else COLUMNS),
        tags=_names(tags, TAGS, OPENAI_TAGS if openai else TAGS),
        listed=frozenset(key for key in ("columns", "tags") if key in entry),
    )
    _check_tags(spec)
    return replace(spec, notes=tuple(_strange_keys(name, entry)))


def _check_types(entry: Mapping[str, Any]) -> None:
    """Raises Refusal for a value of a key that has another type."""
    for key in ("columns", "tags"):
        table = entry.get(key)
        if table is not None and not isinstance(table, dict):
            raise Refusal(f'"{key}" is {sources.kind(table)}, not a table -> write "{key}": {{...}}')
        for name, value in (table or {}).items():
            if value is not None and not isinstance(value, str):
                raise Refusal(
                    f'"{key}.{name}" is {sources.kind(value)}, not text -> write a name that the rows have'
                )
    for key in ("subset", "split", "folder"):
        if entry.get(key) is not None and not isinstance(entry[key], str):
            raise Refusal(f'"{key}" is {sources.kind(entry[key])}, not text -> write one name')
    if not isinstance(entry.get("ranking", False), bool):
        raise Refusal(f'"ranking" is {sources.kind(entry["ranking"])} -> write true or false')
    samples = entry.get("num_samples")
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise Refusal(f'"num_samples" is {sources.kind(samples)} -> write a whole number of 1 or more')


def _check_tags(spec: DatasetSpec) -> None:
    """Raises Refusal when messages of two roles could not be told apart."""
    seen: dict[str, str] = {}
    for tag in TAG_ROLES:
        name = spec.tags.get(tag)
        if name and seen.setdefault(name, tag) != tag:
            raise Refusal(
                f'"tags.{seen[name]}" and "tags.{tag}" are both "{name}" -> give each role its own name'
            )


def _names(
    given: Mapping[str, Any] | None, keys: Mapping[str, str | None], defaults: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Names for all keys: the defaults when nothing is given, else what is given and None."""
    return dict(defaults) if given is None else {key: given.get(key) for key in keys}


def _place(entry: Mapping[str, Any], dataset_dir: str) -> tuple[Literal["file", "hf", "ms"], str]:
    """("file" | "hf" | "ms", path or repository) in LLaMA-Factory's order of preference."""
    if "ms_hub_url" in entry and (_prefers_modelscope() or "hf_hub_url" not in entry):
        return "ms", str(entry["ms_hub_url"])
    if "hf_hub_url" in entry:
        return "hf", str(entry["hf_hub_url"])
    for key, why in REFUSED.items():
        if key in entry:
            raise Refusal(f'"{key}": {why}')
    if "file_name" in entry and not isinstance(entry["file_name"], str):
        raise Refusal(f'"file_name" is {sources.kind(entry["file_name"])}, not text -> write one path')
    if "file_name" not in entry:
        near = difflib.get_close_matches("file_name", list(entry), 1, 0.5)
        raise Refusal(
            f"its entry in {INFO} does not say where it is -> "
            + (f'did you mean "file_name" by "{near[0]}"?' if near else f"add one of {', '.join(PLACES[:3])}")
        )
    if not entry["file_name"].strip():
        raise Refusal('"file_name" is empty -> write the path of a file or folder')
    path = Path(dataset_dir) / entry["file_name"]
    if path.name == INFO:
        raise Refusal(f"{path}: the table of data sets cannot be used as data -> name a file of rows")
    if _existing(path) is None:
        near = difflib.get_close_matches(path.name, _siblings(path), 1, 0.6)
        raise Refusal(
            f"{path}: no such file or folder -> "
            + (f'did you mean "{near[0]}"?' if near else f"put it there, or correct file_name in {INFO}")
        )
    return "file", str(path)


def _siblings(path: Path) -> list[str]:
    """The names beside a path; none where nobody may look."""
    try:
        return os.listdir(path.parent)
    except (OSError, ValueError):
        return []


def _strange_keys(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Notes on keys of an entry that nobody reads (LLaMA-Factory does not read them either)."""
    notes = []
    for place, given, known in (
        ("", entry, (*PLACES, *OTHER_KEYS)),
        ("columns.", entry.get("columns") or {}, tuple(COLUMNS)),
        ("tags.", entry.get("tags") or {}, tuple(TAGS)),
    ):
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, 0.5)
                hint = f'did you mean "{place}{near[0]}"?' if near else f"known: {', '.join(known)}"
                notes.append(f'{name}: "{place}{key}" in {INFO} is not read; {hint}')
    return notes


def _looked_at(spec: DatasetSpec, stage: str | None) -> DatasetSpec:
    """The spec after a look at its first rows."""
    notes: list[str] = []
    rows = list(sources.read(spec, notes, limit=LOOK_AT))
    return formats.settle(replace(spec, notes=(*spec.notes, *notes)), rows, stage)


def _check_stage(spec: DatasetSpec, stage: str | None) -> None:
    if stage is None or spec.formatting is None:
        return
    prompt, response = spec.columns.get("prompt"), spec.columns.get("response")
    if prompt and prompt == response and stage != "pt":
        raise Refusal(f'"columns.prompt" and "columns.response" are both "{prompt}" -> name two columns')
    if stage in PAIR_STAGES and not spec.ranking:
        raise Refusal(
            f'stage {stage} needs preference pairs -> set "ranking": true with columns chosen and rejected'
        )
    if spec.ranking and stage not in PAIR_STAGES:
        raise Refusal(
            f"holds preference pairs, which {_use(stage)} cannot use -> to learn the better answers alone, "
            'read "chosen" as the response and no "rejected"; pairs are for stage: rm or dpo'
        )
    verdicts = spec.columns.get("kto_tag") is not None
    if stage == "kto" and not verdicts:
        raise Refusal('stage kto needs a verdict per row -> name its column as "kto_tag" in "columns"')
    if verdicts and stage not in ("kto", "pt"):
        raise Refusal(
            f"holds KTO verdicts, also of bad answers, which {_use(stage)} cannot use"
            ' -> keep the good answers and leave out the column "kto_tag"; verdicts are for stage: kto'
        )
    if spec.formatting == "text" and stage not in ("pt", "eval"):
        instead = "use rows with questions" if stage == "predict" else "use stage: pt"
        raise Refusal(f"holds plain text without answers, which {_use(stage)} cannot use -> {instead}")


def _use(stage: str) -> str:
    return {"predict": "prediction", "eval": "evaluation"}.get(stage, f"stage {stage}")
