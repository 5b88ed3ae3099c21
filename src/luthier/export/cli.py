"""`luthier export`: the words of the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence

from luthier.config import load, resolve
from luthier.config.options import take
from luthier.errors import UsageError
from luthier.export import merge, ship
from luthier.model import machine
from luthier.streams import say

HELP = """usage: luthier export RUN|MODEL export_dir=DIR [--to gguf[,hf]] [--quant f16,q4_k_m] [key=value ...]

Merge adapters into their base, write the model, and prove that it is still the same one.

  --to TARGETS          hf (default): a directory that transformers and vLLM load; gguf: files for llama.cpp,
                        Ollama, LM Studio and Jan, each compared with the model prompt by prompt
  --quant KINDS         of GGUF: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, … (default: f16)
  --importance true     round finest what matters most on the run's own prompts (an importance matrix)
  --format json         print {"files", "parity", "gate"}

Other keys:"""
TARGETS = ("hf", "gguf")


def main(args: Sequence[str]) -> int:
    """A summary to stdout, progress to stderr; 0 when everything that was asked for is proved and there."""
    if "--help" in args or "-h" in args:
        from luthier.config.cli import main_help

        print(HELP)
        return main_help("export")
    words, to = take(args, "to")
    words, quant = take(words, "quant")
    words, weigh = take(words, "importance")
    if weigh not in (None, "true", "false"):
        raise UsageError(f"--importance: {weigh} -> true or false")
    targets = _listed("to", to or "hf", TARGETS)
    if "gguf" not in targets:
        if quant is not None:
            raise UsageError("--quant: is for GGUF files -> --to gguf")
        return merge.main(words)
    kinds = _listed("quant", quant or "f16", ship.KINDS)
    config = resolve(load(words, "export"), machine.detect())
    for note in config.notes:
        say(f"note: {note}")
    result = ship.ship(config, targets, kinds, weigh == "true")
    print(json.dumps(result, ensure_ascii=False) if config.format == "json" else ship.table(result))
    return 0 if all(one["ok"] for one in result["parity"]["files"]) else 1


def _listed(name: str, value: str, known: Sequence[str]) -> list[str]:
    """Words between commas, each once. Raises UsageError that names those there are."""
    found = list(dict.fromkeys(word.strip().lower() for word in value.split(",") if word.strip()))
    strange = [word for word in found if word not in known]
    if strange or not found:
        raise UsageError(f"--{name} {value}: {', '.join(strange) or 'nothing'} -> some of {', '.join(known)}")
    return found
