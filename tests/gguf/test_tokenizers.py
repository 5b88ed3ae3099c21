"""What transformers makes of a text, llama.cpp makes of it: real tokenizers, learnt ones, random texts."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ggufs
from ggufs import END, PIECES, Pair, added, written
from luthier.errors import ExportError
from luthier.gguf import pretokenizers, vocabulary
from luthier.gguf import tokenizer as rebuilt

SHARED = Path(__file__).parents[3] / "shared" / "tokenizers"
PUBLISHED = sorted(SHARED.glob("*.gguf"))
OLD = unicodedata.ucd_3_2_0


def settled(letter: str) -> bool:
    """Whether both libraries' Unicode knows it. (?i:'s) takes ſ for an s, which llama.cpp does not."""
    return OLD.category(letter) != "Cn" and letter != "ſ"


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(PIECES), st.characters(exclude_categories=("Cs", "Cn")).filter(settled), st.just(END)
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, Path], Pair]]:
    """Opens a tokenizer once and keeps it for all tests; by name."""
    kept: dict[str, Pair] = {}

    def opened(name: str, tokenizer: Path) -> Pair:
        if name not in kept:
            kept[name] = Pair(tmp_path_factory.mktemp("pair"), tokenizer)
        return kept[name]

    yield opened
    for pair in kept.values():
        pair.served.close()


# --- real ones


@pytest.mark.parametrize("source", PUBLISHED, ids=lambda path: path.stem)
def test_a_real_vocabulary_gives_the_published_ids(source: Path, tmp_path: Path) -> None:
    """GGUF -> tokenizer of transformers -> its files -> our GGUF -> llama.cpp."""
    made = rebuilt.tokenizer(source)
    made.save_pretrained(tmp_path / "tokenizer")
    pair = Pair(tmp_path, tmp_path / "tokenizer")
    asked = Path(f"{source}.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    wanted = [[int(i) for i in line.split()] for line in Path(f"{source}.out").read_text().splitlines()]
    with pair.served as served:
        found = [served.tokenize(text) for text in asked[: len(wanted)]]
    assert found == wanted and len(wanted) > 40
    assert [pair.hf.encode(text, add_special_tokens=False) for text in asked[: len(wanted)]] == wanted


# --- byte-level


@pytest.fixture(scope="module")
def joined() -> dict[str, Any]:
    return ggufs.uncut()


def byte_level(told: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer cutting as a row of pretokenizers.yaml says."""
    model = told["model"]
    merges = [pair for pair in model["merges"] if not re.search(row.get("whole", "^$"), "".join(pair))]
    cutting = json.loads(rebuilt._cutting(row["pieces"]).__getstate__())
    return {
        **told,
        "model": {**model, "merges": merges, "ignore_merges": bool(row.get("ignore_merges"))},
        "pre_tokenizer": cutting,
    }


def told_otherwise(name: str, text: str) -> bool:
    """What the note of a row says that llama.cpp cuts otherwise."""
    if name in ("gpt-4o", "tekken"):
        return any(unicodedata.category(c)[0] == "M" or (c > "\x7f" and c.lower() != c.upper()) for c in text)
    if name == "deepseek-llm" and any(a.isnumeric() and b.isnumeric() for a, b in pairwise(text)):
        return not text.isascii()  # digits of other scripts in a row are not cut apart there
    return name.startswith(("deepseek-llm", "deepseek-coder")) and any(
        c > "\x7f" and c.isspace() for c in text
    )


@pytest.mark.parametrize("row", pretokenizers.rows(), ids=lambda row: row["name"])
def test_random_texts_are_cut_alike(
    row: dict[str, Any], joined: dict[str, Any], pairs: Any, tmp_path: Path
) -> None:
    name = row["name"]
    pair = pairs(name, written(tmp_path, byte_level(joined, row)))
    assert pair.head.metadata["tokenizer.ggml.pre"] == name
    assert any(row["note"] in line for line in pair.said) if "note" in row else not pair.said

    @settings(max_examples=60, deadline=None)
    @given(TEXTS)
    def same(text: str) -> None:
        if not told_otherwise(name, text):
            pair.compare(text)

    same()


def test_a_way_of_cutting_is_never_taken_for_another(joined: dict[str, Any]) -> None:
    """The random texts can tell all rows apart, so each is what llama.cpp has under its name."""
    from tokenizers import Tokenizer

    texts = [a + b for a in PIECES for b in PIECES]
    found: dict[str, set[str]] = {}
    for row in pretokenizers.rows():
        made = Tokenizer.from_str(json.dumps(byte_level(joined, row)))
        ids = json.dumps([one.ids for one in made.encode_batch(texts)])
        found.setdefault(ids, set()).add(row["name"])
    together = sorted(map(sorted, (names for names in found.values() if len(names) > 1)))
    assert together == [["dbrx", "llama-bpe"]], "these differ in merges, not in cutting"


