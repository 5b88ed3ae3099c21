"""Store a finished base in float16 as the package ships it: weights, configuration and tokenizer, no more.

python recipes/demo_base/ship.py out/demo_base src/luthier/demo/base
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(work: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(work / "base", dtype=torch.float16)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(work / "base").save_pretrained(target)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {model.num_parameters():,} parameters, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
