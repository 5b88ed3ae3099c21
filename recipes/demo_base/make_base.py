"""The starting point of the demo's base: its texts, its tokenizer, and a Qwen3 model with random weights.

python recipes/demo_base/make_base.py out/demo_base
"""

from __future__ import annotations

import sys
from pathlib import Path

from luthier.demo import corpus, tokenizer
from luthier.demo.start import untrained

SEED = 0


def main(directory: Path) -> None:
    corpus.write(directory / "data", SEED)
    talk = (text for turns in corpus.conversations(SEED) for turn in turns for text in turn)
    tokenizer.train([*corpus.documents(SEED), *talk], directory / "start")
    print(untrained(directory / "start", layers=4, key_value_heads=2, length=2048, seed=SEED))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo_base"))
