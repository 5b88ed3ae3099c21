"""The report of an evaluation as pages and Markdown: what is told, what is left out, whom it trusts."""

import base64
import copy
import hashlib
import json
import re
from typing import Any, get_args

import pytest

from luthier.evaluate import page_labels, wording
from luthier.evaluate.markdown import markdown
from luthier.evaluate.page import page
from luthier.evaluate.report import table
from luthier.pages import base
from reading import EVIL, Read, drawings
from reports import example, figure, one_system, whole

LANGUAGES = get_args(base.Language)
HEADINGS = {
    "shots": "Examples in the prompt",
    "curve": "Learning curve",
    "judge": "Judged by a model",
    "per_class": "Classes by change of F1",
    "confusion": "What was answered instead of what",
    "calibration": "How honest the probabilities are",
    "slices": "Parts of the data",
    "worst": "Worst rows",
    "advice": "What follows",
    "scoring": "by label likelihood: no evidence for either way",
}


def said(result: dict[str, Any], language: base.Language = "en") -> str:
    """What a reader reads, with a blank after each element."""
    text = page(result, language).replace("</", " </")
    return " ".join(Read(text).said.replace("\N{NO-BREAK SPACE}", " ").split())


# -- the answer


def test_the_answer_comes_first() -> None:
    told = said(whole())
    answers = [
        "news improved. Accuracy 55.0 % → 80.0 %: +25.0 points (95 % interval +17.0 to +33.0; 40 rows)."
        " Worse, though: outside the labels 0.0 % → 2.5 %.",
        "General abilities regressed. Worse: Arithmetic 50.0 % → 25.0 %: −25.0 points"
        " (95 % interval −35.0 to −15.0).",
        "General text: no evidence of damage. Perplexity 1,234.5 → 1,250.2: +15.75"
        " (95 % interval −24.25 to +55.75; 40 rows).",
        "What follows Tuning is worth it.",
        "Figures of nothing else",
    ]
    places = [told.find(answer) for answer in answers[:-1]]
    assert -1 not in places and places == sorted(places)
    assert places[-1] < told.index("40 of 40 answers are one of")
    text = markdown(whole()).replace("\N{NO-BREAK SPACE}", " ")
    assert f"▲ **news improved.** {answers[0].removeprefix('news improved. ')}" in text
    assert (
        "▼ **General abilities regressed.**" in text and "○ **General text: no evidence of damage.**" in text
    )


def test_the_answer_in_chinese() -> None:
    told = said(whole(), "zh")
    for answer in (
        "news：有提升。 准确率 accuracy 55.0 % → 80.0 %，变化 +25.0 个百分点"
        "（95 % 置信区间 +17.0 至 +33.0；40 行）。"
        "但以下指标退步：标签之外的回答 outside_labels 0.0 % → 2.5 %。",
        "通用能力：退步。 退步：算术 50.0 % → 25.0 %，变化 −25.0 个百分点（95 % 置信区间 −35.0 至 −15.0）。",
        "通用文本：没有证据表明有损失。",
        "值得微调。",
        "40 条答案中有 40 条属于 2 个短标签。",
        "○ 没有证据",
    ):
        assert answer in told
    text = markdown(whole(), "zh").replace("\N{NO-BREAK SPACE}", " ")
    assert "| 准确率 accuracy | 55.0 % | 80.0 % | +25.0 | +17.0 至 +33.0 | 40 | ▲ 有提升 |" in text
    assert "▼ **通用能力：退步。**" in text and "| 汉字 |" in text and "| 3 至 11 个词元 |" in text


def test_who_knew_nothing_cannot_forget_and_is_told_so() -> None:
    found = whole()
    found["tasks"]["suite"] = {"arithmetic": figure(0.023, 0.045, 0.05, "no evidence")}
    told = said(found)
    assert "General abilities: no evidence of damage. 1 abilities, 40 questions." in told
    assert "Before tuning at most 2.3 % were right, so there was little to lose." in told


