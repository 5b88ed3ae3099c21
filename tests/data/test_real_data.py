"""Published data sets, when they lie beside the repository: every row of each is read and understood."""

from pathlib import Path

import pytest

from luthier.data import formats, registry, sources
from luthier.types import BadRow

SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the published data sets are not here")
SETS = [
    ("lf_demo", "identity", "sft", 91),
    ("lf_demo", "alpaca_en_demo", "sft", 999),
    ("lf_demo", "alpaca_zh_demo", "sft", 1000),
    ("lf_demo", "glaive_toolcall_zh_demo", "sft", 300),
    ("lf_demo", "dpo_zh_demo", "rm", 300),
    ("lf_demo", "kto_en_demo", "kto", 300),
    ("lf_demo", "c4_demo", "pt", 300),
    ("lf_demo", "wiki_demo", "pt", 30),
    ("news", "train", "sft", 8000),
    ("news", "eval", "sft", 1500),
    ("intent", "intent", "sft", 10003),
    ("intent", "intent_test", "sft", 3080),
]


def examples(spec, stage):
    found = []
    for row in sources.read(spec):
        assert not isinstance(row, BadRow), row
        found.append(formats.to_example(row, spec, stage))
    return found


@pytest.mark.parametrize("folder, name, stage, rows", SETS)
def test_every_row_is_understood(folder, name, stage, rows):
    (listed,) = registry.specs([name], str(SHARED / folder), stage=stage)
    found = examples(listed, stage)
    assert len(found) == rows
    assert listed.notes == ()
    (recognised,) = registry.specs([listed.location], "nowhere", stage=stage)
    assert examples(recognised, stage) == found


def test_tool_calls_of_glaive():
    (spec,) = registry.specs(["glaive_toolcall_zh_demo"], str(SHARED / "lf_demo"))
    first = examples(spec, "sft")[0]
    assert first.trunk[1].tool_calls[0].name == "generate_invoice"
    assert [message.role for message in first.trunk] == ["user", "assistant", "tool"]
    assert first.tools
