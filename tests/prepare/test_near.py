import pytest

from luthier.errors import DataError
from luthier.prepare import exact, near, shingles, veto

pytest.importorskip("rensa")
pytest.importorskip("jieba")

LONG = "The quick brown fox jumps over the lazy dog while the farmer counts his sheep in the green valley."
NEWS = "国家统计局今日公布上半年居民消费价格总水平同比上涨情况,专家认为全年物价走势总体平稳可控"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Hello  World\n", "hello world"),
        ("ＡＢＣ１２３，好", "abc123,好"),
        ("体\u200b育", "体育"),
        ("Straße", "STRASSE"),
        ("\ufeffhi", "hi"),
    ],
)
def test_same_normalised_form(a: str, b: str) -> None:
    assert exact.normalise(a) == exact.normalise(b)
    assert exact.key(a) == exact.key(b)


@pytest.mark.parametrize(("a", "b"), [("C#", "C++"), ("cat", "dog"), ("1", "2"), ("a。", "a"), ("a b", "ab")])
def test_different_normalised_form(a: str, b: str) -> None:
    assert exact.key(a) != exact.key(b)


def test_equal_rows_have_one_that_is_best() -> None:
    """The reviewed one, then the longest, then the first; only of one kind, and column by column."""
    texts = ["a", "b", "A ", "c", "a", "b", "\ud800"]
    assert near.alike([texts], None, None).best.tolist() == [2, 1, 2, 3, 2, 1, 6]
    reviewed = [i == 4 for i in range(7)]
    assert near.alike([texts], None, None, reviewed).best.tolist() == [4, 1, 4, 3, 4, 1, 6]
    assert near.alike([texts], list("xxxxyxx"), None).best.tolist() == [2, 1, 2, 3, 4, 1, 6]
    assert near.alike([["a b", "a", "a b"], ["c", "b c", "C"]], None, None).best.tolist() == [0, 1, 0]


def test_stars_of_one_kind() -> None:
    """Copies of another kind than the best row have a star of their own."""
    texts = [LONG, LONG + "!", LONG + "!!", LONG + "!!!"]
    found = near.stars(near.alike([texts]), None, ["x", "y", "y", "x"])
    stars = [(c.keeper.index, [(copy.row.index, copy.exact) for copy in c.copies]) for c in found]
    assert stars == [(2, [(1, False)]), (3, [(0, False)])]


def test_each_column_must_be_alike() -> None:
    questions = [LONG, LONG + "!", LONG + "?", LONG.upper()]
    answers = [NEWS, NEWS + "。", LONG, NEWS[:-1] + "空"]
    found = near.alike([questions, answers]).pairs
    assert [(pair.first, pair.second) for pair in found] == [(1, 0), (1, 3), (0, 3)]


def test_names_of_rows_must_fit() -> None:
    with pytest.raises(DataError, match="2 rows but 1 names"):
        exact.refs(2, ["a.json:1"])


def test_a_text_shorter_than_a_shingle_is_its_own() -> None:
    assert shingles.shingles("cat") == {"cat"}
    assert shingles.shingles("") == {""}
    assert shingles.shingles("abcdefg") == {"abcde", "bcdef", "cdefg"}
    assert near.pairs(["cat", "dog", "cot", "", "猫", "狗"]) == []


def test_the_similarity_is_the_jaccard_of_the_shingles() -> None:
    """22 different letters have 18 shingles; one more at the end adds 1: 18 / 19."""
    text = "abcdefghijklmnopqrstuv"
    assert near.pairs([text, "something else", text + "w"]) == [near.Pair(0, 2, 18 / 19)]


