"""The words after `luthier data VERB`: options of the verb, keys of a configuration, and what is left."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from luthier.config import Config, check, read
from luthier.config.schema import KEYS
from luthier.errors import UsageError

SHORT = {"--model": "model_name_or_path", "-m": "model_name_or_path", "--dataset-dir": "dataset_dir"}
"""Names under which keys of a configuration are also known here."""


@dataclass
class Words:
    """given: what stands alone (files, data sets) · options: the verb's own, without "--" · keys: "key=value"
    of a configuration, such as dataset_dir or model_name_or_path."""

    given: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def config(self, dataset: str) -> Config:
        """The configuration of a verb `data` that reads `dataset` with the given keys (a model is needed)."""
        return self._read([f"--dataset={dataset}"])

    def config_of(self, file: str) -> Config:
        """The configuration of a file such as train.yaml, with the given keys."""
        return self._read([file])

    def _read(self, first: list[str]) -> Config:
        words = [*first, *(f"--{key}={value}" for key, value in self.keys.items())]
        return check(read(words, os.environ), "data")


def parse(args: Sequence[str], options: Mapping[str, str | None], verb: str) -> Words:
    """`args` sorted into Words.

    options: the verb's own options -> None for one that takes a value, or the value that it has when it
    stands without one ("--undo"). Everything is `--name value`, `--name=value` or `name=value`; "-" and "_"
    are the same in an option's name. Raises UsageError, for all unknown words at once.
    """
    words, wrong = Words(), list[str]()
    rest = list(args)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        bare = SHORT.get(name, name.removeprefix("--"))
        option = bare.replace("_", "-")
        is_option = name.startswith("-") or (equals and (option in options or bare in _keys()))
        if not is_option or word == "-":
            words.given.append(word)
            continue
        if option in options and options[option] is not None and not equals:
            words.options[option] = str(options[option])
            continue
        if option not in options and bare not in _keys():
            wrong.append(_unknown(name, [*options, *_keys()]))
            continue
        if not equals:
            if not rest:
                wrong.append(f"{name}: a value is missing -> {name} VALUE")
                continue
            value = rest.pop(0)
        (words.options if option in options else words.keys)[option if option in options else bare] = value
    if wrong:
        raise UsageError("\n".join(f"data {verb}: {one}" for one in wrong))
    return words


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lstrip("-"), known, 1, 0.6)
    hint = f"did you mean --{near[0]}?" if near else "`luthier data --help` lists what there is"
    return f"{name}: no such option -> {hint}"


def _keys() -> frozenset[str]:
    """Keys of a configuration that say how data is read and rendered."""
    return frozenset(KEYS)
