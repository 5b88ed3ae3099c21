"""GGUF files that are cut off, damaged or made up: an error that says what and where, never a crash."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ggufs
import tiny
from luthier import cli, gguf
from luthier.errors import ModelError
from luthier.gguf import read, tokenizer

U8, U32, I32, F32, BOOL, TEXT, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def field(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(name: str = "a", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    dimensions = b"".join(struct.pack("<Q", n) for n in shape)
    return text(name) + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", kind, offset)


TOKENS = ("tokenizer.ggml.tokens", ARRAY, array(TEXT, 2, text("a") + text("b")))
USUAL = (
    ("general.architecture", TEXT, text("llama")),
    ("llama.context_length", U32, struct.pack("<I", 8)),
    TOKENS,
    ("tokenizer.ggml.model", TEXT, text("gpt2")),
    ("tokenizer.ggml.pre", TEXT, text("gpt-2")),
)


def made(
    *more: tuple[str, int, bytes],
    tensors: tuple[bytes, ...] = (tensor(),),
    usual: tuple[tuple[str, int, bytes], ...] = USUAL,
    counts: tuple[int, int] | None = None,
    start: bytes = b"GGUF\x03\0\0\0",
) -> bytes:
    """A file of these fields and tensors, with 256 bytes of weights. counts: what it claims to have."""
    fields = [field(*one) for one in (*usual, *more)]
    head = (
        start + struct.pack("<QQ", *(counts or (len(tensors), len(fields)))) + b"".join((*fields, *tensors))
    )
    return head + bytes(-len(head) % 32) + bytes(256)


def opened(path: Path) -> None:
    read.header(path)
    tokenizer.tokenizer(path)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("valid")
    folder = ggufs.with_tokenizer(top / "model", tiny.make_tokenizer(top / "tokenizer"), tiny.VOCAB)
    return gguf.convert(folder, top / "model.gguf", "f16")


def test_a_made_up_file_is_read(tmp_path: Path) -> None:
    """So that what is refused below is refused for what is wrong with it."""
    (tmp_path / "a.gguf").write_bytes(made(("deep", ARRAY, array(ARRAY, 1, array(U8, 2, b"\1\2")))))
    head = read.header(tmp_path / "a.gguf")
    assert head.metadata["deep"] == [[1, 2]] and head.tensors[0].bytes == 128
    opened(tmp_path / "a.gguf")


LIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "ends before the magic number"),
    "another format": (b"PK\3\4" + bytes(100), "is no GGUF file"),
    "the first version": (made(start=b"GGUF\1\0\0\0"), "version 1; 2 and 3"),
    "the other byte order": (made(start=b"GGUF\0\0\0\3"), "version 50331648"),
    "too many fields": (made(counts=(1, 1 << 60)), "number of fields is 1152921504606846976"),
    "too many tensors": (made(counts=(1 << 60, 5)), "number of tensors is 1152921504606846976"),
    "more fields than there are": (made(counts=(1, 500)), "says  twice"),
    "more tensors than there are": (made(counts=(9, 5)), "has 0 dimensions"),
    "a long name": (made((("n" * (1 << 20)) + "n", U8, b"\0")), "has 1048577 characters"),
    "a text longer than the file": (made(("x", TEXT, struct.pack("<Q", 1 << 62))), "bytes wanted"),
    "an array longer than memory": (
        made(("x", ARRAY, array(U8, 1 << 62))),
        "claims 4611686018427387904 values",
    ),
    "an array of texts longer than memory": (made(("x", ARRAY, array(TEXT, 1 << 62))), "claims"),
    "an array longer than the file": (made(("x", ARRAY, array(U64, 1 << 20))), "8388608 bytes wanted"),
    "arrays without end": (made(("x", ARRAY, array(ARRAY, 1) * 9)), "type 9, which does not exist"),
    "arrays of arrays": (made(("x", ARRAY, array(ARRAY, 1 << 22, array(U8, 0) * 99))), "x claims .* values"),
    "a type that there is not": (made(("x", 13, b"\0" * 8)), "x has type 13"),
    "no text": (made(("x", TEXT, text(b"\xff\xfe"))), "x is no UTF-8"),
    "twice the same field": (made(TOKENS), "says tokenizer.ggml.tokens twice"),
    "no architecture": (made(usual=USUAL[1:]), "does not name its architecture"),
    "no tokens": (made(usual=USUAL[:2]), "has no tokenizer.ggml.tokens: it is a part"),
    "no context": (made(usual=(USUAL[0], *USUAL[2:])), "has no llama.context_length"),
    "tokens that are numbers": (
        made(("tokenizer.ggml.tokens", ARRAY, array(I32, 1, bytes(4))), usual=(*USUAL[:2], *USUAL[3:])),
        "tokens is .*cannot be",
    ),
    "too few types": (
        made(("tokenizer.ggml.token_type", ARRAY, array(I32, 1, bytes(4)))),
        "each of 2 tokens",
    ),
    "merges that are numbers": (made(("tokenizer.ggml.merges", ARRAY, array(I32, 1, bytes(4)))), "merges is"),
    "a template that is a number": (made(("tokenizer.chat_template", U32, bytes(4))), "chat_template is 0"),
    "an end that is a text": (made(("tokenizer.ggml.eos_token_id", TEXT, text("a"))), "eos_token_id is 'a'"),
    "an alignment of zero": (made(("general.alignment", U32, bytes(4))), "alignment is 0"),
    "an odd alignment": (made(("general.alignment", U32, struct.pack("<I", 24))), "alignment is 24"),
    "no dimensions": (made(tensors=(tensor(shape=()),)), "has 0 dimensions"),
    "many dimensions": (made(tensors=(tensor(shape=(1,) * 5),)), "has 5 dimensions"),
    "a dimension of zero": (made(tensors=(tensor(shape=(32, 0)),)), "shape"),
    "a size that overflows": (made(tensors=(tensor(shape=(1 << 63, 2)),)), "the file is cut off"),
    "a place beyond the end": (made(tensors=(tensor(offset=1 << 62),)), "the file is cut off"),
    "a place between": (made(tensors=(tensor(offset=4),)), "should lie at"),
    "blocks that do not fit": (made(tensors=(tensor(shape=(33,), kind=8),)), "no blocks of 32"),
    "a format of tomorrow": (made(tensors=(tensor(kind=4000),)), "type 4000"),
    "one over the other": (
        made(tensors=(tensor("a"), tensor("b", offset=32))),
        "a and b lie over each other",
    ),
    "two of one name": (made(tensors=(tensor("a"), tensor("a", offset=128))), "two tensors of one name"),
    "cut off": (made()[:-200], "the file is cut off"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_named(name: str, tmp_path: Path) -> None:
    data, why = LIES[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    assert_cheap(lambda: refused(path, why))


def refused(path: Path, why: str) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        opened(path)
    assert str(path) in str(caught.value) and "-> get or make the file again" in str(caught.value)


def assert_cheap(work: Callable[[], Any]) -> None:
    """In a second of computing and 64 MB of memory, whatever a file of less than that claims."""
    began = time.process_time()
    tracemalloc.start()
    try:
        work()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 5


UNKNOWN: dict[str, tuple[bytes, str]] = {
    "a tokenizer of another kind": (
        made(("tokenizer.ggml.model", TEXT, text("rwkv")), usual=USUAL[:3]),
        r"tokenizer \(rwkv\) cannot be rebuilt",
    ),
    "a pre-tokenizer of tomorrow": (
        made(("tokenizer.ggml.pre", TEXT, text("new")), usual=USUAL[:4]),
        "'new' is none of those known here: qwen2",
    ),
    "merges of what is no token": (
        made(("tokenizer.ggml.merges", ARRAY, array(TEXT, 1, text("a c")))),
        "cannot be rebuilt",
    ),
    "a merge that is none": (
        made(("tokenizer.ggml.merges", ARRAY, array(TEXT, 1, text("ab")))),
        "cannot be rebuilt",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_tokenizer_that_cannot_be_rebuilt_is_named(name: str, tmp_path: Path) -> None:
    data, why = UNKNOWN[name]
    (tmp_path / "a.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=why):
        opened(tmp_path / "a.gguf")


def test_one_huge_token_takes_no_time(tmp_path: Path) -> None:
    pieces = (("tokenizer.ggml.model", TEXT, text("llama")), ("tokenizer.ggml.pre", TEXT, text("default")))
    tokens = ("tokenizer.ggml.tokens", ARRAY, array(TEXT, 2, text("a") + text("a" * (1 << 20))))
    (tmp_path / "a.gguf").write_bytes(made(tokens, *pieces, usual=USUAL[:2]))
    assert_cheap(lambda: opened(tmp_path / "a.gguf"))


def test_a_file_that_is_cut_off_anywhere(valid: Path, tmp_path: Path) -> None:
    """At the boundary of every field and tensor and beside it, and within the weights."""
    whole = valid.read_bytes()
    head = read.header(valid)
    places = {place for pair in head.places.values() for place in pair}
    places |= {tensor.offset for tensor in head.tensors} | {0, 4, 8, 16, 24, len(whole) // 2, len(whole) - 33}
    for length in sorted({max(0, place + by) for place in places for by in (-1, 0, 1)}):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"ends before|is cut off"):
            opened(tmp_path / "cut.gguf")


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_head_is_an_error_or_read(valid: Path, tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(valid.read_bytes())
    end = min(tensor.offset for tensor in read.header(valid).tensors)
    # Where sizes, types and counts lie more often than among the texts of tokens.
    starts = sorted({begin for begin, _ in read.header(valid).places.values()})
    near = st.tuples(st.sampled_from(starts), st.integers(-24, 24)).map(sum)
    where = st.one_of(st.integers(0, 64), near, st.integers(0, end - 1), st.integers(end - 900, end - 1))
    for place in data.draw(st.lists(where, min_size=1, max_size=3)):
        damaged[place] = data.draw(st.one_of(st.integers(0, 255), st.just(damaged[place] ^ 1)))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    began = time.process_time()
    try:
        opened(path)
    except ModelError as error:
        assert str(path) in str(error)
    assert time.process_time() - began < 5


WEIGHTS: dict[str, tuple[Callable[[list[dict[str, Any]]], None], str]] = {
    "another name": (lambda tensors: tensors[0].update(name="outpux.weight"), "wrong number of tensors"),
    "another shape": (lambda tensors: tensors[0].update(shape=tensors[0]["shape"][::-1]), "wrong shape"),
    "none at all": (lambda tensors: tensors.clear(), "missing tensor|not found"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit_are_llama_cpps_to_refuse(name: str, valid: Path, tmp_path: Path) -> None:
    """It does so in a process of its own, whose words are passed on."""
    whole, head = valid.read_bytes(), read.header(valid)
    end = max(end for _, end in head.places.values())
    tensors = [
        {"name": t.name, "shape": t.shape[::-1], "kind": t.type, "offset": t.offset} for t in head.tensors
    ]
    change, why = WEIGHTS[name]
    change(tensors)
    start = min(t.offset for t in head.tensors)
    infos = b"".join(tensor(**{**one, "offset": one["offset"] - start}) for one in tensors)
    front = whole[:8] + struct.pack("<Q", len(tensors)) + whole[16:end] + infos
    (tmp_path / "a.gguf").write_bytes(front + bytes(-len(front) % 32) + whole[start:])
    with pytest.raises(ModelError, match=f"(?s)llama.cpp cannot open it.*({why})"):
        ggufs.opened(tmp_path / "a.gguf")


def test_chat_says_what_is_wrong_with_a_file(
    valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(valid.read_bytes()[:-1000])
    assert cli.main(["chat", str(bad)]) == 1
    said = capsys.readouterr().err
    assert "bad.gguf" in said and "the file is cut off" in said and "Traceback" not in said
