import random
import sys
import time

import pytest

from luthier.data.spec import DatasetSpec
from luthier.errors import MissingPackage
from luthier.prepare import measure
from luthier.prepare.checks import Data, topics, variety, wording
from luthier.prepare.report import Finding
from luthier.prepare.table import Table

EN = "Please tell me how the moon moves the tides of the sea number {}."
ZH = "请告诉我第{}号月亮是怎样影响大海的潮汐的。"
PARTS = "river stone garden window letter morning bridge winter market teacher engine silver coffee".split()
WORDS = [one + other for one in PARTS for other in PARTS if one != other]


def data(inputs: list[str], answers: list[str] | None = None, stage: str = "sft") -> Data:
    table = Table(DatasetSpec("rows", "file", "rows.json"), stage)
    table.inputs = inputs
    table.answers = answers or [f"{text} That is what we know." for text in inputs]
    table.sources = [f"rows.json:{i}" for i in range(1, len(inputs) + 1)]
    return Data("rows.json", table)


def sentences(count: int, seed: int = 0, length: int = 9) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.sample(WORDS, length)) for _ in range(count)]


def only(findings: list[Finding], words: str) -> Finding:
    (found,) = [one for one in findings if words in one.what]
    return found


# -- languages


def test_languages_are_counted() -> None:
    inputs = [EN.format(i) for i in range(3)] + [ZH.format(0), "42"]
    (note,) = variety.languages(data(inputs, [*inputs[:4], "43"]))
    assert (note.severity, note.count, note.rows) == ("note", 2, ())
    assert note.figures == {
        "counts": {"en": 3, "zh": 1},
        "inputs": {"en": 3, "zh": 1},
        "answers": {"en": 3, "zh": 1},
    }
    assert note.what == "the rows are 75.0% en, 25.0% zh (1 with too few letters to tell are left out)"


def test_rows_in_another_language_than_nearly_all() -> None:
    inputs = [EN.format(i) for i in range(99)]
    inputs.insert(40, ZH.format(40))
    _, found = variety.languages(data(inputs, list(inputs)))
    assert (found.severity, list(found.rows)) == ("note", ["rows.json:41"])
    command = "luthier data clean rows.json --steps row_removal row_removal.rows=41"
    assert found.fix == f"read them, or leave the rows out: {command}"
    assert found.samples[0].startswith("zh: 请告诉我")
    assert len(list(variety.languages(data(inputs[35:45], inputs[35:45])))) == 2
    assert len(list(variety.languages(data(inputs[36:45], inputs[36:45])))) == 1


def test_blank_lines_by_the_thousand_end() -> None:
    began = time.process_time()
    list(variety.languages(data([" \n" * 20_000 + EN.format(1), ZH.format(2)], ["x;\n\n" * 9_000, "y"])))
    assert time.process_time() - began < 5  # tried from each line on they would take half a minute


def test_a_share_that_is_not_whole_is_not_called_so() -> None:
    assert variety._percent(5, 5) == "100%"
    assert variety._percent(99_999, 100_000) == ">99.9%"
    assert variety._percent(999, 1000) == "99.9%"


def test_answers_in_another_language_than_their_question() -> None:
    asked = [ZH.format(i) for i in range(40)]
    given = [f"第{i}个回答：月亮的引力使海水上涨。" for i in range(40)]
    given[3] = "The moon pulls at the water of the sea."
    given[5] = "I am happy that you asked me about it."
    asked[5] = "把这句话翻译成英文：很高兴你问我这个问题。"
    given[7] = "The quick brown fox jumps over it."
    asked[7] = "这句话里有几个词：The quick brown fox jumps over it"
    given[9] = "```python\nfor moon in the_sky_of_the_night:\n    print(moon)\n```"
    given[11] = '{"the_name_of_the_moon": "luna and nothing else"}'
    found = only(list(variety.languages(data(asked, given))), "than their question")
    assert (found.severity, list(found.rows)) == ("warning", ["rows.json:4"])
    assert found.figures == {"pairs": {"zh → en": 1}}


