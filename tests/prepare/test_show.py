"""`luthier data show`: marks, colours, a page, rows by number, filters, and blocks as training cuts them."""

from __future__ import annotations

import html.parser
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import chat
import tiny
from desk import Luthier, luthier, write
from luthier.config import Config
from luthier.data import blocks
from luthier.data.ledger import Ledger
from luthier.errors import UsageError
from luthier.prepare import show_screen
from luthier.prepare.show_rows import Look, Selection, visible
from luthier.types import BadRow, Example, Message

__all__ = ["luthier"]

WORDS = " ".join(f"w{k}" for k in range(60))
NASTY = "<script>alert(1)</script> [bold red]x[/] \x1b[31m \u202e \u200b {{ 7*7 }} &amp; 'q\" 龘"
MODEL = ["--model", "base", "--template", "chatml"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("show") / "base", "qwen3")


@pytest.fixture
def desk(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base").symlink_to(base)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row(question: str, answer: str = "yes") -> dict[str, str]:
    return {"instruction": question, "output": answer}


# --- what is shown


def test_what_is_cut_is_marked_where_it_was(luthier: Luthier, desk: Path) -> None:
    write(desk / "d.json", [row(WORDS), row("short")])
    code, out, err = luthier("data", "show", "d.json", *MODEL, "cutoff_len=60")
    head, *_ = out.splitlines()
    assert (code, head.startswith("--- d.json:1 (cut: ")) == (0, True)
    assert "\nw0 w1" in out and "w59<|im_end|>\n<|im_start|>assistant\n[[yes<|im_end|>]]\n" in out
    cut = out[out.index("[-") + 2 : out.index("-]")]
    assert cut in WORDS and "w30" in cut
    assert err.splitlines()[-1] == "1 of 2 rows: cut"
    _, out, _ = luthier("data", "show", "d.json", *MODEL, "cutoff_len=60", "--format", "json")
    first, second = map(json.loads, out.splitlines())
    assert [first["text"][a:b] for a, b in first["cut"]] == [cut]
    assert (first["flags"], "cut" in second, "flags" in second) == (["cut"], False, False)


def test_ids(luthier: Luthier, desk: Path) -> None:
    write(desk / "d.json", [row("q", "龘a")])
    _, out, _ = luthier("data", "show", "d.json", *MODEL, "--ids")
    assert "[[龘⟨‹e9›" in out and "‹be›" in out and "<|im_end|>⟨2⟩]]" in out
    _, out, _ = luthier("data", "show", "d.json", *MODEL, "--ids", "--format", "json")
    shown = json.loads(out)
    tokens = shown["tokens"]
    assert "".join(token["text"] for token in tokens) == shown["text"]
    assert tokens[-3:-1] == [
        {"text": "a", "ids": [tokens[-3]["ids"][0]], "kind": "trained"},
        {"text": "<|im_end|>", "ids": [2], "kind": "trained"},
    ]
    assert (tokens[-4]["text"], len(tokens[-4]["ids"])) == ("龘", 3)


def test_parts_of_a_row_that_is_split(luthier: Luthier, desk: Path) -> None:
    turns = [("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c"), ("assistant", "d")]
    write(desk / "d.json", [{"messages": [{"role": r, "content": c} for r, c in turns]}])
    words = ["data", "show", "d.json", "--model", "base", "--template", "qwen3", "history=as_template"]
    _, out, _ = luthier(*words, "--format", "json")
    shown = json.loads(out)
    learnt = [[part["text"][a:b] for a, b in part["trained"]] for part in shown["parts"]]
    assert len(shown["parts"]) == 2 and shown["text"] == shown["parts"][1]["text"]
    assert learnt[0][0].startswith("<think>\nhm") and learnt[1][0].endswith("d<|im_end|>")
    _, out, _ = luthier(*words)
    assert "--- part 1 of 2\n" in out and "--- part 2 of 2\n" in out


def test_a_row_that_training_drops_for_its_length_is_bad(luthier: Luthier, desk: Path) -> None:
    write(desk / "d.json", [row(WORDS), row("short")])
    code, out, err = luthier("data", "show", "d.json", *MODEL, "cutoff_len=60", "cutoff_policy=drop")
    assert code == 1
    assert out.startswith("--- d.json:1: cutoff_len: ") and "more than cutoff_len = 60\n--- d.json:2\n" in out
    assert err.splitlines()[-1] == "1 of 2 rows: bad"


# --- which rows


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [
        (["3"], [3]),
        (["2-4,9"], [2, 3, 4, 9]),
        (["d.json:5", "1"], [1, 5]),
        (["11-"], [11, 12]),
        (["10-99"], [10, 11, 12]),
    ],
)
def test_rows(luthier: Luthier, desk: Path, rows: list[str], numbers: list[int]) -> None:
    write(desk / "d.json", [row(f"q{k}") for k in range(1, 13)])
    code, out, _ = luthier("data", "show", "d.json", *rows, *MODEL, "--format", "json")
    assert code == 0
    assert [json.loads(line)["source"] for line in out.splitlines()] == [f"d.json:{k}" for k in numbers]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["400"], "no row 400; d.json has 12 rows, the last of them number 12 -> "),
        (["e.json:3"], "no row e.json:3; d.json has 12 rows"),
        (["13-20"], "no row 13-20; d.json has 12 rows"),
        (["x"], "x names no row -> 17, 3-7,12"),
        (["--only", "cuts"], "--only cuts -> one or more of no-trained-token"),
        (["--limit", "0"], "--limit 0 -> a number from 1, or all"),
        (["--html", "d.json"], "d.json is there already -> another name, or --overwrite"),
        (["--html", "no/p.html"], "no: no such directory"),
        (["--html", "p.html", "--format", "json"], "are two forms -> one of them"),
        (["--idz"], "--idz: no such option"),
    ],
)
def test_requests_that_make_no_sense(luthier: Luthier, desk: Path, words: list[str], said: str) -> None:
    write(desk / "d.json", [row(f"q{k}") for k in range(1, 13)])
    code, out, err = luthier("data", "show", "d.json", *MODEL, *words)
    assert (code, out, said in err, "Traceback" in err) == (2, "", True, False)
    assert not list(desk.glob("*.html"))