@pytest.mark.parametrize(("count", "similarity"), [(1, 0.4), (14, 0.4), (18, 0.5), (54, 0.8), (500, 0.8)])
def test_short_texts_need_less(count: int, similarity: float) -> None:
    assert near.needed(count) == pytest.approx(similarity)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (LONG, LONG.replace("sheep", "sheeps")),
        (LONG, LONG.replace(".", "!")),
        (NEWS, NEWS.replace("总体", "总休")),
        (NEWS, NEWS + "。"),
        ("Has my top up gone through?", "Has my top-up gone through?"),
        ("The transfer I tried to make failed.", "The transger I tried to make failed."),
        ("你好，请问怎么修改登录密码", "你好请问怎么修改登录密码"),
    ],
)
def test_near_duplicates(a: str, b: str) -> None:
    assert [(p.first, p.second) for p in near.pairs([a, "unrelated words", b])] == [(0, 2)]


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("Your order 1021 left our warehouse.", "Your order 1022 left our warehouse.", "number"),
        ("第三章讲什么", "第四章讲什么", "number"),
        ("It costs 1,000 dollars.", "It costs 1000 dollars.", None),
        ("We waited two weeks for it.", "We waited three weeks for it.", "number"),
        ("You can cancel the order.", "You can not cancel the order.", "negation"),
        ("It does work.", "It doesn't work.", "negation"),
        ("这件商品支持退货", "这件商品不支持退货", "negation"),
        ("沪指今日大幅上涨", "沪指今日大幅上跌", "negation"),
        ("高手教你玩《猎刃》", "高手教你玩《剑灵》", "title"),
        ("We flew to Paris in spring.", "We flew to London in spring.", "name"),
        ("Paris is nice.", "paris is nice", None),
        ("我们春天去北京旅游", "我们春天去上海旅游", "word"),
        ("How do I top up by card?", "How do I top up by cheque?", "word"),
        ("What is the exchange rate?", "What is the exchange fee?", "word"),
        ("Where do I order a card?", "Where do I order a virtual card?", "word"),
        ("What is minimum age?", "What is the minimum age?", None),
        ("周一美股盘前必读", "周四美股盘前必读", "number"),
    ],
)
def test_what_tells_two_texts_apart(a: str, b: str, why: str | None) -> None:
    assert veto.differs(a, b, short=True) == why
    assert veto.differs(b, a, short=True) == why


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("我们春天去北京旅游", "我们春天去上海旅游"),
        ("昨天王小明在会上发言", "昨天李大海在会上发言"),
        ("我们春天去旅游", "我们春天去北京旅游"),
    ],
)
def test_chinese_names_tell_long_texts_apart(a: str, b: str) -> None:
    assert veto.differs(a, b) == veto.differs(b, a) == "name"


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("Who wins?", "What is lost?", "sentence"),
        ("Who opens the gate?", "Who opens the stable?", "sentence"),
        ("Who opens the gate?", "Who opens the gates?", None),
        ("Who opens the gate?", "Who opens the gate!", None),
        ("Who opens the gate?", "", None),
    ],
)
def test_another_question_about_a_long_text(a: str, b: str, why: str | None) -> None:
    text = f"{LONG} {LONG.replace('fox', 'cat')}\n"
    assert veto.differs(text + a, text + b) == veto.differs(text + b, text + a) == why
    assert veto.differs(f"{a} {text}", f"{b} {text}") == why


def test_a_reworded_sentence_inside_a_long_text_is_no_other_question() -> None:
    text = f"First, this. {LONG} And then it rained."
    assert veto.differs(text, text.replace("counts his sheep", "looks after the sheep")) is None
    assert (
        veto.differs(text, text.replace(LONG, "Nobody has ever seen a thing like that here.")) == "sentence"
    )


def test_numbers_and_names_keep_long_texts_apart() -> None:
    texts = [f"{NEWS},记者{name}报道,编号{number}" for name in ("张伟", "李娜") for number in (1021, 1022)]
    assert near.clusters(texts) == []


def test_the_keeper_is_reviewed_then_longest_then_first() -> None:
    texts = [LONG, LONG + "!", LONG.upper(), LONG + "!"]
    (cluster,) = near.clusters(texts, ["f:1", "f:2", "f:3", "f:4"])
    assert cluster.keeper == exact.Ref(1, "f:2")
    assert [(c.row.source, c.exact) for c in cluster.copies] == [
        ("f:1", False),
        ("f:3", False),
        ("f:4", True),
    ]
    (cluster,) = near.clusters(texts, reviewed=[False, False, True, False])
    assert cluster.keeper == exact.Ref(2, "row 3")


def test_clusters_are_stars_and_components_are_chains() -> None:
    """a ~ b ~ c, but a is not like c: the longest is kept with what resembles it, the last stays alone."""
    letters = "abcdefghijklmnopqrstuvwxyzäöüßéèàçñå"
    a = letters * 2 + "0"
    words = [f"{x}{y}{x}" for x in "abcdefghij" for y in "klmnopqrst"]
    base = " ".join(words[:60])
    a, b, c = base + " " + " ".join(words[60:72]), base + " " + " ".join(words[60:66]), base
    assert [(p.first, p.second) for p in near.pairs([a, b, c], 0.85)] == [(0, 1), (1, 2)]
    (cluster,) = near.clusters([a, b, c], threshold=0.85)
    assert (cluster.keeper.index, [copy.row.index for copy in cluster.copies]) == (0, [1])
    assert near.components([a, b, c, "alone"], 0.85) == [0, 0, 0, 3]


def test_an_instruction_that_all_rows_share_makes_no_duplicates() -> None:
    order = (
        "Sort the following headline into one of the ten sections of the newspaper and answer with its name: "
    )
    questions = [f"{a} {b}" for a in ("swimming", "elections", "tariffs", "novels") for b in WORDS]
    texts = [order + question for question in questions]
    assert near.pairs(texts) == []
    assert [(p.first, p.second) for p in near.pairs([*texts, texts[3] + "s"])] == [(3, len(texts))]


WORDS = [
    "delight everybody", "annoy shopkeepers", "were postponed", "cause quarrels", "win prizes",
    "bring nothing new", "return on Monday", "divide the cabinet", "make headlines", "end in tears",
]  # fmt: skip


def test_no_rows() -> None:
    assert near.pairs([]) == [] and near.clusters([]) == [] and near.components([]) == []
