"""Which quantized file is small enough and still good enough: the task's own metric decides.

Every file answers the same held-out rows as the merged model, by llama.cpp as it serves them. A file passes
when it is worse by no more than the user allows; it is recommended only when the 95 % interval of the
difference says so too, because on few rows anything may look equal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.config import Config, load, resolve
from luthier.errors import UsageError
from luthier.evaluate import sets
from luthier.evaluate.answers import Job
from luthier.evaluate.sets import Set
from luthier.infer import questions
from luthier.infer.engine import Generation, generation, text_of
from luthier.infer.llama_cpp import LlamaCpp
from luthier.measure import statistics
from luthier.measure.types import Measured
from luthier.model import machine
from luthier.streams import say

if TYPE_CHECKING:
    from luthier.data.render import Renderer
    from luthier.infer.engine import Engine

MOST = 1000
"""Rows that are asked at most; the first ones, the same of every file."""
_WORDS = re.compile(r"\s*([\w-]+)\s*-\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class Gate:
    """metric: of the task, such as "accuracy" · allowed: how much worse it may become, in its own unit."""

    metric: str
    allowed: float


@dataclass(frozen=True)
class Exam:
    """The rows that every file answers. options: the decoding, the same for all."""

    gate: Gate
    one: Set
    job: Job
    renderer: Renderer
    options: Generation


@dataclass(frozen=True)
class Marks:
    """How one system did. speed: tokens written in a second, by this machine."""

    measured: Measured
    speed: float


def parse(text: str) -> Gate:
    """Read "accuracy -1%". Raises UsageError."""
    found = _WORDS.fullmatch(text)
    if not found:
        raise UsageError(f'--gate {text}: is not understood -> a metric and what it may lose: "accuracy -1%"')
    return Gate(found[1], float(found[2]) / (100 if found[3] else 1))


def exam(gate: Gate, config: Config, dataset: str | None, renderer: Renderer, context: int) -> Exam:
    """The held-out rows of the run, or those of `dataset`.

    Raises UsageError where there are none, or where their task has no such metric; DataError.
    """
    if config.run is None and dataset is None:
        raise UsageError("--gate: which rows? -> --gate_dataset NAME")
    words = [str(config.run)] if config.run else [f"model_name_or_path={config.model_name_or_path}"]
    words += [f"dataset_dir={config.dataset_dir}"] if config.is_set("dataset_dir") else []
    asked = resolve(load([*words, *(["--dataset", dataset] if dataset else [])], "predict"), machine.detect())
    if dataset is None and not asked.eval_dataset and not asked.val_size:
        raise UsageError("--gate: the run held out no rows -> --gate_dataset NAME")
    rows = questions.questions(asked, renderer, say)[:MOST]
    found = sets.sets(rows, None, None, renderer.template.thought)
    if len(found) > 1:
        say(f"note: the gate looks at {found[0].name} only")
    options = generation(asked, renderer, do_sample=False)
    job = sets.jobs(found[0], options, renderer, asked.is_set("max_new_tokens"), context)[0]
    if job.options is None:
        raise UsageError(f"--gate: {found[0].name} asks for no answers (perplexity) -> --gate_dataset NAME")
    made = Exam(gate, found[0], job, renderer, job.options)
    known = sets.metric_of(made.one)(_said(made, [""] * len(job.prompts)))
    if gate.metric not in known:
        raise UsageError(f"--gate {gate.metric}: of a {made.one.task.kind} task there are {', '.join(known)}")
    return made


def take(exam: Exam, engine: Engine) -> Marks:
    """Have an engine answer the rows."""
    began = time.perf_counter()
    said = engine.generate(exam.job.prompts, exam.options)
    seconds = max(time.perf_counter() - began, 1e-9)
    texts = [text_of(exam.renderer.tokenizer, ids, exam.options) for ids in said]
    measured = sets.metric_of(exam.one)(_said(exam, texts))[exam.gate.metric]
    return Marks(measured, sum(map(len, said)) / seconds)


def judge(
    exam: Exam, right: Marks, files: Sequence[tuple[Path, dict[str, Any]]], seed: int
) -> list[dict[str, Any]]:
    """One row for each file, in order. files: each with its proof · "recommended" is true for at most one."""
    rows: list[dict[str, Any]] = []
    for path, proved in files:
        say(f"{path.name}: {len(exam.job.prompts)} rows of {exam.one.name}")
        with LlamaCpp(path) as opened:
            marks = take(exam, opened)
        found = statistics.compare(right.measured, marks.measured, seed)
        sign = 1 if right.measured.higher else -1
        rows.append(
            {
                "file": path.name,
                "kind": proved["kind"],
                "bytes": path.stat().st_size,
                "mean_kl": proved["logits"]["mean_kl"],
                "same_top": proved["logits"]["same_top"],
                "metric": exam.gate.metric,
                "before": found.before,
                "after": found.after,
                "delta": found.delta,
                "low": found.low,
                "high": found.high,
                "n": found.n,
                "tokens_per_second": round(marks.speed, 1),
                "allowed": exam.gate.allowed,
                "within": sign * found.delta >= -exam.gate.allowed,
                "sure": (found.low if sign > 0 else -found.high) >= -exam.gate.allowed,
                "recommended": False,
            }
        )
    good = [row for row in rows if row["sure"]] or [row for row in rows if row["within"]]
    if good:
        min(good, key=lambda row: int(row["bytes"]))["recommended"] = True
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The gate for a terminal, with the recommendation in words."""
    if not rows:
        return []
    metric, allowed = rows[0]["metric"], rows[0]["allowed"]
    lines = ["", f"{'kind':<8} {'size':>9} {metric:>10} {'difference (95 %)':>26} {'tok/s':>8}"]
    for row in rows:
        told = f"{row['delta']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        state = "sure" if row["sure"] else "within" if row["within"] else "too much lost"
        lines.append(
            f"{row['kind']:<8} {row['bytes'] / 1e6:>6.1f} MB {row['after']:>10.3f} {told:>26}"
            f" {row['tokens_per_second']:>8,.0f}  {state}"
        )
    best = next((row for row in rows if row["recommended"]), None)
    if best is None:
        return [*lines, f"none loses at most {allowed:g}: take a larger kind"]
    doubt = "" if best["sure"] else f"; on {best['n']} rows a larger loss cannot be excluded"
    return [
        *lines,
        f"recommended: {best['file']}, the smallest that loses at most {allowed:g} of {metric}{doubt}",
    ]


def _said(exam: Exam, texts: Sequence[str]) -> Any:
    records = [{**row, "answer": text, "cut": False} for row, text in zip(exam.job.rows, texts, strict=True)]
    return sets.measure(exam.one, {exam.one.name: records}, exam.renderer.template.thought)[""]
