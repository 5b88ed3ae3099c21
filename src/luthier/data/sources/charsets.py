"""Which of the Chinese encodings text is in that is not UTF-8: GB18030 (with GBK and GB2312) or Big5.

Almost any bytes are "valid" in both, and Korean, Japanese and Russian text misread as GB18030 even consists
of ordinary Chinese characters. What gives it away is that they are not the frequent ones: of the ideographs
in Chinese headlines and dialogues 54 to 76 % are among those below, in misread text at most 10 %.
"""

from __future__ import annotations

import codecs
import re

FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家"
    "种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十"
    "民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯"
    "月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女"
    "变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基"
    "眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今"
    "切院让识候带导争运请您谢吗呢吧订单货款客服付费买卖商店价钱收退换查询"
    "這個們來為國時說會對後發過裡種經學現當沒動還進樣從實軍無與長機點業將兩間問並應戰頭體見產話門內東聲員論處義幾認條"
    "氣題爾別變總電數報結務場計給許統區隊決馬書聽卻達強難權則設記類據邊張該規萬覺術領確傳師觀讓識帶導爭運請謝嗎訂單貨"
    "費買賣價錢換詢"
)
IDEOGRAPHS = re.compile("[\u3400-\u9fff]+")
KANA = re.compile("[\u3041-\u30fe]+")
ASCII = re.compile("[\0-\x7f]+")
LEAST = 0.2  # of the ideographs that are frequent ones, for text to be taken as Chinese


def chinese(sample: bytes) -> str:
    """ "gb18030", "big5", or "" when text beginning with these bytes is plausible in neither."""
    shares = {name: _share(sample, name) for name in ("gb18030", "big5")}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= LEAST else ""


def _share(sample: bytes, name: str) -> float:
    """The share of frequent characters among the ideographs of the sample in this encoding; 0 for what is
    not valid or not everyday text in it."""
    try:
        text = codecs.getincrementaldecoder(name)().decode(sample)
    except UnicodeDecodeError:
        return 0.0
    ideographs = "".join(IDEOGRAPHS.findall(text))
    japanese = sum(map(len, KANA.findall(text))) > len(ideographs) / 10
    if not ideographs or japanese or (name == "gb18030" and not _everyday(ASCII.sub("", text))):
        return 0.0
    return sum(character in FREQUENT for character in ideographs) / len(ideographs)


def _everyday(foreign: str) -> bool:
    """Whether characters read as GB18030 are everyday simplified or traditional ones; those of misread
    Latin-1, Big5 and Shift-JIS are rare in both."""
    simplified, traditional = (
        len(foreign.encode(name, "ignore")) / (2 * len(foreign)) for name in ("gb2312", "big5")
    )
    return simplified > 0.6 or traditional > 0.9
