"""`luthier export`: the words of the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from luthier.config import load, resolve
from luthier.config.options import take
from luthier.errors import UsageError
from luthier.export import merge, places, serving, ship, upload
from luthier.model import machine
from luthier.streams import say

HELP = """usage: luthier export RUN|MODEL export_dir=DIR [--to ollama,hf] [--quant f16,q4_k_m] [key=value ...]

Merge adapters into their base, write the model, and prove that it is still the same one.

  --to TARGETS          hf (default): a directory that transformers and vLLM load; vllm: with its command;
                        gguf: files for llama.cpp, Ollama, LM Studio and Jan, each compared with the model on
                        its prompts; ollama: with its commands; lora-gguf: the adapter apart from its base
  --quant KINDS         of GGUF: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, … (default: f16)
  --importance true     round finest what matters most on the run's own prompts (an importance matrix)
  --gate "accuracy -1%" every file answers the rows that the run held out (--gate_dataset NAME: others), and
                        the smallest that loses no more than this is recommended
  --create NAME         import the best file into Ollama, where it is installed, and compare its answers
  --install PROGRAM     put the best file where lmstudio or jan looks for models
  --push NAME           upload all of it as owner/name once the proof holds, to --hub hf (default) or
                        modelscope; private unless export_hub_private=false
  --format json         print {"files", "parity", "gate", "next"}

Other keys:"""
TARGETS = ("hf", "gguf", "ollama", "lora-gguf", "vllm")
_FILES = {"gguf", "ollama", "lora-gguf"}


def main(args: Sequence[str]) -> int:
    """A summary to stdout, progress to stderr; 0 when everything that was asked for is proved and there."""
    if "--help" in args or "-h" in args:
        from luthier.config.cli import main_help

        print(HELP)
        return main_help("export")
    words, to = take(upload.words(args), "to")
    found: dict[str, str | None] = {}
    for name in ("quant", "importance", "gate", "gate_dataset", "create", "install"):
        words, found[name] = take(words, name)
    targets = _targets(to, found)
    if not _FILES & set(targets):
        given = next((name for name, value in found.items() if value is not None), None)
        if given is not None:
            raise UsageError(f"--{given}: is for GGUF files -> --to gguf")
        return _merged(words, "vllm" in targets)
    if found["importance"] not in (None, "true", "false"):
        raise UsageError(f"--importance: {found['importance']} -> true or false")
    kinds = _listed("quant", found["quant"] or "f16", ship.KINDS)
    weigh = found["importance"] == "true"
    if found["install"] not in (None, *places.PLACES):
        raise UsageError(f"--install {found['install']} -> one of {', '.join(places.PLACES)}")
    asked = (found[name] for name in ("gate", "gate_dataset", "create", "install"))
    order = ship.Order(tuple(targets), tuple(kinds), weigh, *asked)
    config = resolve(load(words, "export"), machine.detect())
    for note in config.notes:
        say(f"note: {note}")
    upload.check(config)
    result = ship.ship(config, order)
    print(json.dumps(result, ensure_ascii=False) if config.format == "json" else ship.table(result))
    if not result["parity"]["ok"]:
        return 1
    upload.push(Path(str(config.export_dir)), config)
    return 0


def _targets(to: str | None, found: Mapping[str, str | None]) -> list[str]:
    """What is asked for, with what that needs: Ollama and the programs of --install are given a GGUF file."""
    usual = "ollama" if found["create"] is not None else "hf" if found["install"] is None else "gguf"
    targets = _listed("to", to or usual, TARGETS)
    if "ollama" in targets or found["create"] is not None or found["install"] is not None:
        targets.append("gguf")
    if "vllm" in targets:
        targets.append("hf")
    return list(dict.fromkeys(targets))


def _merged(words: Sequence[str], vllm: bool) -> int:
    """A merged directory only; with the command for vLLM on stderr, as stdout may be JSON."""
    code = merge.main(list(words))
    if vllm:
        config = load(words, "export")
        say(f"Go on:  {serving.vllm(config, Path(str(config.export_dir)))}")
    return code


def _listed(name: str, value: str, known: Sequence[str]) -> list[str]:
    """Words between commas, each once. Raises UsageError that names those there are."""
    found = list(dict.fromkeys(word.strip().lower() for word in value.split(",") if word.strip()))
    strange = [word for word in found if word not in known]
    if strange or not found:
        raise UsageError(f"--{name} {value}: {', '.join(strange) or 'nothing'} -> some of {', '.join(known)}")
    return found