def test_the_terminal_shows_the_advice() -> None:
    assert "  advice: Tuning is worth it." in table(whole()).splitlines()


def test_figures_are_those_of_the_report() -> None:
    told, text = said(whole()), markdown(whole()).replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "55.0 %",
        "80.0 %",
        "+25.0",
        "+17.0 to +33.0",
        "82.5 %",
        "1,234.5",
        "ECE before 20.0 %, after 3.1 %",
    ):
        assert words in told and words in text
    assert "| accuracy | 55.0 % | 80.0 % | +25.0 | +17.0 to +33.0 | 40 | ▲ improved |" in text
    assert "体育 20 50.0 % 90.0 % 50.0 % → 90.0 % +40.0" in told
    assert told.index("财经 20 60.0 % 55.0 % 60.0 % → 55.0 % −5.0") < told.index("体育 20 50.0 %"), (
        "those that lost come first"
    )
    assert "财经 体育 8 / 20 7 / 20 体育 (outside) 0 / 20 1 / 20" in told
    assert (
        "The tuned model won 75.0 % of the pairs (95 % interval 65.0 % to 85.0 %; a tie is half a win)."
        in told
    )
    assert "100 % 1,000 90.0 % 85.0 % to 95.0 % 31 twice the data 2,000 92.7 % 90.0 % to 95.0 % –" in told
    assert "Tokens of a prompt: without examples 20, random 90." in told
    assert "a goal → 财经 train.json:3 · similarity 0.87" in told
    assert "before · weights · base · model.safetensors " in told and "cd" * 32 in told


@pytest.mark.parametrize(
    ("metric", "value", "shown", "difference"),
    [
        ("accuracy", 0.0, "0.0 %", "0.0"),
        ("accuracy", -0.0004, "−0.0 %", "0.0"),
        ("likelihood_ece", 0.0312, "3.1 %", "+3.1"),
        ("rouge-1", 44.2, "44.20", "+44.20"),
        ("perplexity", 20308.348, "20,308.3", "+20,308.3"),
        ("perplexity", -9.5, "−9.500", "−9.500"),
        ("accuracy", None, "–", "–"),
    ],
)
def test_numbers(metric: str, value: float | None, shown: str, difference: str) -> None:
    assert wording.number(metric, value).replace("\N{NO-BREAK SPACE}", " ") == shown
    assert wording.signed(metric, value) == difference


# -- what is there and what is not


@pytest.mark.parametrize("missing", HEADINGS)
def test_a_section_without_details_is_left_out(missing: str) -> None:
    found = whole()
    assert HEADINGS[missing] in said(found)
    del found["details"]["news"][missing]
    told = said(found)
    assert HEADINGS[missing] not in told
    assert all(heading in told for key, heading in HEADINGS.items() if key != missing)
    if missing not in ("confusion", "worst"):
        assert HEADINGS[missing] not in markdown(found)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("side", ["before", "after"])
def test_one_system_has_nothing_to_compare_with(side: str, language: base.Language) -> None:
    found, w = one_system(side), wording.words(language)
    for told in (said(found, language), markdown(found, language)):
        assert w["one_system"] in told
        assert w["before"] not in told and w["verdicts"]["improved"] not in told
    value = "80.0" if side == "after" else "55.0"
    assert f"news: accuracy {value} % (95 % interval" in said(found)
    assert drawings(page(found, language))


def test_perplexity_alone() -> None:
    found = whole()
    found["tasks"] = {"corpus": {"perplexity": figure(20.0, 15.0, 1.0, "improved", higher=False)}}
    found["details"] = {"corpus": {"kind": "perplexity", "notes": []}}
    told = said(found)
    assert (
        "corpus improved. Perplexity 20.00 → 15.00: −5.000 (95 % interval −6.000 to −4.000; 40 rows)." in told
    )
    assert not any(heading in told for heading in HEADINGS.values())
    assert "nav" not in Read(page(found)).tags()
    assert "| perplexity (lower is better) | 20.00 | 15.00 | −5.000 |" in markdown(found)