def test_reading_stops_behind_the_last_row_that_is_asked_for() -> None:
    rows = Selection.of(["2-3"])
    assert [rows.takes(f"d.json:{k}") for k in (1, 2)] == [False, True] and not rows.done
    assert rows.takes("d.json:3") and rows.done
    late = Selection.of(["2", "9-"])
    assert late.takes("f:2") and late.takes("f:9") and not late.done
    with pytest.raises(UsageError, match="names no row"):
        Selection.of(["3--4"])


def test_filters_and_limits(luthier: Luthier, desk: Path) -> None:
    rows = [row(WORDS), row("a"), {"instruction": "b"}, row(WORDS), row("c"), row(WORDS)]
    write(desk / "d.json", rows)
    words = ["data", "show", "d.json", *MODEL, "cutoff_len=60", "--format", "json"]
    code, out, err = luthier(*words, "--only", "cut", "--limit", "2")
    assert [json.loads(line)["source"] for line in out.splitlines()] == ["d.json:1", "d.json:4"]
    assert code == 1
    assert err.splitlines()[-2:] == [
        "3 of 6 rows: cut",
        "1 more not shown: --limit all, a ROW such as 3-7, "
        "or --only no-trained-token|end-of-turn-not-trained|cut|bad",
    ]
    _, out, _ = luthier(*words, "--only", "bad,cut")
    assert len(out.splitlines()) == 4
    code, out, err = luthier(*words[:-2], "--limit", "2")
    assert (code, out.count("--- d.json")) == (1, 2)
    assert "1 of 2 rows: cut\n4 more not shown (1 of them cannot be used): " in err


def test_rows_that_teach_nothing(luthier: Luthier, desk: Path) -> None:
    asked, told = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}
    rows = [[asked, told], [asked, told, asked, {**told, "weight": 0}]]
    write(desk / "d.json", [{"conversations": turns} for turns in rows])
    code, out, err = luthier(
        "data", "show", "d.json", *MODEL, "mask_history=true", "--only", "no-trained-token"
    )
    head, *_ = out.splitlines()
    assert (code, head) == (0, "--- d.json:2 (nothing in it is trained: training leaves it out)")
    assert "[[" not in out and err.splitlines()[-1] == "1 of 2 rows: no-trained-token"


# --- documents


@pytest.mark.parametrize("packing", [True, False])
def test_block_ends_are_those_of_training(packing: bool) -> None:
    made = chat.renderer(chat.CHATML)
    texts = ["one two three " * 9, "你好" * 5, "x", "龘" * 30, "y" * 17]
    rows = [Example((), ((Message("text", t),),), source=f"t.txt:{k}") for k, t in enumerate(texts, 1)]
    size, ledger = 24, Ledger("t")
    documents = [parts[0] for parts in made.examples(rows) if not isinstance(parts, BadRow)]
    lengths = [len(block.branches[0]) for block in blocks.chop(documents, size, packing, ledger)]
    seen = list(Look(made, Config(cutoff_len=size, packing=packing), "pt").at(rows))
    found, held = [], 0
    for one in seen:
        length = one.counts()["trained"] + one.counts()["masked"]
        for start, end in zip([-held, *one.ends], one.ends, strict=False):
            found.append(end - start)
        rest = length - one.ends[-1] if one.ends else length + held
        held = rest if packing else 0
        found += [rest] if rest and not packing else []
    found += [held] if held else []
    assert found == lengths
    assert sum(one.counts()["cut"] for one in seen) == ledger.cut