UNKNOWN = {
    "another regex": {
        "type": "Split",
        "pattern": {"Regex": r"\w+|\s+"},
        "behavior": "Isolated",
        "invert": False,
    },
    "a blank before": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True},
    "pairs of digits": {"type": "Digits", "individual_digits": False},
    "no cutting": None,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_way_of_cutting_is_refused(name: str, joined: dict[str, Any]) -> None:
    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    parts = [part for part in (UNKNOWN[name], last) if part]
    with pytest.raises(ExportError, match=r"no pre-tokenizer that cuts as.*none of qwen2.*--to hf"):
        pretokenizers.named({**joined, "pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}})


def test_a_word_that_is_a_token_needs_merges_or_the_right_name(joined: dict[str, Any]) -> None:
    """A token that no merge reaches is found by ignoring merges only, which llama.cpp does for some names."""
    row = pretokenizers.row("qwen2")
    assert row is not None
    told = byte_level(joined, dict(row))
    ignoring = {**told, "model": {**told["model"], "ignore_merges": True}}
    assert pretokenizers.named(ignoring)[0] == "qwen2"
    ignoring["model"]["vocab"] = {**told["model"]["vocab"], "unreachable": 5000}
    with pytest.raises(ExportError, match="words that are tokens unmerged"):
        pretokenizers.named(ignoring)


def test_digits_that_llama_cpp_would_join_are_refused(joined: dict[str, Any]) -> None:
    row = pretokenizers.row("deepseek-llm")
    assert row is not None
    told = {**byte_level(joined, dict(row)), "model": joined["model"]}
    with pytest.raises(ExportError, match="would make the token '23'"):
        pretokenizers.named(told)


# --- SentencePiece


@pytest.fixture(scope="module")
def pieces() -> dict[str, Any]:
    """SentencePiece as the tokenizers library keeps it: every way to make a token is a merge, best first."""
    from tokenizers import Tokenizer, models, trainers

    learnt = Tokenizer(models.BPE())
    texts = [
        "▁" + (a + " " + b).replace(" ", "▁") for a in PIECES for b in PIECES if not {a, b} & {"<s>", "\0"}
    ]
    learnt.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1500, show_progress=False))
    first = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    told = json.loads(learnt.to_str())["model"]
    ranked = ["".join(pair) for pair in told["merges"]]
    plain = [*dict.fromkeys(ranked), *(text for text in told["vocab"] if len(text) == 1)]
    known = set(plain)
    merges = [
        [text[:i], text[i:]]
        for text in dict.fromkeys(ranked)
        for i in range(1, len(text))
        if text[:i] in known and text[i:] in known
    ]
    vocab = {text: i for i, text in enumerate([*first, *plain])}
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "<unk>", "byte_fallback": True}
    return {
        "version": "1.0",
        "added_tokens": [added(i, text) for i, text in enumerate(first[:3])],
        "normalizer": None,
        "model": {**model, "fuse_unk": True},
    }


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}
BLANKS = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def metaspace(scheme: str, split: bool = False) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


SENTENCEPIECE: dict[str, tuple[Any, Any, Callable[[str], str]]] = {
    "prepended": (PREPEND, None, str),
    "never": (None, metaspace("never"), str),
    "as gemma": (REPLACE, BLANKS, str),
    "always": (
        None,
        metaspace("always"),
        lambda text: text.lstrip(" ▁").replace("<s> ", "").replace("<s>▁", ""),
    ),
    "first, in a chat": (None, metaspace("first"), lambda text: "<s>" + text),
}
"""normalizer, pre-tokenizer, and the texts for which llama.cpp does the same (a note says which are not)."""


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_random_texts_are_joined_alike(name: str, pieces: dict[str, Any], pairs: Any, tmp_path: Path) -> None:
    normalizer, cutting, like = SENTENCEPIECE[name]
    told = {**pieces, "normalizer": normalizer, "pre_tokenizer": cutting}
    pair = pairs(name, written(tmp_path, told, eos_token="</s>", bos_token="<s>", unk_token="<unk>"))
    assert bool(pair.said) == (name in ("always", "first, in a chat"))

    @settings(max_examples=100, deadline=None)
    @given(TEXTS)
    def same(text: str) -> None:
        pair.compare(like(text))

    same()


NOT_SENTENCEPIECE: dict[str, tuple[dict[str, Any], str]] = {
    "learnt as pairs": ({"merges": "first pair of each"}, "would join"),
    "cut at blanks": ({"pre_tokenizer": metaspace("always", split=True)}, "no Metaspace"),
    "other normalizer": ({"normalizer": {"type": "NFKC"}}, "no NFKC"),
    "other replacement": ({"normalizer": {**REPLACE, "content": "_"}}, "no Replace"),
    "blanks kept": ({"normalizer": None, "pre_tokenizer": None}, "blanks as ▁"),
    "no bytes": ({"byte_fallback": False}, "neither byte-level nor SentencePiece"),
}


@pytest.mark.parametrize("name", NOT_SENTENCEPIECE)
def test_what_sentencepiece_does_not_is_refused(name: str, pieces: dict[str, Any], tmp_path: Path) -> None:
    change, why = NOT_SENTENCEPIECE[name]
    told = json.loads(json.dumps({**pieces, "normalizer": PREPEND, "pre_tokenizer": None}))
    if "merges" in change:
        only = {"".join(pair): pair for pair in reversed(told["model"]["merges"])}
        told["model"]["merges"] = [pair for pair in told["model"]["merges"] if only["".join(pair)] == pair]
    elif "byte_fallback" in change:
        told["model"]["byte_fallback"] = False
    else:
        told |= change
    with pytest.raises(ExportError, match=why):
        vocabulary.read(written(tmp_path, told, eos_token="</s>"), 3000, None)
