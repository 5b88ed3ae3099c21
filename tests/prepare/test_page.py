import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.pages import base, plots
from luthier.prepare import page
from luthier.prepare.checks import CHECKS
from luthier.prepare.report import Finding, Report
from luthier.types import BadRow
from reading import EVIL, Read, drawings


def report(*findings: Finding, rows: int = 10, **more: Any) -> Report:
    return Report("train.json", rows, more.pop("rejected", []), list(findings), **more)


def finding(**more: Any) -> Finding:
    return Finding(**{"check": "outliers", "severity": "warning", "what": "something", **more})


def test_texts_of_strangers_are_only_text() -> None:
    everywhere = Report(
        EVIL,
        3,
        [BadRow(EVIL, EVIL, EVIL)],
        [
            Finding(
                EVIL, "error", EVIL, [f"{EVIL}:7"], 1, EVIL, [EVIL], {EVIL: EVIL, "counts": {EVIL: 1, "b": 2}}
            ),
            finding(
                figures={EVIL: {EVIL: {EVIL: 1.5}}, "openings": [[EVIL, 0.5]], "pairs": [[EVIL, EVIL, 2]]}
            ),
        ],
        [EVIL],
        {EVIL: EVIL},
    )
    read = Read(page.page(everywhere))
    assert not read.tags() & {"script", "img", "iframe", "object", "link", "form", "input", "base"}
    for _, attributes in read.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "style", "srcdoc")
        ]
        assert (attributes.get("href") or "#").startswith("#")
    assert read.said.count("{{7*7}}&amp;' javascript:alert(3)") >= 12


def test_the_page_needs_nothing_from_anywhere_and_says_so() -> None:
    text = page.page(report(finding()))
    assert set(re.findall(r"https?://[^\"' <]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text and "url(" not in text
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text


def test_links_lead_somewhere() -> None:
    read = Read(page.page(report(finding(), finding(severity="note"), finding(severity="error"))))
    links = [a["href"] for tag, a in read.elements if tag == "a"]
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert links == ["#f1", "#f2", "#f3"] and ids == ["f1", "f2", "f3"]


def test_the_gravest_come_first() -> None:
    read = Read(
        page.page(report(finding(what="B"), finding(severity="note", what="C"), finding(severity="error")))
    )
    places = [read.said.index(word) for word in ("Errors", "Warnings", "Notes")]
    assert places == sorted(places)
    assert Read(page.page(report())).tags().isdisjoint({"article", "nav", "h2"})


@pytest.mark.parametrize(
    ("severities", "en", "zh"),
    [
        (["error", "error", "note"], "Not ready to train on: 2 errors to mend first.", "请先修正 2 项错误"),
        (["warning", "note"], "Can be trained on, but read 1 warning first.", "请先阅读 1 项警告"),
        (["note", "note"], "Ready to train on: nothing but 2 notes.", "只有 2 项提示"),
        ([], "Nothing was found.", "未发现任何问题。"),
    ],
)
def test_the_verdict_in_one_sentence(severities: list[str], en: str, zh: str) -> None:
    found = report(*(finding(severity=severity) for severity in severities))
    assert en in Read(page.page(found)).said
    assert zh in Read(page.page(found, "zh")).said
    assert 'lang="zh-CN"' in page.page(found, "zh")


def test_a_set_without_a_usable_row() -> None:
    found = report(rows=1, rejected=[BadRow("train.json:1", "output", "is empty")])
    said = Read(page.page(found)).said
    assert "No row can be used." in said
    assert re.search(r"1 row = 0 kept \+ 1\s+rejected", said)
    assert "train.json:1" in said and "is empty" in said


def test_rows_name_their_file_once() -> None:
    rows = [f"a.json:{i}" for i in range(1, 51)] + ["b.json:3", "odd"]
    said = Read(page.page(report(finding(rows=rows)))).said
    assert "a.json 1, 2, 3, " in said and "b.json 3" in said and "odd" in said
    assert "12 more" in said and said.count("a.json") == 2
    many = Read(page.page(report(finding(rows=[f"a:{i}" for i in range(page.FIRST + page.MOST + 5)])))).said
    assert "5 more are in the JSON report." in many


def test_hidden_characters_are_shown_and_secrets_are_not() -> None:
    secret = "hf_" + "Ab1" * 12
    text = page.page(
        report(finding(samples=[f"a\0b\ud800c\u202ed {secret}"], figures={"kinds": {secret: 1, "\1": 2}}))
    )
    assert secret not in text
    assert "a\\x00b\\ud800c\\u202ed" in Read(text).said
    text.encode("utf-8")


def test_commands_are_code_and_advice_is_text() -> None:
    text = page.page(report(finding(fix="luthier data clean a.json"), finding(fix="read them")))
    assert '<pre class="command"><code>luthier data clean a.json</code></pre>' in text
    assert '<pre class="advice"><code>read them</code></pre>' in text


def test_figures_are_drawn_by_their_shape() -> None:
    figures = {
        "percentiles": {"p50": 12, "max": 90},
        "histogram": {"edges": [0, 50, 100], "counts": [3, 1]},
        "cutoff": 64,
        "counts": {"体育": 3, "财经": 1},
        "confusions": [["a", "b", 4]],
        "sizes": {2: 7, 3: 1},
        "openings": [["here is", 0.25]],
        "growth": [[10, 7], [20, 12]],
        "exact": 3,
        "nothing": None,
        "for_programs": [["a.json:1", "a.json:2"]],
    }
    text = page.page(report(finding(figures=figures)))
    titles = [drawing.get("aria-label") for drawing in drawings(text)][1:]
    assert titles == [
        "Length in tokens",
        "Rows by value",
        "Given → suggested",
        "Clusters by size",
        "How texts begin",
        "Different words, as texts are read",
    ]
    said = Read(text).said
    for words in ("cutoff 64", "p50 12", "体育: 3", "a → b: 4", "2: 7", "here is: 25.0%", "exact duplicates"):
        assert words in said
    assert "a.json:2" not in said


@pytest.mark.parametrize(
    "broken",
    [
        {"edges": [0, 1], "counts": [1, 2]},
        {"edges": [0, 0], "counts": [1]},
        {"edges": [0, float("inf")], "counts": [1]},
        {"edges": [0, None], "counts": [1]},
        {"edges": [], "counts": []},
    ],
)
def test_a_broken_histogram_is_not_drawn(broken: dict[str, Any]) -> None:
    text = page.page(report(finding(figures={"histogram": broken, "cutoff": 3})))
    assert len(drawings(text)) == 1


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["histogram", "counts", "percentiles", "cutoff", "x"]), ANY, max_size=4)
)
def test_whatever_the_figures_the_page_is_well_formed(figures: dict[str, Any]) -> None:
    text = page.page(report(finding(figures=figures)))
    Read(text)
    assert len(drawings(text)) == text.count("<svg")