def test_labels_and_translations_are_no_mismatch() -> None:
    asked = [ZH.format(i) for i in range(40)]
    labels = ["a label in English words", "another label in English"] * 20
    assert len(list(variety.languages(data(asked, labels)))) == 1
    assert len(list(variety.languages(data(asked, [EN.format(i) for i in range(40)])))) == 1


def test_private_parts_of_samples_are_masked() -> None:
    inputs = [EN.format(i) for i in range(99)] + ["请把这封信寄给 li.wei@example-mail.cn，谢谢。"]
    for findings in (variety.languages(data(inputs)), variety.outliers(data(inputs))):
        assert "li.wei" not in "".join(sample for one in findings for sample in one.samples)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("book, novel, newspaper, magazine, article, text, page, words, story, report, paper, screen", "en"),
        ("El perro de la casa come el pan que los hombres le dan por la noche", "latin"),
        ("Täysin samaa mieltä kanssasi, minun täytyy vain antaa sinulle muutama luku tästä", "latin"),
    ],
)
def test_a_list_of_english_nouns_is_english(text: str, told: str) -> None:
    assert measure.language(text) == told


def test_language_needs_letters_to_tell() -> None:
    assert measure.language("月亮", 20) == ""
    assert measure.language("月亮和大海", 20) == "zh"
    assert measure.language("the moon", 20) == ""


# -- outliers


def test_lengths_unlike_the_others() -> None:
    inputs = sentences(200)
    inputs[17] = " ".join(sentences(30, 1))
    inputs[90] = "why not"
    found = only(list(variety.outliers(data(inputs))), "inputs of unusual length")
    assert (found.severity, list(found.rows)) == ("note", ["rows.json:18", "rows.json:91"])
    assert "1 far longer and 1 far shorter" in found.what
    assert not list(variety.outliers(data(sentences(200))))


def test_labels_have_no_unusual_length() -> None:
    answers = ["no"] * 150 + ["a very much longer label than all of the others are"] * 50
    assert not list(variety.outliers(data(sentences(200), answers)))


def test_repetition_and_signs() -> None:
    answers = sentences(60, 2)
    answers[4] = "I do not know. " * 20
    answers[8] = "∑∏√∞≈≠≤≥" * 5 + " and so on"
    found = only(list(variety.outliers(data(sentences(60), answers))), "repeat themselves")
    assert list(found.rows) == ["rows.json:5", "rows.json:9"]
    assert found.figures["kinds"]["duplicate_10_grams"] == 1 and found.figures["kinds"]["symbols"] == 1
    assert found.fix == "luthier data clean rows.json --steps quality_filter"
    found = only(list(variety.outliers(data(answers, sentences(60)))), "repeat themselves")
    assert found.fix.endswith("row_removal.rows=5,9")  # the filter judges no questions


def test_documents_are_judged_by_the_rules_for_documents() -> None:
    page = "\n".join(["one line of text", *(f"line {i} of it" for i in range(5)), "one line of text"] * 2)
    texts = [*sentences(30, 3), page]
    found = only(list(variety.outliers(data([""] * 31, texts, stage="pt"))), "repeat themselves")
    assert list(found.rows) == ["rows.json:31"]
    assert found.fix.endswith(" quality_filter.rules=gopher")


# -- diversity


def test_distinct_n_grams_by_hand() -> None:
    """a b a b: 2 of 4 units, {ab, ba} of 3 pairs, {aba, bab} of 2 triples; no n-gram crosses two texts."""
    found = wording.wording(["a b a b", "a"])
    assert found.distinct == {1: 2 / 5, 2: 2 / 3, 3: 1.0}
    assert (found.units, found.vocabulary) == (5, 2)
    assert found.entropy == pytest.approx(0.9709505944546686)  # H(3/5, 2/5) in bits
    assert wording.wording(["月亮月亮"]).distinct[2] == 2 / 3
    assert wording.wording([]).distinct == {1: 0.0, 2: 0.0, 3: 0.0}


