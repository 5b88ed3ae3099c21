"""How many rows a second the checks and steps on texts do, on one core: CPU time, texts of ~100 characters.

    python benchmarks/text_checks.py [FILE.json …]

Without files, texts are made: Chinese and English prose with and without personal data. A file is a JSON
list of objects, whose texts are cut into pieces of 100 characters.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from luthier.prepare import fakes, measure, mojibake, normal, pii, text
from luthier.prepare.steps import STEPS, load

ZH = (
    "今天天气很好，我们去公园散步。2024年5月14日，价格是1234.56元，版本3.2.1发布，共有15个项目，"
    "订单编号20240514000123已完成，请查收。模型训练完成后，进行评估和部署，结果符合预期，可以上线。"
)
EN = (
    "The quick brown fox jumps over the lazy dog on 2024-05-14 at 10:30. Version 3.2.1 costs $12.50, "
    "and order 20240514000123 has shipped."
)


def made(count: int) -> dict[str, list[str]]:
    """Texts of about 100 characters by kind; numbers differ from row to row."""
    random.seed(0)

    def row(base: str, private: bool) -> str:
        cut = random.randrange(20)
        piece = base[cut : cut + (60 if private else 100)]
        if not private:
            return piece
        first = f"1101051949123{random.randrange(1000, 2000)}"
        mail = f"a{random.randrange(999)}@qq.com"
        return f"{piece} 1380013{random.randrange(1000, 9999)}，{mail}，{first}{fakes.id_card_digit(first)}"

    return {
        "zh": [row(ZH, False) for _ in range(count)],
        "en": [row(EN, False) for _ in range(count)],
        "zh, personal data in every row": [row(ZH, True) for _ in range(count)],
    }


def of_file(path: str) -> list[str]:
    """Texts of a JSON list of objects, in pieces of 100 characters."""
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    texts = (value for row in rows for value in row.values() if isinstance(value, str))
    return [whole[at : at + 100] for whole in texts for at in range(0, len(whole), 100)]


def per_second(work: Callable[[str], Any], rows: Sequence[str]) -> float:
    """Rows per second of user CPU time, the first call (which compiles patterns) left out."""
    work(rows[0])
    start = time.process_time()
    for row in rows:
        work(row)
    return len(rows) / (time.process_time() - start)


def main(paths: Sequence[str]) -> None:
    sets = {path: of_file(path) for path in paths} or made(5000)
    work: dict[str, Callable[[str], Any]] = {"pii": pii.find, "normal": normal.normalise, **text.CHECKS}
    work |= {"mojibake": mojibake.find, "strays": measure.strays, "measures": measure.measures}
    work |= {"language": measure.language, "pii fakes": lambda row: pii.pseudonymise(row, "key")}
    work |= {name: load(name) for name, row in STEPS.items() if row.on and row.takes == "text"}
    every = [*text.CHECKS.values(), pii.find, normal.normalise, measure.strays, measure.beyond]
    work["all checks together"] = lambda row: [check(row) for check in every]
    for name, rows in sets.items():
        size = sum(map(len, rows)) / len(rows)
        print(f"{name}: {len(rows)} rows of {size:.0f} characters")
        for what, function in work.items():
            print(f"  {what:24} {per_second(function, rows):>10,.0f} rows/s")


if __name__ == "__main__":
    main(sys.argv[1:])
