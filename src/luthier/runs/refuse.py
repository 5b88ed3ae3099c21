"""What may be in a directory that a run is to be written into, and what must not be touched there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from luthier.errors import RunError
from luthier.runs import log
from luthier.runs.seal import CHECKSUMS, MANIFEST, MARKER

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# What a run of luthier's, or of LLaMA-Factory, leaves at the top: `overwrite` deletes these and nothing else.
RESULTS = (
    log.NAME, "trainer_log.damaged-*.jsonl", "trainer_state.json", "*_results.json",
    "generated_predictions.jsonl", "training_*.png", "adapter_config.json", "*.safetensors",
    "*.safetensors.index.json", "checkpoint-*",
)  # fmt: skip
OURS = (
    MARKER, "config.yaml", "config.resolved.json", MANIFEST, CHECKSUMS, "template.jinja", "ledger.json",
    "rejected.jsonl", log.SAMPLES, "samples.damaged-*.jsonl",
)  # fmt: skip
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
# Hidden files and the redirected output of a job do not make a directory occupied.
_UNSEEN = re.compile(r"\..*|.*\.(log|out|err)")


def inputs(path: Path, names: Iterable[str | Path]) -> None:
    """Raise RunError when emptying `path` would delete what the run is to read."""
    for name in names:
        if Path(name).exists() and Path(name).resolve().is_relative_to(path.resolve()):
            raise RunError(
                f"overwrite_output_dir: would delete {name}, which this run reads, because it is in {path}; "
                "give another output_dir"
            )


def others(path: Path, overwrite: bool, continues: bool) -> None:
    """Raise RunError when `path` holds something that a new run must not be written into.

    continues: it is a run that can be continued, or that ended before anything was finished.
    """
    entries = sorted(e.name for e in path.iterdir() if not _UNSEEN.fullmatch(e.name)) if path.is_dir() else []
    weights = any(any(path.glob(pattern)) for pattern in _WEIGHTS)
    trainer = log.NAME in entries or any(CHECKPOINT.fullmatch(name) for name in entries)
    replace = "set overwrite_output_dir: true to replace it, or give another"
    if not entries:
        return
    if MARKER in entries:
        if overwrite or continues or not weights:
            return
        what, instead = "a finished run without checkpoints", replace
    elif trainer:
        if overwrite:
            return
        what, instead = "the run of another program", replace
    elif weights:
        what, instead = "a model that is not a run of luthier's", "give another"
    else:
        ours = sorted({*entries} & {*OURS})
        if overwrite and not ours:
            return
        what = f"files that are not a run ({', '.join((ours or entries)[:3])})"
        instead = "give an empty one" + (
            "" if ours else ", or set overwrite_output_dir: true to write beside them"
        )
    raise RunError(f"output_dir: {path} is not empty: it holds {what}; {instead}")