def test_vocabulary_grows_as_heaps_law_says() -> None:
    always_new = [f"w{i}" for i in range(1600)]
    found = wording.wording(always_new)
    assert found.growth == tuple((200 * k, 200 * k) for k in range(1, 9))
    assert found.heaps == pytest.approx(1.0)
    assert wording.wording(["same old words"] * 500).heaps == 0.0


def test_openings() -> None:
    texts = [
        "Here is the first",
        "here is the  second",
        "Nothing else at all",
        "新闻分类：甲",
        "新闻分类：乙丙",
        "短",
    ]
    assert wording.openings(texts) == [("here is the", 2 / 6), ("新闻分类", 2 / 6)]


def test_free_text_that_begins_alike() -> None:
    answers = [f"Sure, here is {text}" for text in sentences(300)]
    found = only(list(variety.diversity(data(sentences(300, 5), answers))), "begin with")
    assert (found.severity, found.what) == ("warning", "100% of the answers begin with “sure, here is”")


def test_labels_and_instructions_may_begin_alike() -> None:
    inputs = [f"Classify this headline: {text}" for text in sentences(300)]
    found = list(variety.diversity(data(inputs, ["a sports label", "a money label"] * 150)))
    assert {one.severity for one in found} == {"note"}
    assert not any("begin with" in one.what for one in found)
    assert "answers" not in found[0].figures


def test_answers_that_say_the_same() -> None:
    answers = [f"I am sorry, but I can not help you with item {i} of the list today." for i in range(300)]
    found = only(list(variety.diversity(data(sentences(300), answers))), "say much the same")
    assert found.severity == "warning" and "answers" in found.what


def test_varied_text_is_not_called_poor() -> None:
    found = list(variety.diversity(data(sentences(600), sentences(600, 1, 20))))
    assert {one.severity for one in found} == {"note"}
    assert found[0].figures["answers"]["distinct-2"] > 0.7


def test_topics_are_told_apart_and_named() -> None:
    pytest.importorskip("sklearn")
    rng = random.Random(0)
    fields = {"sport": "match goal team coach league", "money": "bank share price market profit"}
    names = rng.choices(list(fields), weights=[3, 1], k=400)
    texts = [" ".join(rng.sample(fields[name].split(), 4)) for name in names]
    found = topics.topics(texts)
    assert sum(one.count for one in found) == 400
    assert [one.count for one in found] == sorted((one.count for one in found), reverse=True)
    for one in found:  # no cluster mixes the two
        assert (
            len({name for name, words in fields.items() for word in one.name.split(" · ") if word in words})
            == 1
        )
    assert topics.topics(texts) == found
    assert topics.topics(texts[:99]) == []


def test_chinese_topics_are_named_by_pieces_of_words() -> None:
    pytest.importorskip("sklearn")
    rng = random.Random(0)
    fields = ["世界杯 比赛 进球 球队 教练".split(), "银行 股票 市场 利润 债券".split()]
    texts = ["的".join(rng.sample(rng.choice(fields), 4)) for _ in range(300)]
    named = {word for one in topics.topics(texts) for word in one.name.split(" · ")}
    assert "世界杯" in named and not any("的" in word for word in named)


def test_topics_need_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingPackage, match=r"luthier\[data\]"):
        topics.topics(["some text"] * 100)


def test_large_sets_are_sampled_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variety, "SAMPLE", 150)
    inputs = sentences(300)
    inputs[:299:2] = ["I do not know. " * 20] * 150
    found = only(list(variety.outliers(data(inputs))), "repeat themselves")
    assert "(in 150 of 300 rows)" in found.what and 0 < found.count < 150
    first = next(iter(variety.diversity(data(inputs))))
    assert first.what.endswith("(in 150 of 300 rows)")


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["1 2 3"], ["\ud800"], ["x" * 100_000]])
def test_odd_tables_are_no_trouble(texts: list[str]) -> None:
    for check in (variety.languages, variety.outliers, variety.diversity):
        for finding in check(data(texts, list(texts) or None)):
            assert finding.count >= 0
