"""The quantization gate: what is understood, and what is recommended."""

import pytest

from luthier.errors import UsageError
from luthier.export import gate
from luthier.export.gate import Gate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy -1%", Gate("accuracy", 0.01)),
        ("macro_f1 - 0.5 %", Gate("macro_f1", 0.005)),
        ("perplexity -0.2", Gate("perplexity", 0.2)),
    ],
)
def test_what_may_be_lost(text, expected):
    assert gate.parse(text) == expected


@pytest.mark.parametrize("text", ["accuracy", "accuracy +1%", "-1%", "accuracy -one", ""])
def test_what_is_not_understood(text):
    with pytest.raises(UsageError, match="accuracy -1%"):
        gate.parse(text)


def row(kind, size, **more):
    figures = {"delta": 0.0, "low": -0.005, "high": 0.005, "n": 400, "after": 0.85, "metric": "accuracy"}
    states = {"allowed": 0.01, "within": True, "sure": True, "recommended": False, "tokens_per_second": 10.0}
    return {"file": f"run-{kind}.gguf", "kind": kind, "bytes": size, **figures, **states, **more}


def test_the_recommendation_in_words():
    rows = [row("q8_0", 3_000_000), row("q4_k_m", 2_000_000, recommended=True)]
    assert (
        gate.table(rows)[-1]
        == "recommended: run-q4_k_m.gguf, the smallest that loses at most 0.01 of accuracy"
    )
    unsure = [row("q2_k", 1_000_000, recommended=True, sure=False)]
    assert gate.table(unsure)[-1].endswith("; on 400 rows a larger loss cannot be excluded")
    lost = [row("q2_k", 1_000_000, within=False, sure=False)]
    assert gate.table(lost)[-1] == "none loses at most 0.01: take a larger kind"
    assert gate.table([]) == []
