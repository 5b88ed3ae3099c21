"""`luthier runs`: list, show, compare and reproduce runs (`resume` is a training, see train/run)."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.runs import compare, hashing, listing, manifest
from luthier.runs.run import CONFIG, RESOLVED, Run
from luthier.runs.seal import MANIFEST, verify

_USAGE = """\
luthier runs [DIR]                      runs below DIR (saves): status, step, loss, date
luthier runs show RUN                   what a run is made of, its checkpoints and results
luthier runs compare A B                what differs: configuration, data, versions, results
luthier runs reproduce RUN [--out DIR]  the command that makes the run again; is what it read unchanged?
luthier runs resume RUN [key=value …]   continue it from its newest whole checkpoint, as it was started
Each takes --format json."""

Answer = tuple[Any, list[str], int]


def main(args: Sequence[str]) -> int:
    """Answer `luthier runs ARGS`; returns the exit code. Raises LuthierError about what cannot be read."""
    verb = args[0] if args and args[0] in _VERBS else "list"
    rest = list(args[1:] if args and args[0] in _VERBS else args)
    request = _parser(verb).parse_args(rest)
    result, lines, code = _VERBS[verb](request)
    print(json.dumps(result, ensure_ascii=False, indent=2) if request.format == "json" else "\n".join(lines))
    return code


def _list(request: argparse.Namespace) -> Answer:
    root = Path(request.dir)
    if not root.is_dir():
        raise UsageError(f"{root}: no such directory; luthier runs DIR lists the runs below DIR")
    found = [listing.summary(run) for run in listing.find(root)]
    found.sort(key=lambda s: s.updated, reverse=True)
    header = ("run", "status", "step", "loss", "updated")
    rows = [(s.path, s.status, _steps(s), _number(s.loss), s.updated[:16].replace("T", " ")) for s in found]
    lines = _table([header, *rows]) if rows else [f"no runs below {root}"]
    return [asdict(s) for s in found], lines, 0


def _show(request: argparse.Namespace) -> Answer:
    run = Run.open(request.run)
    checkpoints = {str(folder): verify(folder) for folder in run.checkpoints()}
    result = {
        **run.marker,
        "status": run.status,
        "path": str(run.path),
        "files": sorted(entry.name for entry in run.path.iterdir()),
        "checkpoints": checkpoints,
        "last": (run.read_log() or [{}])[-1],
        "results": _json(run, "all_results.json"),
        "manifest": _json(run, MANIFEST),
    }
    lines = [
        f"{key}: {_plain(value)}" for key, value in result.items() if key not in ("checkpoints", "manifest")
    ]
    for folder, problems in checkpoints.items():
        lines.append(f"{folder}: {'; '.join(problems) or 'whole'}")
    return result, lines, 1 if any(checkpoints.values()) else 0


def _compare(request: argparse.Namespace) -> Answer:
    a, b = Run.open(request.a), Run.open(request.b)
    found = compare.all_changes(
        _json(a, RESOLVED), _json(b, RESOLVED), _json(a, MANIFEST), _json(b, MANIFEST)
    ) + compare.changes(_json(a, "all_results.json"), _json(b, "all_results.json"))
    rows = [(c.key, compare.shown(c.old), compare.shown(c.new)) for c in found]
    lines = _table([("key", str(a.path), str(b.path)), *rows]) if rows else ["no differences"]
    return [{"key": c.key, "a": c.old, "b": c.new} for c in found], lines, 0


def _reproduce(request: argparse.Namespace) -> Answer:
    run = Run.open(request.run)
    kept = run.read_json(MANIFEST)
    template = run.path / "template.jinja"
    differences, notes = manifest.check(kept, template.read_text("utf-8") if template.is_file() else None)
    if hashing.sha256_json(run.read_json(RESOLVED)) != kept.get("config"):
        differences.append(f"{run.path / RESOLVED} has changed")
    out = request.out or f"{run.path}-again"
    verb = run.marker.get("verb", "train")
    words = ["luthier", verb, os.path.abspath(run.path / CONFIG), f"output_dir={os.path.abspath(out)}"]
    command = shlex.join(words)
    if kept.get("cwd") not in (None, os.getcwd()):
        command = f"cd {shlex.quote(kept['cwd'])} && {command}"
    result = {
        "ok": not differences, "command": command, "config": (run.path / CONFIG).read_text("utf-8"),
        "differences": differences, "notes": notes,
    }  # fmt: skip
    lines = [command, *(f"differs: {d}" for d in differences), *(f"note: {n}" for n in notes)]
    if not differences:
        lines.append("data, template, tokenizer and base weights are those of the run")
    return result, lines, 1 if differences else 0


_VERBS = {"list": _list, "show": _show, "compare": _compare, "reproduce": _reproduce}
_PLACES = {"list": (), "show": ("run",), "compare": ("a", "b"), "reproduce": ("run",)}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}\n{_USAGE}")


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"luthier runs {verb}", usage=_USAGE, add_help=True)
    for place in _PLACES[verb]:
        parser.add_argument(place)
    if verb == "list":
        parser.add_argument("dir", nargs="?", default="saves")
    if verb == "reproduce":
        parser.add_argument("--out")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    return parser


def _json(run: Run, name: str) -> dict[str, Any]:
    """A JSON file of the run; {} when the run has none, as one that did not get that far."""
    return dict(run.read_json(name)) if (run.path / name).is_file() else {}


def _steps(s: listing.Summary) -> str:
    return "" if s.step is None else f"{s.step}/{s.total}" if s.total else str(s.step)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(rows: Sequence[Iterable[str]]) -> list[str]:
    cells = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
