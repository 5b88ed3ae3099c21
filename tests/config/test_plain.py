"""Small text files: values mean what they mean elsewhere; what unfolds or hangs is refused with its line."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from luthier.config import plain
from luthier.config.plain import Unreadable, from_json, from_yaml, read_text

SCALARS = (
    "1e-4 1.0e-4 5e-05 1e3 12 -3 +4 0x1f 0o17 017 0b11 1_000 true Yes no off null ~ qwen [a,b] {a:1} '007' "
    "1:30 2024-01-01 .5 .5e-3 1. 1.e5 inf .inf -.inf a,b /x/y ~/x a=b e5 1e+5 1E5 NaN None 0.0 1.2.3 1_0.5 "
    "12e03 | > % @ !x *a &a http://x:1/y"
).split()


def _other(text: str) -> Any:
    """What OmegaConf, which LLaMA-Factory reads with, makes of a value."""
    return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[call-overload, index]


def test_values_mean_what_they_mean_to_omegaconf() -> None:
    drawn = random.Random(0)
    made = ["".join(drawn.choices("0123456789.eE_:xabn~,[]'#", k=drawn.randint(1, 7))) for _ in range(400)]
    compared = 0
    for text in (*SCALARS, *made):
        try:
            value = from_yaml(text).value
        except Unreadable:
            continue
        assert repr(value) == repr(_other(text)), text
        compared += 1
    assert compared > 250


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("a: 1\nb: !!python/name:os.system x\n", "holds the tag `!!python/name:os.system`", 2),
        ("a: !include x", "holds the tag `!include`", 1),
        ("a: !!binary aGk=", "holds the tag `!!binary`", 1),
        ("a: 1\nb: &b [*b]", "alias of what it stands in", 2),
        ("a: &a {<<: *a}", "alias of what it stands in", 1),
        ("a: " + "[" * 60 + "]" * 60, "is nested more than 50 deep", 1),
        ("a: " + "[" * 9999, "is nested more than 50 deep", 0),
        ("a: 1\nb: " + "1" * 101, "a number of 101 digits", 2),
        ("a: 1\n1.5: 2", "has the key `1.5`, which YAML reads as float", 2),
        ("on: 2", "has the key `on`, which YAML reads as bool", 1),
        ("{a: 1}: 2", "has a key that is no text", 1),
        ("a: 1\nb: \0", "holds the character U+0000", 2),
        ("a: !!int x", "not what its tag says", 0),
        ("a: 1\n--- \nb: 1", "but found another document", 2),
        ("a: *b", "found undefined alias", 1),
    ],
)
def test_yaml_that_is_refused(text: str, what: str, line: int) -> None:
    with pytest.raises(Unreadable) as caught:
        from_yaml(text)
    assert what in caught.value.what and caught.value.line == line and caught.value.instead


def test_aliases_are_counted_before_they_are_unfolded() -> None:
    fine = "a: &a [1, 2]\nb: [*a, *a]\nc: &c {x: 1}\nd: {<<: *c, y: 2}\n"
    assert from_yaml(fine).value == {"a": [1, 2], "b": [[1, 2]] * 2, "c": {"x": 1}, "d": {"x": 1, "y": 2}}
    for form in ("[{}]", "{{<<: [{}]}}"):
        bomb = "a0: &a0 {x: 1}\n" + "".join(
            f"a{k}: &a{k} " + form.format(", ".join([f"*a{k - 1}"] * 9)) + "\n" for k in range(1, 30)
        )
        with pytest.raises(Unreadable, match="unfolds to more than 100,000 values"):
            from_yaml(bomb)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" * 100_000, "nested more than"),
        ("[" * 60 + "]" * 60, "nested more than"),
        ('{"a": ' + "9" * 101 + "}", "a number of 101 digits"),
        ("[" + "1," * 100_000 + "1]", "unfolds to more than"),
        ('{"a": 1', "is not valid JSON"),
    ],
)
def test_json_that_is_refused(text: str, what: str) -> None:
    with pytest.raises(Unreadable, match=what):
        from_json(text)


def test_lines_and_doubles_of_json() -> None:
    found = from_json('{\n"a": "x: \\"b\\": 1",\n"\\u0063": {\n"a": 1},\n"a": 2}')
    assert (found.value, found.doubles) == ({"a": 2, "c": {"a": 1}}, [("a", 5)])
    assert found.lines == {"a": 2, "c": 3}


def test_only_regular_files_of_a_sensible_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(plain.LONGEST + 1)
    for name, what in (
        ("pipe", "is a pipe"), ("loop", "cannot be read"), ("zero", "is a device"), ("sparse", "is larger"),
        ("nothing", "No such file"), ("a\0b", "cannot be read"), (".", "is a directory"),
    ):  # fmt: skip
        with pytest.raises(Unreadable, match=what):
            read_text(tmp_path / name)
    (tmp_path / "file").write_bytes("\ufeff你好".encode())
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link") == "你好"


def test_what_is_written_is_read_again() -> None:
    value = {
        "run_name": "1e-4",
        "seed": 1,
        "learning_rate": 1e-4,
        "system": "yes",
        "name": "名字: a\nb",
        "x": None,
    }
    assert plain.from_yaml(plain.to_yaml(value)).value == value