def test_tasks_of_lm_eval_are_one_section() -> None:
    found = whole()
    found["tasks"]["lm_eval.arc"] = {"acc": figure(0.4, 0.3, 0.05, "regressed")}
    found["tasks"]["lm_eval.wiki"] = {"em": {**figure(0.2, 0.3, 0.0, None), "low": None, "high": None}}
    found["details"]["lm_eval.arc"] = {"kind": "lm_eval", "notes": [{"en": "A note.", "zh": "注。"}]} | {
        "slices": {"subtask": {"easy": {"metric": "acc", **figure(0.5, 0.4, 0.05, "no evidence")}}}
    }
    told = said(found)
    assert "lm-eval regressed. Worse: arc · acc 40.0 % → 30.0 %" in told
    assert "wiki · em 20.0 % 30.0 % 20.0 % → 30.0 % +10.0 –" in told and "A note." in told
    assert "arc easy 50.0 % 40.0 % 50.0 % → 40.0 % −10.0" in told
    assert "| wiki · em | 20.0 % | 30.0 % | +10.0 | – | 40 |" in markdown(found).replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_a_judge_that_grades_one_system() -> None:
    found = one_system("after")
    grade = {"value": 3.25, "low": 3.0, "high": 3.5, "n": 40, "verdict": None}
    found["details"]["news"]["judge"] = {
        **{"model": "m", "form": "grade", "rows": 40, "asked": 40, "unreadable": 0, "failed": 0, "notes": []},
        **{"grade": grade, "grades": {"1": 2, "2": 8, "3": 10, "4": 18, "5": 2}},
    }
    told = said(found)
    assert "m graded 40 answers from 1 to 5. Mean grade 3.25 of 5 (95 % interval 3.00 to 3.50)." in told
    assert "4: 18" in told


# -- classes and confusions


def test_of_many_classes_the_rest_is_folded_and_the_map_has_no_names() -> None:
    found, many = whole(), [f"label_{i}" for i in range(30)]
    details = found["details"]["news"]
    details["labels"] = many
    details["per_class"] = {name: {"f1": {"before": 0.5, "after": i / 30}} for i, name in enumerate(many)}
    matrix = [[10 if j == i else 3 if j == i + 1 else 0 for j in range(31)] for i in range(30)]
    details["confusion"] = {"before": matrix, "after": matrix}
    read = Read(page(found))
    assert "14 more" in read.said and "30 labels, in the order of the label set" in " ".join(
        read.said.split()
    )
    (_, heat) = [one for one in drawings(page(found)) if one.get("aria-label") in ("before", "after")]
    names = [text.text for text in heat.iter("{http://www.w3.org/2000/svg}text")]
    titles = [title.text for title in heat.iter("{http://www.w3.org/2000/svg}title")][1:]
    assert names == [] and len(titles) == 60
    assert {"label_0 → label_0: 10", "label_0 → label_1: 3", "label_29 → (outside): 3"} <= set(titles)
    assert len(page_labels.confusion(wording.tasks(found, "en")[0], "en")["pairs"]) == page_labels.CONFUSED  # type: ignore[index]