# -- plots


def test_bars_by_hand() -> None:
    """Two labels of 1 letter: 15 units for them, 58 for the figures, so 327 for a whole bar."""
    drawn = ET.fromstring(
        plots.bars([("a", 4), ("b", 1)], "title").replace(' xmlns="http://www.w3.org/2000/svg"', "")
    )
    assert [(r.get("x"), r.get("width")) for r in drawn.iter("rect")] == [("15.0", "327.0"), ("15.0", "81.8")]
    assert [t.text for t in drawn.iter("title")] == ["title", "a: 4", "b: 1"]
    assert drawn.get("viewBox") == "0 0 400 38"


def test_of_many_bars_both_ends_are_drawn() -> None:
    drawn = plots.bars([(f"label {i}", 100 - i) for i in range(100)], "title", most=10)
    assert [i for i in range(100) if f"label {i}:" in drawn] == [0, 1, 2, 3, 4, 5, 97, 98, 99]
    assert "… 91 …" in drawn


def test_long_labels_stand_above_their_bars() -> None:
    long = "balance_not_updated_after_bank_transfer"
    drawn = plots.bars([(long, 4), (long + "_2", 1)], "title")
    assert f'text-anchor="start" fill="currentColor">{long}</text>' in drawn
    assert 'width="342.0"' in drawn


def test_a_histogram_by_hand() -> None:
    """396 units for 0 to 100; the higher column reaches from 24 to 132."""
    text = plots.histogram([0, 25, 100], [2, 1], "title", {"cutoff 50": 50})
    drawn = ET.fromstring(text.replace(' xmlns="http://www.w3.org/2000/svg"', ""))
    columns = [(r.get("x"), r.get("width"), r.get("height")) for r in drawn.iter("rect")]
    assert columns == [("2.0", "98.2", "108.0"), ("101.0", "296.2", "54.0")]
    mark = next(line for line in drawn.iter("line") if line.get("class") == "mark")
    assert (mark.get("x1"), mark.get("x2")) == ("200.0", "200.0")


def test_a_cutoff_beyond_the_data_is_within_the_plot() -> None:
    drawn = plots.histogram([0, 10], [1], "title", {"cutoff": 40})
    assert [float(x) <= plots.WIDTH for x in re.findall(r'x[12]?="([\d.]+)"', drawn)].count(False) == 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 7, [0, 2, 4, 6]),
        (3, 48, [10, 20, 30, 40]),
        (5, 5, [5]),
        (0, 0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert plots.ticks(low, high) == pytest.approx(expected)


def test_numbers() -> None:
    told = [plots.number(value) for value in (0, 1234567, 3.0, 0.03421, 123.456, 1e-7)]
    assert told == ["0", "1,234,567", "3", "0.0342", "123.5", "1e-07"]


def test_parts_show_the_smallest_second_part() -> None:
    assert 'width="398.0"' in plots.parts(10**6, 1, "title") and 'class="second"' in plots.parts(
        10**6, 1, "t"
    )
    assert 'class="second"' not in plots.parts(5, 0, "title")


# -- words


def test_both_languages_have_the_same_words() -> None:
    words = base.words("prepare/page.yaml")
    assert set(words) == set(get_args(base.Language))
    en, zh = words["en"], words["zh"]
    assert en.keys() == zh.keys() and en["figures"].keys() == zh["figures"].keys()
    for key, text in en.items():
        if isinstance(text, str):
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", zh[key]))
    assert not CHECKS.keys() - zh["checks"].keys(), "these checks have no Chinese name in page.yaml"
    assert len(set(zh["checks"].values())) == len(zh["checks"])
