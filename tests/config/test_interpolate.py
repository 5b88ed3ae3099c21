"""References in values: other keys and plain variables are filled in, everything else is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.config.interpolate import Interpolation, Refused
from luthier.config.read import read

VALUES: dict[str, Any] = {
    "seed": 7,
    "on": True,
    "deep": {"list": [1, {"x": "${seed}"}], "own": "${deep.list[0]}"},
    "name": "run-${seed}-${on}",
    "again": "${name}",
    "copy": "${deep}",
    "literal": "\\${seed} costs $5 {x}",
    "default": "${oc.env:LUTHIER_NOT_SET,a b}",
    "quoted": '${oc.env:LUTHIER_NOT_SET,"a b"}',
    "null": "${oc.env:LUTHIER_NOT_SET,null}",
    "set": "x/${oc.env:LUTHIER_TEST_NAME}/y",
}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("name", "run-7-True"),
        ("again", "run-7-True"),
        ("copy", {"list": [1, {"x": 7}], "own": 1}),
        ("literal", "${seed} costs $5 {x}"),
        ("default", "a b"),
        ("quoted", "a b"),
        ("null", None),
        ("set", "x/ada/y"),
    ],
)
def test_what_is_filled_in(monkeypatch: pytest.MonkeyPatch, key: str, expected: object) -> None:
    monkeypatch.setenv("LUTHIER_TEST_NAME", "ada")
    assert Interpolation(VALUES).value(key) == expected


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"a": "${b}"}, "Interpolation key 'b' not found"),
        ({"a": "${b.c}", "b": 1}, "Interpolation key 'b.c' not found"),
        ({"a": "${b[3]}", "b": [1]}, "not found"),
        ({"a": "${a}"}, "refers to itself"),
        ({"a": "x${b}", "b": {"c": "${a}"}}, "refers to itself"),
        ({"a": "${oc.decode:'[1]'}"}, "the resolver `oc.decode` is not read"),
        ({"a": "${oc.create:x}"}, "the resolver `oc.create`"),
        ({"a": "${oc.env:${b}}", "b": "HOME"}, "the resolver `oc.env`"),
        ({"a": "${.b}"}, "is not read"),
        ({"a": "${"}, "is not read"),
        ({"a": "x ${b}", "b": [1]}, "is a list inside text"),
        ({"a": "${oc.env:LUTHIER_NOT_SET}"}, "LUTHIER_NOT_SET is not set"),
        ({"a": "${oc.env:HF_TOKEN}"}, r"\$HF_TOKEN is a secret"),
        ({"a": "${oc.env:DB_PASSWORD,none}"}, r"\$DB_PASSWORD is a secret"),
        ({"a": "???"}, "must still be given"),
        ({f"k{n}": f"${{k{n + 1}}}" for n in range(99)} | {"a": "${k0}"}, "more than 50 references"),
        ({"b0": "x" * 99, "a": "${b9}"} | {f"b{n}": f"${{b{n - 1}}}" * 9 for n in range(1, 10)}, "unfold to"),
        (
            {"b0": [1] * 99, "a": ["${b9}"]} | {f"b{n}": [f"${{b{n - 1}}}"] * 9 for n in range(1, 10)},
            "unfold",
        ),
    ],
)
def test_what_is_refused(values: dict[str, Any], what: str) -> None:
    with pytest.raises(Refused, match=what) as caught:
        Interpolation(values).value("a")
    assert " -> " in str(caught.value)


def test_a_configuration_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "Shop-1234567")
    monkeypatch.setenv("DATABASE_URL", "postgresql://shop:pa55word@db/shop")
    (tmp_path / "a.yaml").write_text("run_name: ${oc.env:DATABASE_URL}\nproject: my-${oc.env:USER_X,me}\n")
    loaded = read([str(tmp_path / "a.yaml"), "system=key Shop-1234567", "seed=1"], {})
    assert loaded.values == {"project": "my-me", "seed": 1}
    assert [p.what for p in loaded.problems] == [
        "`run_name` holds a password in a URL, which would be kept with the run",
        "`system` holds the value of $SHOP_API_KEY, which would be kept with the run",
    ]


def test_a_written_configuration_asks_for_the_same_again(tmp_path: Path) -> None:
    from luthier.config import load

    config = load(["model_name_or_path=a/b", "system=costs \\${seed}", "seed=3"], "chat", {})
    assert config.system == "costs ${seed}"
    assert config.written["system"] == "costs \\${seed}"
