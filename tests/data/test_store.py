"""Token stores: what is read is what was written."""

import numpy as np
import pytest

from luthier.data import store
from luthier.errors import DataError
from luthier.types import Rendered, Tokens


def tokens(ids, mask):
    return Tokens(np.array(ids, np.int32), np.array(mask, np.float32))


PAIR = Rendered(tokens([1, 2], [0, 0]), (tokens([3], [1]), tokens([4, 5], [1, 0.1])), None, "data/a.json:3")
VERDICT = Rendered(tokens([], []), (tokens([70, 80], [1, 1]),), False, "data/a.json:12")


def test_round_trip(tmp_path):
    written = store.write(tmp_path / "s", [PAIR, VERDICT], vocabulary=100)
    assert len(written) == 2 and written.lengths.tolist() == [5, 2]
    pair, verdict = written[0], written[1]
    assert pair.trunk.ids.tolist() == [1, 2]
    assert [b.ids.tolist() for b in pair.branches] == [[3], [4, 5]]
    assert pair.branches[1].mask.tolist() == [1.0, np.float32(0.1)]
    assert (pair.source, pair.verdict) == ("data/a.json:3", None)
    assert (verdict.source, verdict.verdict) == ("data/a.json:12", False)
    # Nothing stands before a first token, so it cannot be learnt.
    assert verdict.branches[0].mask.tolist() == [0.0, 1.0]
    assert written.index["tokens"] == 7 and written.index["trained"] == 4


@pytest.mark.parametrize(("vocabulary", "name"), [(65536, "uint16"), (65537, "uint32")])
def test_ids_take_two_bytes_where_the_vocabulary_allows(tmp_path, vocabulary, name):
    top = vocabulary - 1
    written = store.write(tmp_path / "s", [Rendered(tokens([top], [0]), (tokens([top], [1]),))], vocabulary)
    assert written.index["dtype"] == name and written[0].branches[0].ids.tolist() == [top]


def test_a_store_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield PAIR
        raise DataError("row 2 is broken")

    with pytest.raises(DataError):
        store.write(tmp_path / "s", broken(), 100)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_size_is_refused(tmp_path):
    store.write(tmp_path / "s", [PAIR], 100)
    with open(tmp_path / "s" / "ids.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="not what was written"):
        store.Store.open(tmp_path / "s")


def test_a_corpus_is_a_view_of_several_stores(tmp_path):
    a, b = store.write(tmp_path / "a", [PAIR], 100), store.write(tmp_path / "b", [VERDICT, PAIR], 100)
    corpus = store.Corpus((a, b), np.array([[1, 1], [0, 0], [1, 0]], np.int64))
    assert corpus.lengths.tolist() == [5, 5, 2]
    assert [corpus.source(i) for i in range(3)] == ["data/a.json:3", "data/a.json:3", "data/a.json:12"]
    assert corpus.take(np.array([2]))[0].verdict is False
    assert len(list(corpus)) == 3


def test_an_empty_store_can_be_read(tmp_path):
    assert len(store.write(tmp_path / "s", [], 100)) == 0
