"""Names that shells, YAML, globs, templates and terminals understand in their own way."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import tasks
from faults import outcome
from faults.bench import Bench, Done, Trial

LONGEST = 255
"""Bytes that a name may have on common file systems."""
NAMES = (
    unicodedata.normalize("NFC", "żółć-é-Å"), unicodedata.normalize("NFD", "żółć-é-Å"), "数据 集", "🎻🪕",
    "שלום\u202eabc", "ﷺ مرحبا", " spaces at both ends ", "two  spaces", "it's", 'say "hi"', "$(touch x)",
    "`touch x`", ";touch x;", "a && touch x", "| touch x", "> x", "*", "?", "[a]", "a[!b]*", "~",
    "~nobody-of-this-name", "%s%n", "{x}", "{{x}}", "{% x %}", "${HOME}", "$HOME", "back\\slash",
    "new\nline", "tab\tstop", "-rf", "--help",
    "a,b", "c:d", ":rocket:", "#hash", "a=b", "key: value", "checkpoint-3", "None", "null", "true", "1e5",
    "007", "..x", ".hidden", "con", "[red]x", "!tag", "&anchor", "@at", "x" * LONGEST,
    "长" * (LONGEST // 3),
)  # fmt: skip
REFUSED = {"None", "null", "~", "${HOME}"}
"""By themselves they mean something else: nothing, the home directory, another key. `./` makes them names."""
KEYS = ("output_dir", "model_name_or_path", "dataset_dir", "template", "tokenized_path")


@dataclass(frozen=True)
class Place:
    """A folder in which everything is called by one name; settings are relative to it."""

    folder: Path
    name: str
    settings: dict[str, Any]
    export: str

    @property
    def run(self) -> Path:
        return self.folder / self.settings["output_dir"]


def names(bench: Bench, count: int) -> Iterator[Trial]:
    """Everything is called so: trained from a file, killed, continued by command line, then used."""
    shop = bench.folder()
    settings = tasks.make(shop, save_steps=2, output_dir=str(shop / "clean"))
    done = bench.luthier(["train", *tasks.words(settings)])
    assert done.code == 0, done.err
    chosen = NAMES if count >= 40 else bench.random.sample(NAMES, count)
    for k, name in enumerate(chosen):
        shown = repr(name) if len(name) < 40 else f"{name[:3]!r} up to {LONGEST} bytes"
        bare = "output_dir" if name in REFUSED else KEYS[k % len(KEYS)]
        yield Trial(f"{shown}, {bare} by itself", _everywhere(bench, shop, name, bare))
    yield Trial("a name with a zero byte", _impossible(bench, shop, "a\0b"))
    yield Trial("a name that is not UTF-8", _impossible(bench, shop, os.fsdecode(b"caf\xe9")))


def _everywhere(bench: Bench, shop: Path, name: str, bare: str) -> str:
    place = _place(bench, shop, name, bare)
    problem = _trained(bench, place)
    if problem == "refused":
        if name not in REFUSED:
            return "refused, though it is a name like any other"
        place = _place(bench, shop, name, bare, "./")
        problem = _trained(bench, place)
    problem = problem or outcome.differs(place.run, shop / "clean") or _used(bench, place)
    return problem or _elsewhere(place)


def _cut(name: str, suffix: str) -> str:
    """`name` with a suffix, no longer than a name may be."""
    while len(os.fsencode(name)) > LONGEST - len(suffix):
        name = name[:-1]
    return name + suffix


def _place(bench: Bench, shop: Path, name: str, bare: str, before: str = "") -> Place:
    """Copies of base, data and template under `name`. bare: the key whose path is `before` and the name."""
    folder = bench.folder()
    file = {"template": _cut(name, ".jinja")}
    named = {key: file.get(key, name) for key in KEYS}
    at = {key: before + named[key] if key == bare else f"./{key}/{named[key]}" for key in KEYS}
    for path in (*at.values(), "home/x"):
        (folder / path).parent.mkdir(exist_ok=True)
    shutil.copytree(shop / "base", folder / at["model_name_or_path"])
    shutil.copyfile(shop / "clean" / "template.jinja", folder / at["template"])
    (folder / at["dataset_dir"]).mkdir()
    data, info = _cut(name, ".json"), "dataset_info.json"
    shutil.copyfile(shop / "data" / "intent.json", folder / at["dataset_dir"] / data)
    (folder / at["dataset_dir"] / info).write_text(json.dumps({name: {"file_name": data}}))
    return Place(
        folder, name, {**tasks.make(shop, save_steps=2), **at, "dataset": [name]}, f"./export/{name}"
    )


def _escaped(value: Any) -> Any:
    """What is no reference to another key must say so."""
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def _words(settings: Mapping[str, Any]) -> list[str]:
    pairs = {key: _escaped(value) for key, value in settings.items()}
    return [f"{k}={v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)}" for k, v in pairs.items()]


def _luthier(bench: Bench, place: Place, words: Sequence[str]) -> Done:
    return bench.luthier(words, cwd=place.folder, env={"HOME": str(place.folder / "home")})


def _trained(bench: Bench, place: Place) -> str:
    """Start from a file and be killed; go on by command line. "refused": with nothing written."""
    file = _cut(place.name, ".yaml")
    settings = {key: _escaped(value) for key, value in place.settings.items()}
    (place.folder / file).write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    before = sorted(place.folder.rglob("*"))
    child = bench.start(["train", f"./{file}"], cwd=place.folder, env={"HOME": str(place.folder / "home")})
    for line in child.lines():
        if "checkpoint 4 durable" in line:
            child.send(9)
    done = child.finish()
    if done.code == 2 and "Traceback" not in done.err:
        return (
            "refused" if sorted(place.folder.rglob("*")) == before else "refused, but something was written"
        )
    if problem := outcome.ended(done, -9):
        return problem
    done = _luthier(bench, place, ["train", *_words(place.settings)])
    problem = outcome.ended(done, 0)
    return problem or ("" if outcome.continued(done.err) >= 4 else "it began anew")


def _used(bench: Bench, place: Place) -> str:
    """Predict with the run, and export it."""
    run = os.path.join(".", place.settings["output_dir"])
    asked = {"dataset": [place.name], "dataset_dir": place.settings["dataset_dir"], "max_new_tokens": 2}
    done = _luthier(bench, place, ["predict", run, *_words(asked)])
    if problem := outcome.ended(done, 0):
        return f"predict: {problem}"
    done = _luthier(bench, place, ["export", run, *_words({"export_dir": place.export})])
    if problem := outcome.ended(done, 0):
        return f"export: {problem}"
    return "" if (place.folder / place.export / "export.json").is_file() else "export: it is elsewhere"


def _elsewhere(place: Place) -> str:
    """What was written outside of the places that were given."""
    given = [*(place.folder / place.settings[key] for key in KEYS), place.folder / place.export]
    given.append(place.folder / _cut(place.name, ".yaml"))
    around = {parent for path in given for parent in path.parents} | {place.folder / "home"}
    strange = [
        path
        for path in place.folder.rglob("*")
        if path not in around and not any(path == each or each in path.parents for each in given)
    ]
    return f"written elsewhere: {strange}" if strange else outcome.left_over(place.run)


def _impossible(bench: Bench, shop: Path, name: str) -> str:
    """No file or no text has such a name: it is refused by name, before anything is written."""
    folder = bench.folder()
    settings = tasks.make(shop, output_dir=name)
    words = tasks.words(settings)
    if "\0" in name:  # a command line cannot hold it either
        (folder / "c.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        words = ["c.yaml"]
    before = sorted(folder.iterdir())
    done = bench.luthier(["train", *words], cwd=folder)
    problem = outcome.ended(done, 2)
    if not problem and "`output_dir` holds" not in done.err:
        problem = f"does not name output_dir: {done.err[-300:]}"
    return problem or ("" if sorted(folder.iterdir()) == before else "something was written")
