"""Encodings x kinds of file: read with a note, or refused with the place; never read as something else."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from bad_files.case import CSV, GOOD, ROWS, Case, asked, dumps, file, jsonl, made, pair

ONE_LINE = [GOOD[0], ("a, b", 'say "c"')]
TEXTS = {
    "json": dumps(ROWS),
    "jsonl": jsonl(ROWS),
    "csv": CSV,
    "tsv": CSV.replace(",", "\t").replace("a\t b", "a, b"),
}
# encoding -> (the bytes of a text, part of the note)
READ: dict[str, tuple[Callable[[str], bytes], str]] = {
    "UTF-8": (lambda text: text.encode(), ""),
    "UTF-8 with BOM": (lambda text: text.encode("utf-8-sig"), ""),
    "UTF-8 with two BOMs": (lambda text: codecs.BOM_UTF8 + text.encode("utf-8-sig"), ""),
    "UTF-16-LE with BOM": (lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"), "read as UTF-16"),
    "UTF-16-BE with BOM": (lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"), "read as UTF-16"),
    "UTF-16-LE without BOM": (lambda text: text.encode("utf-16-le"), "read as UTF-16"),
    "UTF-16-BE without BOM": (lambda text: text.encode("utf-16-be"), "read as UTF-16"),
    "UTF-32 with BOM": (lambda text: text.encode("utf-32"), "read as UTF-32"),
    "GB18030": (lambda text: text.encode("gb18030"), "read as GB18030 (GBK); it is not UTF-8"),
}
TRADITIONAL = ("請問你們什麼時候開門？", "您好！我們早上九點開門，下午五點關門。")
# encoding -> (question, answer): refused, as what it is cannot be told from its bytes
FOREIGN = {
    "shift_jis": ("営業時間は何時からですか", "午前九時から午後五時までです。"),
    "euc_jp": ("営業時間は何時からですか", "午前九時から午後五時までです。"),
    "euc_kr": ("영업 시간이 어떻게 되나요", "오전 아홉 시부터 오후 다섯 시까지입니다."),
    "cp1251": ("Когда вы открываетесь завтра", "Здравствуйте! Мы работаем с девяти часов утра."),
    "koi8_r": ("Когда вы открываетесь завтра", "Здравствуйте! Мы работаем с девяти часов утра."),
    "latin_1": ("Où êtes-vous situé à Orléans", "Très près de l'église, à côté de la forêt."),
    "cp1252": ("Wann öffnen Sie „morgen“", "Wir öffnen für Sie täglich um neun – außer sonntags."),
    "iso8859_7": ("Πότε ανοίγετε αύριο το πρωί", "Ανοίγουμε κάθε μέρα στις εννέα το πρωί."),
    "cp1256": ("متى تفتحون أبوابكم غدا", "نفتح كل يوم في الساعة التاسعة صباحا."),
    "cp874": ("พรุ่งนี้เปิดกี่โมง", "เราเปิดทุกวันตั้งแต่เวลาเก้าโมงเช้า"),
}


def _asked(question: str, answer: str) -> str:
    return jsonl([{"instruction": question, "output": answer}] * 3)


def _damaged(at: int, damage: bytes, count: int = 6000, kind: str = "jsonl") -> bytes:
    """Rows 1 to `count` in UTF-8, with bytes that are none in the answer of row `at`."""
    if kind == "csv":
        lines = ["instruction,output", *(f"question {n},answer {n}" for n in range(1, count + 1))]
        content = "\n".join(lines) + "\n"
    else:
        content = jsonl([pair(n) for n in range(1, count + 1)])
    return content.encode().replace(b"answer %d" % at, b"answer " + damage, 1)


_IS = "holds bytes that are not UTF-8"
CASES: dict[str, Case] = {
    **{
        f"{kind} in {name}": Case(file(encode(text), f"d.{kind}"), GOOD, notes=[said] if said else [])
        for kind, text in TEXTS.items()
        for name, (encode, said) in READ.items()
    },
    **{
        f"{kind} in Big5": Case(
            file(text.encode("big5"), f"d.{kind}"), [TRADITIONAL], notes=["read as Big5; it is not UTF-8"]
        )
        for kind, text in (
            ("csv", "instruction,output\n" + ",".join(TRADITIONAL) + "\n"),
            ("json", dumps([dict(zip(ROWS[0], TRADITIONAL, strict=True))])),
        )
    },
    **{
        f"jsonl in {name}": Case(
            file(_asked(*texts).encode(name), "d.jsonl"), refused="save the file as UTF-8"
        )
        for name, texts in FOREIGN.items()
    },
    "txt in GBK": Case(
        file("我们的地址在哪里？\n就在车站的旁边。\n".encode("gbk"), "d.txt"),
        [("我们的地址在哪里？",), ("就在车站的旁边。",)],
        notes=["read as GB18030 (GBK)"],
        stage="pt",
    ),
    "traditional Chinese in GBK": Case(
        file(_asked(*TRADITIONAL).encode("gbk"), "d.jsonl"), [TRADITIONAL] * 3, notes=["GB18030"]
    ),
    "characters that only GB18030 has": Case(
        file(_asked("这个字怎么读，是什么意思：㐂𠮷？", "我不知道😀。").encode("gb18030"), "d.jsonl"),
        [("这个字怎么读，是什么意思：㐂𠮷？", "我不知道😀。")] * 3,
        notes=["GB18030"],
    ),
    "an invalid byte in row 5,001 of jsonl": Case(
        made(lambda: _damaged(5001, b"\xff"), "d.jsonl"),
        asked(*range(1, 5001), *range(5002, 6001)),
        [(5001, "output", _IS + " (0xff)")],
        ["line 5001: byte offset 287837: not valid UTF-8"],
    ),
    "an invalid byte in row 5,001 of csv": Case(
        made(lambda: _damaged(5001, b"\xe9t\xe9", kind="csv"), "d.csv"),
        asked(*range(1, 5001), *range(5002, 6001)),
        [(5001, "output", _IS + " (0xe9")],
        ["line 5002: byte offset"],
    ),
    "half of a character in row 1": Case(
        file(
            jsonl(ROWS[:1] * 40).replace("早上", "早", 1).encode().replace("早九".encode(), b"\xe6\x97", 1),
            "d.jsonl",
        ),
        GOOD[:1] * 39,
        [(1, "output", _IS)],
        ["line 1: byte offset"],
    ),
    "one row in GBK among UTF-8 rows": Case(
        file(
            jsonl(ROWS[:1] * 9).encode() + jsonl(ROWS[:1]).encode("gbk") + jsonl(ROWS[1:]).encode(), "d.jsonl"
        ),
        GOOD[:1] * 9 + GOOD[1:],
        [(10, "instruction", _IS)],
        ["line 10: byte offset"],
    ),
    "one row in Latin-1 among UTF-8 rows": Case(
        file(jsonl(ROWS * 9).encode() + b'{"instruction": "caf\xe9", "output": "ol\xe9!"}\n', "d.jsonl"),
        GOOD * 9,
        [(19, "instruction", _IS)],
        ["line 19: byte offset"],
    ),
    "half UTF-8 and half GBK": Case(
        file(jsonl(ROWS[:1] * 5).encode("gbk") + jsonl(ROWS[:1] * 5).encode(), "d.jsonl"),
        refused="d.jsonl: line 1: byte offset 17: ",
    ),
    "UTF-8 that says it is UTF-16": Case(
        file(codecs.BOM_UTF16_LE + jsonl(ROWS).encode() + b" ", "d.jsonl"),
        refused="none of its first rows can be read",
    ),
    "UTF-16 cut in the middle": Case(
        file(jsonl(ROWS).encode("utf-16")[:-3], "d.jsonl"),
        GOOD[:1],
        [(2, "<end of file>", "truncated at line 2")],
        ["read as UTF-16", "ends in the middle of a character"],
    ),
    "GBK cut in the middle of a character": Case(
        file(jsonl(ROWS[:1] * 2).encode("gbk")[:-4], "d.jsonl"),
        GOOD[:1],
        [(2, "<end of file>", "truncated at line 2")],
        ["read as GB18030", "ends in the middle of a character"],
    ),
    "UTF-8 cut in the middle of a character": Case(
        file(jsonl(ROWS[:1] * 2).encode()[:-5], "d.jsonl"),
        GOOD[:1],
        [(2, "<end of file>", "truncated at line 2")],
        ["ends in the middle of a character"],
    ),
    "one NUL in UTF-8": Case(
        file(jsonl([pair(1)]).replace("answer", "ans\0wer"), "d.jsonl"), [("question 1", "ans\0wer 1")]
    ),
    "NULs after the end, as a crash leaves them": Case(
        file(jsonl([pair(1), pair(2)]) + "\0" * 3000, "d.jsonl"), asked(1, 2), notes=["NUL"]
    ),
    "only NULs": Case(file(b"\0" * 5000), refused="d.json: "),
    "random bytes": Case(
        file(bytes(range(128, 256)) * 40, "d.jsonl"), refused="d.jsonl: line 1: byte offset 0"
    ),
    "a BOM before every line": Case(
        file("".join("\ufeff" + line for line in jsonl(ROWS).splitlines(True)), "d.jsonl"), GOOD
    ),
    "surrogates written as UTF-8 (CESU-8)": Case(
        file(
            jsonl([pair(n) for n in range(1, 41)]).encode().replace(b"answer 7", b"\xed\xa0\xbd\xed\xb8\x80"),
            "d.jsonl",
        ),
        asked(*range(1, 7), *range(8, 41)),
        [(7, "output", _IS)],
        ["line 7: byte offset"],
    ),
    "UTF-7": Case(file("+YhE-", "d.json"), refused="begins with"),
}
