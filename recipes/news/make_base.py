"""A small base for headlines: a tokenizer learnt from them, and a Qwen3 model with random weights.

    python recipes/news/make_base.py DATA WORK

DATA holds train.json (sharegpt, "新闻分类：<headline>" -> class). WORK gets the headlines without their
classes, as text to pre-train on, and the untrained model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from luthier.demo import tokenizer
from luthier.demo.start import untrained


def main(data: Path, work: Path) -> None:
    rows = json.loads((data / "train.json").read_text(encoding="utf-8"))
    headlines = [row["conversations"][0]["value"] for row in rows]
    (work / "data").mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("headlines.json", [{"text": text} for text in headlines]),
        ("dataset_info.json", {"headlines": {"file_name": "headlines.json", "columns": {"prompt": "text"}}}),
    ):
        (work / "data" / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    tokenizer.train(headlines, work / "start", vocabulary=8000)
    print(untrained(work / "start", layers=3, key_value_heads=4, length=1024))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
