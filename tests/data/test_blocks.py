"""Pre-training blocks: every token in exactly one."""

import numpy as np
import pytest

from luthier.data.blocks import chop
from luthier.data.ledger import Ledger
from luthier.errors import DataError
from luthier.types import BadRow, Rendered, Tokens


def document(ids, row):
    empty = Tokens(np.zeros(0, np.int32), np.zeros(0, np.float32))
    return Rendered(
        empty, (Tokens(np.array(ids, np.int32), np.ones(len(ids), np.float32)),), None, f"t.txt:{row}"
    )


DOCUMENTS = [document([1, 2, 3], 1), document([4], 2), document([5, 6, 7, 8, 9], 3)]


def ids(blocks):
    return [b.branches[0].ids.tolist() for b in blocks]


def test_packing_cuts_one_stream():
    ledger = Ledger("t")
    blocks = list(chop(DOCUMENTS, 4, True, ledger))
    assert ids(blocks) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert [b.source for b in blocks] == ["t.txt:1", "t.txt:3"]
    assert (ledger.split_rows, ledger.cut) == (1, 1)


def test_without_packing_documents_stay_apart():
    ledger = Ledger("t")
    assert ids(chop(DOCUMENTS, 4, False, ledger)) == [[1, 2, 3], [5, 6, 7, 8]]
    assert (ledger.split_rows, ledger.cut) == (1, 2)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("size", [2, 3, 5, 7, 100])
def test_no_token_is_lost(packing, size):
    ledger = Ledger("t")
    blocks = ids(chop(DOCUMENTS, size, packing, ledger))
    kept = [i for block in blocks for i in block]
    assert kept == sorted(kept) and len(kept) + ledger.cut == 9
    assert min(map(len, blocks)) > 1 and ledger.cut <= (1 if packing else 3)
    assert max(map(len, blocks)) <= size


def test_a_ledger_that_does_not_balance_is_an_error():
    ledger = Ledger("t", rows_in=2, kept=1)
    with pytest.raises(DataError, match="does not balance"):
        ledger.check()
    ledger.dropped["empty answer"] += 1
    ledger.check()


def test_a_ledger_survives_json_and_speaks():
    ledger = Ledger(
        "news", rows_in=3, kept=2, examples=2, tokens_in=10, trained=4, masked=5, cut=1, cut_rows=1
    )
    ledger.dropped["empty answer"] = 1
    assert Ledger.from_dict(ledger.as_dict()) == ledger
    assert ledger.lines() == [
        "news: 3 rows = 2 kept + 1 dropped",
        "  10 tokens = 4 trained + 5 masked + 1 cut (in 1 rows)",
        "  dropped 1: empty answer",
    ]


def test_dropping_counts_the_row():
    ledger = Ledger("t")
    ledger.drop(BadRow("t.json:1", "output", "empty answer"))
    ledger.drop(BadRow("t.json:2", "", "line 17: not valid JSON"))
    ledger.drop(BadRow("t.json:9", "", "line 93: not valid JSON"))
    assert (ledger.rows_in, ledger.bad) == (3, 3)
    assert dict(ledger.dropped) == {"output: empty answer": 1, "line N: not valid JSON": 2}