def test_labels_that_nobody_asked_or_answered_are_not_on_the_map() -> None:
    (_, heat) = [one for one in drawings(page(whole())) if one.get("aria-label") in ("before", "after")]
    texts = [text.text for text in heat.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("体育") == 2 and "never asked" not in texts and "(outside)" in texts
    assert [text for text in texts if text and text.isdigit()] == ["19", "1", "7", "13"]


# -- whom the page trusts


def test_the_page_needs_nothing_from_anywhere_and_says_so() -> None:
    for language in LANGUAGES:
        text = page(whole(), language)
        assert set(re.findall(r"https?://[^\"' <]*", text)) == {"http://www.w3.org/2000/svg"}
        assert "@import" not in text and "url(" not in text
        style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"default-src 'none'; style-src 'sha256-{digest}'" in text
        assert len(drawings(text)) == text.count("<svg") > 20


def poisoned(value: Any, text: str) -> Any:
    """Every text of strangers replaced by `text`; keys that are names of theirs, too."""
    if isinstance(value, dict):
        return {key: poisoned(inside, text) for key, inside in value.items()}
    if isinstance(value, list):
        return [poisoned(inside, text) for inside in value]
    return text if isinstance(value, str) else value


def evil(text: str) -> dict[str, Any]:
    found = whole()
    details = found["details"]["news"]
    for key in ("fixed", "worst", "notes", "advice"):
        details[key] = poisoned(details[key], text)
    details["why"] = details["why_zh"] = details["sha256"] = text
    details["labels"] = [text, text + "2", "x"]
    details["per_class"] = dict(zip([text, text + "2"], details["per_class"].values(), strict=True))
    details["slices"]["class"] = {text: details["slices"]["length"]["3 to 11 tokens"]}
    details["judge"]["model"] = text
    details["judge"]["notes"] = details["curve"]["notes"] = [{"key": text, "en": text, "zh": text}]
    found["systems"] = poisoned(found["systems"], text) | {"before": {"name": text, text: text}}
    found["tasks"][text] = found["tasks"]["news"] | {text: found["tasks"]["news"]["accuracy"]}
    found["details"][text] = copy.deepcopy(details)
    return found


def test_texts_of_strangers_are_only_text() -> None:
    read = Read(page(evil(EVIL)))
    assert not read.tags() & {"script", "img", "iframe", "object", "link", "form", "input", "base"}
    for _, attributes in read.elements:
        assert not [n for n in attributes if n.startswith("on") or n in ("src", "style", "srcdoc")]
        assert (attributes.get("href") or "#").startswith("#")
    assert read.said.count("{{7*7}}&amp;' javascript:alert(3)") > 30


def test_texts_of_strangers_are_no_markup_in_markdown() -> None:
    text = markdown(evil(EVIL + " | [a](http://x) **b** `c`\n# d"))
    assert not re.search(r"(?<!\\)[<`]|(?<!\\)\[a", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "# d" not in text.splitlines() and all(line.endswith("|") for line in rows)


def test_hidden_characters_are_shown_and_secrets_are_not() -> None:
    secret = "hf_" + "Ab1" * 12
    for language in LANGUAGES:
        for text in (
            page(evil(f"a\0b\ud800c\u202ed {secret}"), language),
            markdown(evil(f"a\0b\ud800c\u202ed {secret}")),
        ):
            assert secret not in text and not re.search("[\0\u202e]", text)
            text.encode("utf-8")
        assert "a\\x00b\\ud800c\\u202ed" in Read(page(evil("a\0b\ud800c\u202ed"), language)).said


def test_links_lead_somewhere() -> None:
    read = Read(page(whole()))
    ids = {a["id"] for _, a in read.elements if "id" in a}
    assert (
        {str(a["href"])[1:] for tag, a in read.elements if tag == "a"} == {"s1", "s2", "s3", "about"} <= ids
    )


def test_long_texts_are_cut() -> None:
    found = whole()
    found["details"]["news"]["fixed"] = [example("x" * 5000)]
    assert "x" * 599 + "…" in said(found) and "x" * 600 not in said(found)


def test_a_report_survives_its_file() -> None:
    found = whole()
    assert page(json.loads(json.dumps(found))) == page(found)


# -- words


def keys(value: Any) -> Any:
    return {key: keys(inside) for key, inside in value.items()} if isinstance(value, dict) else None


def texts(value: Any) -> list[str]:
    return (
        [t for inside in value.values() for t in texts(inside)] if isinstance(value, dict) else [str(value)]
    )


def test_both_languages_have_the_same_words() -> None:
    words = base.words("evaluate/page.yaml")
    assert set(words) == set(LANGUAGES)
    assert keys(words["en"]) == keys(words["zh"])
    for en, zh in zip(texts(words["en"]), texts(words["zh"]), strict=True):
        assert set(re.findall(r"\{\w+\}", en)) == set(re.findall(r"\{\w+\}", zh)), (en, zh)
