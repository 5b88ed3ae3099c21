"""What is in a text: literal findings and literal texts without any, Chinese and English."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from luthier.prepare import measure, mojibake, text

SHARED = Path(__file__).parents[3] / "shared" / "data" / "lf_demo"
ZH = "今天天气很好，我们去公园散步吧。"
FOUND = [
    # encodings
    ("encoding", "cafÃ© au lait", "mojibake", "Ã©"),
    ("encoding", "itâ€™s fine", "mojibake", "â€™"),
    ("encoding", "浣犲ソ，世界", "mojibake", "浣犲ソ"),
    ("encoding", "ÄãºÃÊÀ½ç", "mojibake", "ÄãºÃÊÀ½ç"),
    ("encoding", "需要的工\ufffd\ufffd和知识", "lost", "\ufffd\ufffd"),
    ("encoding", "名称：锟斤拷锟斤拷", "lost", "锟斤拷锟斤拷"),
    ("encoding", "烫烫烫烫烫", "lost", "烫烫烫烫烫"),
    ("encoding", "a\x00b", "control_character", "\x00"),
    ("encoding", "a\ud800b", "control_character", "\ud800"),
    # markup
    ("markup", "<p>你好", "html_tag", "<p>"),
    ("markup", "好</div>", "html_tag", "</div>"),
    ("markup", 'x<a href="y">z', "html_tag", '<a href="y">'),
    ("markup", "a<br/>b", "html_tag", "<br/>"),
    ("markup", "<b>粗</b>", "html_tag", "<b>"),
    ("markup", "x<!-- y -->", "html_tag", "<!-- y -->"),
    ("markup", "Tom &amp; Jerry", "html_entity", "&amp;"),
    ("markup", "it&#39;s&nbsp;", "html_entity", "&#39;"),
    # control tokens
    ("special_tokens", "好的<|im_end|>", "special_token", "<|im_end|>"),
    ("special_tokens", "[INST] hi [/INST]", "special_token", "[INST]"),
    ("special_tokens", "<s>[INST]", "special_token", "<s>"),
    ("special_tokens", "bye</s>", "special_token", "</s>"),
    ("special_tokens", "<|begin_of_text|>x", "special_token", "<|begin_of_text|>"),
    ("special_tokens", "<｜User｜>x", "special_token", "<｜User｜>"),
    ("special_tokens", "<start_of_turn>user", "special_token", "<start_of_turn>"),
    ("special_tokens", "`<|endoftext|>`", "special_token", "<|endoftext|>"),
    # placeholders
    ("placeholders", "I am {{name}}.", "placeholder", "{{name}}"),
    ("placeholders", "我是{{ 模型名 }}", "placeholder", "{{ 模型名 }}"),
    ("placeholders", "Dear ${customer.name},", "placeholder", "${customer.name}"),
    ("placeholders", "Hello <name>!", "placeholder", "<name>"),
    ("placeholders", "key: <YOUR_API_KEY>", "placeholder", "<YOUR_API_KEY>"),
    ("placeholders", "Sincerely, [Your Name]", "placeholder", "[Your Name]"),
    ("placeholders", "on [insert date] at", "placeholder", "[insert date]"),
    ("placeholders", "尊敬的【姓名】先生", "placeholder", "【姓名】"),
    ("placeholders", "我是[您的姓名]", "placeholder", "[您的姓名]"),
    ("placeholders", "于【日期】签订", "placeholder", "【日期】"),
    ("placeholders", "（请填写公司名称）", "placeholder", "（请填写公司名称）"),
    ("placeholders", "Hi {user_name}", "placeholder", "{user_name}"),
    ("placeholders", "Lorem ipsum dolor sit", "placeholder", "Lorem ipsum dolor"),
]
CLEAN = [
    ("encoding", ZH),
    ("encoding", "naïve café déjà vu – “ok”, Größe, É, São João, 50 €"),
    ("encoding", "联通的烫头发——“好”……"),
    ("encoding", "tab\tand\nline\r\n"),
    ("markup", "if a < b and c > d"),
    ("markup", "List<String> and <T> and vector<a>"),
    ("markup", "AT&T, R&D; Q&A"),
    ("markup", "<think>想</think> <tool_call>{}</tool_call>"),
    ("markup", "```html\n<p>&amp;</p>\n```\nuse `<br>`"),
    ("special_tokens", "a | b | c, [1], <name>, list[INST_ID]"),
    ("special_tokens", "<s>strike</s> through"),
    ("special_tokens", "<think>x</think>"),
    ("placeholders", "`{{name}}` in a template"),
    ("placeholders", "```sh\necho ${name}\n```"),
    ("placeholders", "run ${HOME}/bin"),
    ("placeholders", "x^{2} and {a: 1} and \\frac{1}{2}"),
    ("placeholders", "【时间】2024年5月14日\n【地点】北京"),
    ("placeholders", "[name](http://x.org) and [1] and [sic]"),
    ("placeholders", "《公司法》和「你好」"),
    ("placeholders", "git checkout <branch>"),
    ("placeholders", '{"name": "x"}'),
]


@pytest.mark.parametrize(("check", "given", "kind", "piece"), FOUND)
def test_found(check: str, given: str, kind: str, piece: str) -> None:
    found = [(each.kind, given[each.start : each.end]) for each in text.CHECKS[check](given)]
    assert (kind, piece) in found, found


@pytest.mark.parametrize(("check", "given"), CLEAN)
def test_clean(check: str, given: str) -> None:
    assert text.CHECKS[check](given) == []


def test_tokens_of_the_model_at_hand() -> None:
    found = text.special_tokens("a<ROLE>b<|im_end|><ROLE>", extra=["<ROLE>", "<|im_end|>", ""])
    assert [(each.start, each.shown) for each in found] == [(1, "<ROLE>"), (8, "<|im_end|>"), (18, "<ROLE>")]


# -- endings


@pytest.mark.parametrize(
    "given",
    [
        ZH * 2 + "其次，我们还需要考虑成本，",
        ZH * 2 + "主要包括",
        ZH * 2 + "他说：“我们应该",
        "It is fine. The most important thing is the",
        "The options are many. They include red, green,",
        "Here it is:\n```python\nprint(1)",
        ZH * 2 + "例如（见下",
    ],
)
def test_truncated(given: str) -> None:
    assert [each.kind for each in text.truncated(given)] == ["truncated"]


def test_open_ending() -> None:
    assert [each.kind for each in text.truncated(ZH * 3 + "然后我们回家吃了一顿丰")] == ["open_ending"]
    assert [each.kind for each in text.truncated("It rained. We left. Then the driver sto")] == [
        "open_ending"
    ]


@pytest.mark.parametrize(
    "given",
    [
        ZH,
        "体育",
        "人民币汇率创三年来新高",
        "Sports and games",
        ZH * 3 + "\n\n- 苹果\n- 香蕉\n- 一种很好吃的水果",
        "One. Two. See https://x.org/a)",
        "It is done. He said so. “Yes.”",
        "```python\nx = 1\n```",
        "好的，我们出发吧！😀",
        "Love it. So good. #PuppyLove",
        "",
    ],
)
def test_whole(given: str) -> None:
    assert text.truncated(given) == []


# -- repetition


def test_loops() -> None:
    (found,) = text.loops("前言。" + "我不能回答这个问题。" * 6)
    assert found.kind == "loop" and found.shown.endswith("x 6")
    long = "".join(chr(0x4E00 + i * 7 % 5000) for i in range(9000))
    assert [each.start >= 9000 for each in text.loops(long + "again and again. " * 30)] == [True]
    for fine in ("哈哈哈哈", "-" * 80, "| --- | --- | --- | --- |", ZH * 3, "1\n2\n3\n4\n5\n6\n7\n8\n9\n"):
        assert text.loops(fine) == [], fine


def test_loops_in_a_long_text_end() -> None:
    assert text.loops("ab" * 500_000 + "x") != []
    assert text.loops("".join(map(str, range(200_000)))) == []


def test_measures_are_those_of_gopher() -> None:
    words = [f"w{n}" for n in range(40)] + ["a1 b2 c3 d4 e5"] * 4
    figures = measure.measures(" ".join(words))
    # 60 units of 2 or 3 letters: 10 + 30 + ... ; the five words stand there four times, three of them again.
    letters = sum(map(len, " ".join(words).split()))
    assert figures["units"] == 60
    assert figures["duplicate_5_grams"] == pytest.approx(30 / letters)
    assert figures["top_2_gram"] == pytest.approx(4 * 4 / letters)
    lines = measure.measures("a\nb\na\na\n- c\nd…")
    assert lines["duplicate_lines"] == pytest.approx(2 / 6)
    assert lines["duplicate_line_characters"] == pytest.approx(2 / 9)
    assert lines["lines_with_bullets"] == pytest.approx(1 / 6)
    assert lines["lines_ending_in_ellipsis"] == pytest.approx(1 / 6)


def test_measures_of_signs() -> None:
    assert measure.measures("■□◆")["symbols"] == 1.0
    assert measure.measures("你好，世界！“引用”……")["symbols"] == 0.0
    assert measure.measures("ab 12")["digits"] == pytest.approx(0.4)
    assert measure.measures("")["units"] == 0
    assert measure.beyond("■□◆", {"symbols": 0.4})[0].shown == "1 > 0.4"
    assert measure.beyond("ab", {}, {"units": 3})[0].shown == "1 < 3"


# -- languages


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (ZH, "zh"),
        ("用 Python 和 PyTorch 训练 Transformer 模型", "zh"),
        ("The quick brown fox", "en"),
        ("We have seen that it is the best of all worlds and so on", "en"),
        ("Der schnelle braune Fuchs springt über den faulen Hund und läuft dann schnell weg", "latin"),
        ("今日はいい天気ですね。公園へ行きましょう。", "ja"),
        ("カタカナ", "ja"),
        ("오늘 날씨가 좋네요", "ko"),
        ("Сегодня хорошая погода", "ru"),
        ("الطقس جميل اليوم", "ar"),
        ("42 + 1 = 43", ""),
        ("", ""),
    ],
)
def test_language(given: str, told: str) -> None:
    assert measure.language(given) == told


def test_scripts() -> None:
    assert measure.scripts("你好ab") == {"han": 0.5, "latin": 0.5}
    assert measure.scripts("1 2") == {}


def test_strays() -> None:
    given = ZH * 3 + "这是пример句子"
    assert [(each.kind, each.shown) for each in measure.strays(ZH * 8 + "пр")] == [("stray_script", "пр")]
    assert measure.strays(given) == []  # too many for a slip
    assert [each.kind for each in measure.strays("p\u0430ypal login")] == ["mixed_word"]
    assert measure.strays("α + β = γ，" + ZH) == []


# -- real data, where it is there


@pytest.mark.skipif(not SHARED.is_dir(), reason="the demonstration data are not here")
def test_identity_has_placeholders() -> None:
    rows = json.loads((SHARED / "identity.json").read_text(encoding="utf-8"))
    found = [each.shown for row in rows for each in text.placeholders(row["output"])]
    assert set(found) == {"{{name}}", "{{author}}"} and len(found) > 100


@pytest.mark.skipif(not SHARED.is_dir(), reason="the demonstration data are not here")
@pytest.mark.parametrize(("name", "most"), [("alpaca_zh_demo.json", 0.001), ("alpaca_en_demo.json", 0.001)])
def test_ordinary_data_is_not_damaged(name: str, most: float) -> None:
    rows = json.loads((SHARED / name).read_text(encoding="utf-8"))
    hit = [row for row in rows if mojibake.find(row["output"]) or text.special_tokens(row["output"])]
    assert len(hit) <= most * len(rows)


def test_very_many_bold_words_end() -> None:
    began = time.process_time()
    assert len(text.markup("<b>x</b> and <i> " * 20_000)) == 40_000
    assert time.process_time() - began < 10  # looked for from each tag on they would take minutes
