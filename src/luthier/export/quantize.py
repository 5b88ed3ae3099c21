"""Smaller GGUF files: weights in the formats of llama.cpp, by its own code, in the mixtures that it makes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from luthier.errors import ExportError, MissingPackage
from luthier.export import mixtures
from luthier.gguf import read
from luthier.runs import atomic, space
from luthier.streams import say as to_stderr

Say = Callable[[str], None]
Importance = Mapping[str, npt.NDArray[np.float32]]
"""Name of a tensor -> mean square of each of its inputs, [columns], over real prompts."""


def quantize(
    source: Path, out: Path, kind: str, *, importance: Importance | None = None, say: Say | None = None
) -> Path:
    """Write `source` (f32, f16 or bf16) as `kind`, whole or not at all; returns `out`.

    Memory holds one tensor at a time. Raises UsageError for a kind that there is not or that needs an
    importance matrix, RunError where the disk has too little room, ExportError with what llama.cpp said.
    """
    head = read.header(source)
    plan = mixtures.plan(head, kind, importance is not None)
    (say or to_stderr)(f"{out.name}: quantizing {space.shown(sum(t.bytes for t in head.tensors))}")
    out.parent.mkdir(parents=True, exist_ok=True)
    space.require(
        source.stat().st_size, out.parent, f"writing {out.name}", "free some, or give another place"
    )
    with atomic.explained(out), atomic.scratch(out) as folder:
        told = None
        if importance is not None:
            told = folder / "importance.npz"
            arrays = {name: np.asarray(values, np.float32) for name, values in importance.items()}
            np.savez(told, **arrays)  # type: ignore[arg-type]
        made = folder / out.name
        order = {
            "source": str(source.resolve()),
            "out": str(made.resolve()),
            "kind": file_type(kind),
            "plan": plan,
            "importance": str(told) if told else None,
        }
        _run(order, out)
        read.header(made)
        atomic.settle(made, out)
    return out


def file_type(kind: str) -> int:
    """`general.file_type`: llama.cpp's number of a mixture. Raises MissingPackage."""
    try:
        from gguf import LlamaFileType
    except ImportError as error:
        raise MissingPackage("gguf", "writing GGUF files", "gguf") from error
    return int(LlamaFileType[f"MOSTLY_{kind.upper()}"])


def _run(order: Mapping[str, object], out: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "luthier.export.quantize_child"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-5:])
        raise ExportError(f"{out.name}: llama.cpp could not quantize (status {done.returncode})\n{said}")