def test_where_blocks_end(luthier: Luthier, desk: Path) -> None:
    (desk / "t.txt").write_text("one two\nHello, how are you? I am fine\n", encoding="utf-8")
    words = ["data", "show", "t.txt", "--model", "base", "cutoff_len=8"]
    _, out, _ = luthier(*words)
    assert "<< a block ends here >>" in out and out.replace("<< a block ends here >>", "").count("[[") >= 2
    both = [json.loads(line) for line in luthier(*words, "--format", "json").out.splitlines()]
    alone = json.loads(luthier(*words, "2", "--format", "json").out)
    assert alone == both[1] and alone["block_ends"]  # the row before it decides


# --- a terminal and a page


def test_colours(luthier: Luthier, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(desk / "d.json", [row(f"q{k} [bold]x[/bold]") for k in range(12)])
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    _, out, err = luthier("data", "show", "d.json", *MODEL)
    assert "\x1b[" in out and "[[" not in out and out.count("tokens = ") == 10
    assert "[bold]" in out.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert err.splitlines()[-1].startswith("2 more not shown: --limit all")
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, _ = luthier("data", "show", "d.json", *MODEL)
    assert "\x1b" not in out and out.count("[[yes<|im_end|>]]") == 10


def test_pairs_stand_side_by_side_where_there_is_room() -> None:
    made = chat.renderer(chat.CHATML)
    ends = tuple((Message("assistant", end, 1.0),) for end in ("good", "bad"))
    look = Look(made, Config(), "rm")
    for width, together in ((100, True), (60, False)):
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True, color_system=None, width=width)
        for seen in look.at([Example((Message("user", "which?"),), ends, source="p.json:1")]):
            show_screen.Screen(console, False).row(seen, made)
        lines = stream.getvalue().splitlines()
        assert sum("which?" in line for line in lines) == 1
        assert any("good" in line and "bad" in line for line in lines) == together


class Reader(html.parser.HTMLParser):
    """Tags, and the text inside them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_holds_texts_of_strangers_as_text(luthier: Luthier, desk: Path) -> None:
    rows = [{"instruction": NASTY, "chosen": NASTY, "rejected": "no"}, {"instruction": "<b>", "chosen": 1}]
    write(desk / "<b>.json", rows)
    code, out, _ = luthier("data", "show", "<b>.json", *MODEL, "--html", "p.html", "cutoff_len=4096")
    assert (code, out) == (1, "p.html\n")
    page = (desk / "p.html").read_text(encoding="utf-8")
    found = Reader(page)
    assert not {"script", "img", "link", "iframe", "a"} & {*found.tags}
    assert found.text.count(visible(NASTY)) == 2 and "‹U+001B›" in found.text and "{{ 7*7 }}" in found.text
    assert "\x1b" not in page and "\u202e" not in page
    assert "chosen" in found.text and "rejected" in found.text and found.tags.count("section") == 2
    assert '<b title="2">&lt;|im_end|&gt;</b>' in page
    before = page
    assert luthier("data", "show", "<b>.json", *MODEL, "--html", "p.html").code == 2
    assert (desk / "p.html").read_text(encoding="utf-8") == before
    assert luthier("data", "show", "<b>.json", "2", *MODEL, "--html", "p.html", "--overwrite").code == 1
    assert Reader((desk / "p.html").read_text(encoding="utf-8")).tags.count("section") == 1


def test_long_runs_are_drawn_without_their_middle() -> None:
    made = chat.renderer(chat.CHATML, cutoff_len=100)
    [seen] = Look(made, Config(), "sft").at([chat.example(chat.say("word " * 3000, "yes"))])
    text = show_screen.plain(seen, made, False)
    assert " cut tokens … >>" in text and len(text) < 5000
    assert len(show_screen.as_dict(seen, made, False)["text"]) > 15000
    document = Example((), ((Message("text", "a\n" * 20_000),),), source="t.txt:1")
    [seen] = Look(made, Config(cutoff_len=64), "pt").at([document])
    [part] = seen.drawn(made)
    [remark] = [item for item in part.branches[0] if isinstance(item, str) and "block" not in item]
    shown = sum(len(item.ids) for item in part.branches[0] if not isinstance(item, str))
    gone = int(remark.split()[1].replace(",", ""))
    assert (shown + gone, remark) == (40_001, f"… {gone:,} tokens …")


def test_help(luthier: Luthier) -> None:
    code, out, _ = luthier("data", "show", "--help")
    assert code == 0 and out.startswith("usage: luthier data show FILE|DATASET [ROW ...] --model DIR|RUN")
    code, out, _ = luthier("data", "--help")
    assert code == 0 and all(f"\n  {verb} " in out for verb in ("show", "check", "clean", "split", "convert"))
