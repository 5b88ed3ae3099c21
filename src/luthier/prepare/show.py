"""`luthier data show`: the text that a model would read, and which part of it it would learn to write."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from luthier.config import Config, check, read
from luthier.data import prepare, registry
from luthier.data.ledger import Ledger
from luthier.data.render import Renderer
from luthier.errors import UsageError
from luthier.types import BadRow, Example

USAGE = """usage: luthier data show FILE|DATASET --model DIR|RUN [--template NAME] [--format json]

Prints each row as the model would read it; what it would learn to write stands in [[ ]]. Any key of the
configuration may follow (max_samples=10, mask_history=true). With --format json, one object a line:
{"source": "file:row", "text": "...", "trained": [[start, end], ...]} with offsets in characters; a row that
cannot be used has "field" and "reason" instead of "text" and "trained"; preference pairs have "rejected"
(text, trained) beside the chosen answer, KTO rows their "verdict"."""


def main(args: Sequence[str]) -> int:
    """Print the rows of the data sets in `args` as they would be trained on; 1 when a row cannot be used."""
    from luthier.model import load

    config = _config(args)
    renderer = Renderer.of(config, load.tokenizer(config))
    _say(*config.notes, *renderer.notes)
    bad = 0
    for spec in registry.specs(config.dataset, config.dataset_dir, hub=prepare.hub_of(config)):
        stage = "pt" if _is_text(spec) else config.stage
        ledger = Ledger(spec.name, notes=list(spec.notes))
        for row in prepare.examples(spec, stage, config.max_samples, ledger):
            _say(*ledger.notes)
            ledger.notes.clear()
            if isinstance(row, BadRow):
                bad += 1
                print(_bad(row, config.format == "json"))
                continue
            print(_good(row, renderer, config.format == "json"))
    return 1 if bad else 0


def _is_text(spec: registry.DatasetSpec) -> bool:
    """Text to go on with: it has its own format, or, as LLaMA-Factory lists it, a prompt and no response."""
    alone = spec.formatting == "alpaca" and not spec.columns.get("response")
    return spec.formatting == "text" or (alone and not spec.ranking)


def _config(args: Sequence[str]) -> Config:
    """`FILE --model DIR …` as a configuration of the verb `data`."""
    if not args or args[0].startswith("-"):
        raise UsageError("data show: which data? -> luthier data show FILE|DATASET --model DIR")
    named = {"--model": "--model_name_or_path", "-m": "--model_name_or_path"}
    words = [f"--dataset={args[0]}"]
    for word in args[1:]:
        key, equals, value = word.partition("=")
        words.append(named.get(key, key) + equals + value)
    return check(read(words, os.environ), "data")


def _say(*notes: str) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _bad(row: BadRow, as_json: bool) -> str:
    if as_json:
        return json.dumps(
            {"source": row.source, "field": row.field, "reason": row.reason}, ensure_ascii=False
        )
    return f"--- {row.source}: {row.field + ': ' if row.field else ''}{row.reason}"


def _good(row: Example, renderer: Renderer, as_json: bool) -> str:
    """A row as the model reads it; a pair's rejected answer stands beside the chosen one."""
    text, trained = renderer.show(row)
    shown: dict[str, Any] = {"source": row.source, "text": text, "trained": [list(span) for span in trained]}
    if row.verdict is not None:
        shown["verdict"] = row.verdict
    if len(row.branches) > 1:
        text, trained = renderer.show(replace(row, branches=row.branches[1:]))
        shown["rejected"] = {"text": text, "trained": [list(span) for span in trained]}
    if as_json:
        return json.dumps(shown, ensure_ascii=False)
    verdict = "" if row.verdict is None else f" (verdict: {str(row.verdict).lower()})"
    lines = [f"--- {row.source}{verdict}", _marked(shown)]
    if "rejected" in shown:
        lines += ["--- rejected", _marked(shown["rejected"])]
    return "\n".join(lines)


def _marked(shown: Mapping[str, Any]) -> str:
    text, marked, last = shown["text"], "", 0
    for start, end in shown["trained"]:
        marked += text[last:start] + "[[" + text[start:end] + "]]"
        last = end
    return str(marked + text[last:])
