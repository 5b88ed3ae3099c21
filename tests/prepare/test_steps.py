"""Cleaning steps, each with the pitfall that it must avoid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from luthier.errors import LuthierError, UsageError
from luthier.prepare import steps
from luthier.prepare.span import revert
from luthier.prepare.steps import STEPS, Outcome, load
from luthier.prepare.steps.duplicates import Texts
from luthier.types import BadRow, Example, Message, ToolCall

# Texts that every step that is on leaves as they are.
HARMLESS = [
    "",
    "体育",
    "42",
    "你好，世界！（测试）——“引用”……",
    "if a < b and c > d: return List<String>",
    "<think>先想一想</think>答案是 A。",
    "```html\n<p>x &amp; y</p>\n```",
    "| a | b |\n| --- | --- |\n| 1 | 2 |",
    "- one\n- two\n- three\n- four\n- five",
    "Order 13812345678, ISBN 978-7-111-40701-0, v1.2.3.4, 2024-05-14",
    "AT&T and R&D",
    "x² + y² ≤ ½",
    "naïve café — “ok”",
]


def run(name: str, text: str, **options: object) -> Outcome:
    return load(name)(text, **options)


def test_table() -> None:
    for name, row in STEPS.items():
        assert callable(load(name)) and "Pitfall" in (load(name).__doc__ or ""), name
        assert row.what
    with pytest.raises(UsageError, match="dedup"):
        load("dedup")


@pytest.mark.parametrize("text", HARMLESS)
def test_usual_steps_leave_good_text_alone(text: str) -> None:
    for name, row in STEPS.items():
        if row.on and row.takes == "text" and not (name == "quality_filter" and not text):
            made = run(name, text)
            assert (made.text, made.changes) == (text, ()), name


@pytest.mark.parametrize("name", [name for name, row in STEPS.items() if row.takes == "text"])
def test_changes_lead_back(name: str) -> None:
    text = "<p>The Cats were ｎｏｔ here，電話 13800138000，“café” cafÃ©!</p>"
    made = run(name, text)
    if made.text is not None:
        assert revert(made.text, list(made.changes)) == text
        assert (made.text == text) == (not made.changes) == (not made.counts)
        assert bool(made.reason) >= bool(made.changes)


# -- HTML


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<b>粗体</b>和<i>斜体</i>", "粗体和斜体"),
        ("<script>alert(1)</script>text<style>p{}</style>", "text"),
        ("<ul><li>x</li><li>y</li></ul>", "- x\n- y"),
        ('see <a href="http://x.org">here</a>', "see here"),
        ('<img src="a.png" alt="a cat"> sits', "a cat sits"),
        ("Tom &amp; Jerry&nbsp;!", "Tom & Jerry\xa0!"),
        ("<!-- hidden -->shown", "shown"),
        ("<p>a < b, List<String>, <think>x</think></p>", "a < b, List<String>, <think>x</think>"),
        ("<p>use <code>x &lt; y</code></p>", "use `x < y`"),
        (
            '<pre><code class="language-py">if a:\n\n\n    b &lt; c</code></pre>',
            "```py\nif a:\n\n\n    b < c\n```",
        ),
        (
            "<table><tr><th>名</th><th>值</th></tr><tr><td>a</td><td>1 <b>x</b></td></tr></table>",
            "| 名 | 值 |\n| --- | --- |\n| a | 1 x |",
        ),
        ("<p>x</p>\n```html\n<p>kept &amp;</p>\n```\n<p>y</p>", "x\n\n```html\n<p>kept &amp;</p>\n```\n\ny"),
        ("<p>`<b>` is bold</p>", "`<b>` is bold"),
        ("<div><p>unclosed <b>x", "unclosed x"),
        ("<script>```code```</script><p>`b`</p>", "`b`"),
    ],
)
def test_html(text: str, new: str) -> None:
    made = run("html_removal", text)
    assert made.text == new and made.changes and revert(new, list(made.changes)) == text


def test_html_options() -> None:
    table = "<table><tr><td>a</td><td>b</td></tr></table><pre>x\n y</pre>"
    assert run("html_removal", table, tables=False, code=False).text == "a\tb\tx\n y"
    note = '<?xml version="1.0"?><note><to>Tove</to></note>'
    assert run("html_removal", note, xml_tags=["note", "to"]).text == "Tove"
    assert run("html_removal", "<note>x</note>").text == "<note>x</note>"


@pytest.mark.parametrize(
    "text", ["<p>" * 20000, "<!--" * 20000, "<b " * 20000, "<table><tr><td>" * 3000 + "x"]
)
def test_hostile_html_ends(text: str) -> None:
    assert run("html_removal", text).text is not None


# -- filters


def test_quality_filter() -> None:
    loop = "我很抱歉，我不能回答这个问题。" * 8
    assert "loop" in run("quality_filter", loop).reason
    assert run("quality_filter", "■□◆◇" * 20).text is None
    assert run("quality_filter", "短", shortest=2).reason == "1 characters < 2"
    assert run("quality_filter", "x" * 9, longest=8).reason == "9 characters > 8"
    assert (
        run("quality_filter", "Это русский текст", languages=["zh", "en"]).reason
        == "language ru, not zh or en"
    )
    assert run("quality_filter", "42", languages=["zh"]).text == "42"
    assert run("quality_filter", "字", languages=["en"], detector=lambda _: "en").text == "字"
    assert run("quality_filter", "Aa1 " * 40, rules={"digits": 0.1}).text is None
    with pytest.raises(UsageError, match="gofer"):
        run("quality_filter", "x", rules="gofer")


def test_gopher_is_for_documents() -> None:
    lines = "\n".join(f"- item number {word}" for word in "one two three four five six seven".split())
    assert run("quality_filter", lines).text == lines
    assert "lines_with_bullets" in run("quality_filter", lines, rules="gopher").reason


def test_content_filter(tmp_path: Path) -> None:
    text = "去死吧，你这个人"
    made = run("content_filter", text)
    assert made.text == text and [found.kind for found in made.suggested] == ["self_harm"]
    assert "去死" not in made.suggested[0].shown
    assert run("content_filter", text, drop=True).text is None
    assert run("content_filter", "如何预防自杀？请拨打热线。").suggested == ()
    assert run("content_filter", "Skyscrapers and kysely").suggested == ()
    mine = tmp_path / "lists.yaml"
    mine.write_text("rivals: [Acme, '/弗兰克.{0,2}公司/']\n", encoding="utf-8")
    assert run("content_filter", "acme 和弗兰克的公司", lists=str(mine)).reason == "rivals"
    assert run("content_filter", "acmeology", lists=str(mine)).suggested == ()
    scored = run("content_filter", "x", classifier=lambda _: {"toxic": 0.95, "spam": 0.1})
    assert [(found.kind, found.shown) for found in scored.suggested] == [("toxic", "classifier: 0.95")]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("[a]", "no mapping"),
        ("a: b", "a: no list"),
        ("a: ['/(/']", "a:1"),
        ("a: [1]", "a:1"),
        ("a: [", "lists.yaml"),
    ],
)
def test_content_lists_that_cannot_be_used(tmp_path: Path, written: str, says: str) -> None:
    mine = tmp_path / "lists.yaml"
    mine.write_text(written, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        run("content_filter", "x", lists=str(mine))


# -- words


def test_lowercasing() -> None:
    assert run("lowercasing", "US Army and `Code` 中文", keep=["US"]).text == "US army and `Code` 中文"


def test_punctuation() -> None:
    assert run("punctuation_removal", "“It’s” — fine…").text == '"It\'s" - fine...'
    assert run("punctuation_removal", "他说：“好”——……").text == "他说：“好”——……"
    assert run("punctuation_removal", "3.14, yes! `a.b`", mode="remove").text == "3.14 yes `a.b`"
    assert run("punctuation_removal", "why? no!", mode="remove", keep="?").text == "why? no"
    with pytest.raises(UsageError, match="all"):
        run("punctuation_removal", "x", mode="all")


def test_stop_words() -> None:
    assert run("stop_word_removal", "The cat is not on the mat").text == "cat not mat"
    assert run("stop_word_removal", "我们的目的不是钱", language="zh").text == "目的不是钱"
    with pytest.raises(UsageError, match="fr"):
        run("stop_word_removal", "x", language="fr")


def test_lemmatization() -> None:
    assert run("lemmatization", "the cats were running, 猫").text == "the cat be run, 猫"
    with pytest.raises(UsageError, match="xx"):
        run("lemmatization", "cats", language="xx")


def test_spelling_only_suggests() -> None:
    text = "I recieve the mesage from luthier about `recieve` and Qwen"
    made = run("spelling", text, known=["luthier"])
    assert made.text == text and not made.changes
    assert [found.shown for found in made.suggested] == ["recieve → receive?", "mesage → message?"]
    with pytest.raises(UsageError, match="xx"):
        run("spelling", "word", language="xx")


# -- encodings, Chinese, privacy


def test_chinese_conversion() -> None:
    assert run("chinese_conversion", "電腦軟體與頭髮").text == "电脑软体与头发"
    assert run("chinese_conversion", "軟體", direction="tw2sp").text == "软件"
    assert run("chinese_conversion", "头发和发展", direction="s2t").text == "頭髮和發展"
    assert run("chinese_conversion", "日本語の學習").text == "日本語の學習"
    with pytest.raises(UsageError, match="t2x"):
        run("chinese_conversion", "x", direction="t2x")


def test_encoding_repair() -> None:
    assert run("encoding_repair", "cafÃ© 浣犲ソ").text == "café 你好"
    lost = run("encoding_repair", "你\ufffd好")
    assert lost.text == "你\ufffd好" and [found.kind for found in lost.suggested] == ["lost"]
    assert run("encoding_repair", "你\ufffd好", drop_lost=True).text is None


def test_privacy() -> None:
    assert run("pii_anonymization", "13800138000").reason == "phone x 1"
    assert run("pii_anonymization", "13800138000", mode="fake", key="k").text[:3] == "154"
    with pytest.raises(UsageError, match="key"):
        run("pii_anonymization", "x", mode="fake")
    with pytest.raises(UsageError, match="hide"):
        run("pii_anonymization", "x", mode="hide")


# -- rows


def _example(question: str, answer: str, source: str = "a.json:1") -> Example:
    return Example((Message("user", question),), ((Message("assistant", answer, 1.0),),), source=source)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (_example("q", "a"), ""),
        (_example("q", "无"), ""),
        (_example("q", " \n"), "empty answer"),
        (_example("q", "\u200b"), "empty answer"),
        (_example("", "a"), "empty prompt"),
        (Example((Message("system", ""), Message("user", "q")), ((Message("assistant", "a"),),)), ""),
        (
            Example((Message("system", "s"), Message("user", "")), ((Message("assistant", "a"),),)),
            "empty user message",
        ),
        (Example((), ((Message("text", "document", 1.0),),)), ""),
        (Example((), ((Message("text", "", 1.0),),)), "empty answer"),
        (
            Example((Message("user", "q"),), ((Message("assistant", "a"),), (Message("assistant", ""),))),
            "empty answer 2",
        ),
        (
            Example((Message("user", "q"),), ((Message("assistant", "", 1.0, (ToolCall("f", {}),)),),)),
            "",
        ),
        (Example((Message("user", "q"),), answer=""), "empty answer"),
    ],
)
def test_missing_text(example: Example, reason: str) -> None:
    made = load("missing_text")(example)
    assert (made.text is not None, made.reason) == (not reason, reason)


def test_missing_words() -> None:
    assert load("missing_text")(_example("q", "N/A"), words=True).reason == "empty answer"
    assert load("missing_text")(_example("q", "a"), system=True).reason == "no system prompt"


@pytest.mark.parametrize(
    ("reason", "missing"),
    [
        ("empty answer", True),
        ("missing; the row has instruction", True),
        ('missing; did you mean "output"?', False),
        ("is a list, not text", False),
    ],
)
def test_rows_that_mean_nothing(reason: str, missing: bool) -> None:
    """What a renamed column would mend is not thrown away, unless somebody asks for it."""
    bad = BadRow("a.json:1", "output", reason)
    assert (load("missing_text")(bad).text is None) == missing
    assert load("structure")(bad).reason == f"output: {reason}"
    assert load("structure")(_example("q", "")).text is not None


# -- all rows at once

LONG = "Gradient checkpointing trades computing time for memory: activations are computed again going back."


def _gone(*rows: Example, reviewed: tuple[object, ...] = (), **options: object) -> dict[str, str]:
    texts = Texts()
    for i, row in enumerate(rows):
        texts.add(row, reviewed[i] if reviewed else None)
    found: dict[str, str] = load("deduplication")(texts, None, **options)
    return found


def test_deduplication_keeps_the_best() -> None:
    rows = [
        _example("What is it?", text, f"a:{i}") for i, text in enumerate([LONG, LONG + "  ", LONG.upper()])
    ]
    assert _gone(*rows) == {"a:0": "copy of a:1", "a:2": "copy of a:1"}
    assert _gone(*rows, reviewed=("no", "", "Lily")) == {"a:0": "copy of a:2", "a:1": "copy of a:2"}


def test_near_duplicates() -> None:
    question = "How does gradient checkpointing save memory when a long sequence is trained?"
    rows = [_example(question, LONG, "a:0"), _example(question.replace("does", "dose"), LONG, "a:1")]
    assert list(_gone(*rows)) == ["a:1"] and "near-copy of a:0" in _gone(*rows)["a:1"]
    assert _gone(*rows, near=False) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_example(LONG, "sports"), _example(LONG, "finance")),  # a contradiction, not a copy
        (_example("hi", LONG), _example("hello", LONG)),  # two questions, one answer
        (_example(LONG, "It has 12 layers."), _example(LONG, "It has 13 layers.")),
        (_example("Who?", LONG), _example("Who?", "Attention reads all tokens before it, weighted by keys.")),
        (
            Example((Message("system", "Be terse"), Message("user", LONG)), ((Message("assistant", "a"),),)),
            Example((Message("system", "Be rude"), Message("user", LONG)), ((Message("assistant", "a"),),)),
        ),
        (
            Example((Message("user", "q"),), ((Message("assistant", LONG),),), True),
            Example((Message("user", "q"),), ((Message("assistant", LONG),),), False),
        ),
        (
            Example((Message("user", "q"),), ((Message("assistant", LONG),), (Message("assistant", "b"),))),
            Example((Message("user", "q"),), ((Message("assistant", "b"),), (Message("assistant", LONG),))),
        ),
    ],
    ids=["label", "question", "number", "answer", "system", "verdict", "preference"],
)
def test_what_is_no_copy(one: Example, other: Example) -> None:
    assert _gone(replace(one, source="a:0"), replace(other, source="a:1")) == {}


def test_leakage_compares_questions() -> None:
    ours, theirs = Texts(), Texts()
    for row in (_example(LONG, "x", "train:1"), _example("Something else entirely, is it?", "x", "train:2")):
        ours.add(row)
    theirs.add(_example(LONG + "!", "y", "eval:7"))
    found = load("leakage")(ours, {"eval.json": theirs}.__getitem__, not_in="eval.json")
    assert list(found) == ["train:1"] and "eval:7" in found["train:1"]
    with pytest.raises(UsageError, match="--not-in"):
        load("leakage")(ours, None)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that cannot be imported; None in sys.modules is how Python says so."""
    import sys

    from luthier.prepare.steps import chinese

    chinese._converter.cache_clear()
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(LuthierError, match=r'pip install "luthier\[data\]"'):
        run("chinese_conversion", "電腦")
    assert steps.STEPS
