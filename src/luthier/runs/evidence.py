"""What two runs answered to the same rows, held side by side: which is better, by how much, on which rows.

The figures are computed again from the kept answers (RUN/eval/NAME/answers.after.jsonl, or the predictions of
`luthier predict`), because two reports with intervals of their own say nothing about the difference: only
pairs do. `luthier.measure` has the metrics, intervals, tests and verdicts, the same as in an evaluation.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.errors import LuthierError, RunError
from luthier.measure import kinds, metrics, references, statistics, strings, tasks
from luthier.measure.metrics import mean, perplexity
from luthier.measure.statistics import Comparison
from luthier.measure.types import Answered, Measured
from luthier.runs import seal
from luthier.runs.notes import Note, note
from luthier.runs.run import Run

Record = dict[str, Any]
PREDICTED = "predictions"
"""The task that stands for generated_predictions.jsonl."""
_PREDICTIONS, _ANSWERS, _REPORT = "generated_predictions.jsonl", "answers.after.jsonl", "report.json"
_SEED = 42  # of the resamples: equal answers give equal intervals


class Unfit(Exception):
    """Why two evaluations cannot be compared, as a note."""

    def __init__(self, key: str, **values: Any) -> None:
        self.note: Note = note(key, **values)
        super().__init__(self.note["en"])


@dataclass(frozen=True)
class Seen:
    """One data set that a run was evaluated on.

    folder: of its files · detail, figures: details.{name} and tasks.{name} of report.json · limit: tokens
    after which answers ended · fresh: the weights are those that the run has now · thought: words around the
    thoughts of a reasoning model.
    """

    name: str
    folder: Path
    detail: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    fresh: bool = True
    thought: tuple[str, str] | None = None

    @property
    def kind(self) -> str:
        return str(self.detail["kind"])


@dataclass(frozen=True)
class Pair:
    """The second run against the first on the same rows.

    rated: the metric by which rows were won or lost, None where rows have no value of their own · won, lost:
    the rows that the second run answered better and worse, the clearest first.
    """

    kind: str
    figures: dict[str, Comparison]
    rated: str | None
    won: list[Record]
    lost: list[Record]
    equal: int
    notes: list[Note]


@dataclass(frozen=True)
class _Heard:
    """measured: metric -> its value · rows: source, input, reference, answer of each · each: value of each
    row, None where there is none."""

    measured: dict[str, Measured]
    rows: list[Record]
    each: Measured | None = None
    rated: str | None = None


def seen(run: Run) -> dict[str, Seen]:
    """Task -> the newest evaluation of the run on it; last, what it predicted. RunError: a broken report."""
    found: dict[str, Seen] = {}
    thought = run.marker.get("thought")
    reports = sorted(run.path.glob(f"eval/*/{_REPORT}"), key=lambda path: path.stat().st_mtime_ns)
    for path in reports:
        report = run.read_json(str(path.relative_to(run.path)))
        if not isinstance(report, dict) or not {"systems", "tasks", "details"} <= set(report):
            raise RunError(f"{path}: no report of luthier eval -> evaluate the run again")
        if "after" not in report["systems"]:
            continue
        fresh, limits = _fresh(run, report), report.get("decoding", {}).get("max_new_tokens", {})
        for name, figures in report["tasks"].items():
            if "kind" in report["details"].get(name, {}):
                detail = report["details"][name]
                found.pop(name, None)  # the newest comes last
                found[name] = Seen(
                    name, path.parent, detail, figures, limits.get(name), fresh, thought and tuple(thought)
                )
    if (run.path / _PREDICTIONS).is_file():
        detail = {"kind": PREDICTED}
        found[PREDICTED] = Seen(PREDICTED, run.path, detail, thought=thought and tuple(thought))
    return found


def leading(one: Seen) -> tuple[str, Mapping[str, Any]]:
    """The metric that stands for the task of an evaluation, with its figures."""
    name = kinds.leading(one.kind, one.figures)
    return name, one.figures[name]


def pair(before: Seen, after: Seen) -> Pair:
    """`after` against `before`. Raises Unfit where they have no rows, or no measure, in common."""
    for one in (before, after):
        if not one.fresh:
            raise Unfit("stale", folder=one.folder)
    if before.kind != after.kind:
        raise Unfit("other_kind", before=before.kind, after=after.kind)
    try:
        first, second, kind = _both(before, after)
        figures = statistics.compare_all(first.measured, second.measured, _SEED)
    except LuthierError as error:
        raise Unfit("not_scored", error=error) from error
    notes = []
    if before.limit != after.limit:
        notes.append(note("other_limit", before=before.limit, after=after.limit))
    if first.each is None or second.each is None:
        return Pair(kind, figures, None, [], [], 0, notes)
    gain = (second.each.each - first.each.each) * (1 if second.each.higher else -1)
    gain = np.where(np.abs(gain) < 1e-12, 0.0, gain)
    rows = [
        {**{key: new[key] for key in ("source", "input", "reference")}, "before": old["answer"],
         "after": new["answer"]}
        for old, new in zip(first.rows, second.rows, strict=True)
    ]  # fmt: skip
    won = [rows[i] for i in np.argsort(-gain, kind="stable") if gain[i] > 0]
    lost = [rows[i] for i in np.argsort(gain, kind="stable") if gain[i] < 0]
    return Pair(kind, figures, second.rated, won, lost, int(np.sum(gain == 0)), notes)


def _both(before: Seen, after: Seen) -> tuple[_Heard, _Heard, str]:
    """What both said, row by row the same rows, and the kind of the task."""
    if before.kind == PREDICTED:
        return _predicted(before, after)
    one, other = before.detail, after.detail
    if one.get("sha256") != other.get("sha256"):
        raise Unfit("other_rows", before=one.get("rows", "?"), after=other.get("rows", "?"))
    if before.kind == "suite":
        return _suite(before), _suite(after), before.kind
    if before.kind == "perplexity":
        first, second = _texts(before), _texts(after)
        if [row["tokens"] for row in first.rows] != [row["tokens"] for row in second.rows]:
            raise Unfit("other_tokens")
        return first, second, before.kind
    if one.get("tolerance") != other.get("tolerance"):
        raise Unfit("other_tolerance", before=one.get("tolerance"), after=other.get("tolerance"))
    labels = references.labels(one.get("labels") or (), other.get("labels") or ())
    return _answered(before, labels), _answered(after, labels), before.kind


# --- evaluations


def _answered(one: Seen, labels: Sequence[str]) -> _Heard:
    """labels: of both runs. Likelihoods are over the run's own, and count where these are all of them."""
    records = _records(one, one.name)
    if one.kind == "labels" and not labels:
        raise Unfit("no_labels", folder=one.folder)
    said = _said(records, one.thought, labels)
    scoring = {"relative": one.detail["tolerance"]} if "tolerance" in one.detail else {}
    heard = _measure(one.kind, said, records, **scoring)
    scores = _scores(one, labels)
    if scores is not None:
        likely = replace(said, answers=tuple(labels[i] for i in scores.argmax(1)), scores=scores)
        found = metrics.load("labels")(likely)
        found.pop("outside_labels", None)  # by its making never outside
        heard.measured.update({f"likelihood_{name}": value for name, value in found.items()})
    return heard


def _scores(one: Seen, labels: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """Log probability of each of these labels in each row; None where they are not the labels that the run
    was asked for, or a row has no usable one."""
    own = [strings.normalise(label) for label in one.detail.get("labels") or ()]
    wanted = [strings.normalise(label) for label in labels]
    job = f"{one.name}.likelihood"
    if one.kind != "labels" or sorted(own) != sorted(wanted) or job not in _kept(one):
        return None
    scores = np.array([record["scores"] for record in _records(one, job)], dtype=np.float64)
    usable = scores.shape[1:] == (len(own),) and bool(np.isfinite(scores.max(1)).all())
    return scores[:, [own.index(label) for label in wanted]] if usable else None


def _said(records: Sequence[Record], thought: tuple[str, str] | None, labels: Sequence[str] = ()) -> Answered:
    return Answered(
        tuple(record["source"] for record in records),
        tuple(record["input"] for record in records),
        tuple(record["reference"] for record in records),
        tuple(strings.without_thought(record["answer"], thought).strip() for record in records),
        labels=tuple(labels),
    )


def _measure(kind: str, said: Answered, records: Sequence[Record], **scoring: float) -> _Heard:
    metric = metrics.load(kinds.METRICS_OF.get(kind, kind))
    measured = dict(partial(metric, **scoring)(said))
    rated = kinds.leading(kind, measured)
    return _Heard(measured, list(records), measured[rated], rated)


def _suite(one: Seen) -> _Heard:
    """Of each ability the share of right answers; rows are rated right or wrong."""
    points = one.detail.get("points", {}).get("after")
    if points is None:
        raise Unfit("incomplete", file=one.folder / _REPORT, have=0, rows=one.detail.get("rows", "?"))
    right = {name: value for part in points.values() for name, value in part.items()}
    kept = {
        record["source"]: record
        for job, found in _kept(one).items()
        if job.startswith(f"{one.name}.")
        for record in found
    }
    rows = [kept.get(name, {"source": name, "input": "", "reference": "", "answer": ""}) for name in right]
    measured = {ability: mean(list(part.values())) for ability, part in points.items()}
    return _Heard(measured, rows, mean(list(right.values())), "right")


def _texts(one: Seen) -> _Heard:
    records = _records(one, one.name)
    if any("tokens" not in record for record in records):
        raise Unfit("no_tokens", folder=one.folder)
    nats = [float(record["scores"][0]) for record in records]
    found = {"perplexity": perplexity.measured(nats, [record["tokens"] for record in records])}
    return _Heard(found, list(records))


def _records(one: Seen, job: str) -> list[Record]:
    """The answers to one job, in the order of its rows. Raises Unfit where not all are there."""
    wanted = int(one.detail.get("rows", 0))
    groups: dict[str, dict[int, Record]] = {}
    for record in _kept(one).get(job, ()):
        groups.setdefault(record["fingerprint"], {})[record["row"]] = record
    whole = [group for group in groups.values() if sorted(group) == list(range(wanted))]
    if len(whole) != 1:
        have = max(map(len, groups.values()), default=0)
        raise Unfit("incomplete", file=one.folder / _ANSWERS, have=have, rows=wanted)
    return [whole[0][i] for i in range(wanted)]


def _kept(one: Seen) -> Mapping[str, Sequence[Record]]:
    path = one.folder / _ANSWERS
    return _lines(path, path.stat().st_mtime_ns) if path.is_file() else {}


@functools.lru_cache(maxsize=4)
def _lines(path: Path, changed: int) -> Mapping[str, Sequence[Record]]:
    """Job -> records; a line that is not whole, as a kill leaves it, is an answer that is missing."""
    found: dict[str, list[Record]] = {}
    for line in _rows(path):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"task", "fingerprint", "row"} <= set(record):
            found.setdefault(record["task"], []).append(record)
    return found


def _rows(path: Path) -> list[str]:
    """The lines of a JSONL file, whose texts may hold the other signs that Python ends a line at."""
    return [line for line in path.read_text("utf-8").split("\n") if line]


def _fresh(run: Run, report: Mapping[str, Any]) -> bool:
    """Whether the evaluation was of the weights that the run has now."""
    sums = run.path / seal.CHECKSUMS
    if not sums.is_file():
        return True
    used = report["systems"]["after"].get("weights", {}).values()
    hashes = {digest for folder in used for digest in folder.values()}
    now = {name: digest for name, digest in seal.read(sums)["files"].items() if name.endswith(".safetensors")}
    return not hashes or set(now.values()) <= hashes


# --- predictions


def _predicted(before: Seen, after: Seen) -> tuple[_Heard, _Heard, str]:
    """Rows are the same where prompt and label are; their order is that of the second run."""
    first, second = _predictions(before), _predictions(after)
    same = sum((Counter(map(_asked, first)) & Counter(map(_asked, second))).values())
    if not same or not same == len(first) == len(second):
        raise Unfit("other_predictions", same=same, before=len(first), after=len(second))
    places: dict[tuple[str, str], list[Record]] = {}
    for record in first:
        places.setdefault(_asked(record), []).append(record)
    aligned = [places[_asked(record)].pop(0) for record in second]
    task = tasks.recognise([tasks.Asked(record["input"], record["reference"]) for record in second])
    closed = task.kind == "labels"
    labels = references.labels(task.labels, [row["reference"] for row in second]) if closed else ()
    sides = [
        _measure(task.kind, _said(records, one.thought, labels), records)
        for one, records in ((before, aligned), (after, second))
    ]
    return sides[0], sides[1], task.kind


def _predictions(one: Seen) -> list[Record]:
    """Rows with a label, in the names of an evaluation's answers. Raises Unfit for a line that is none."""
    found = []
    for number, line in enumerate(_rows(one.folder / _PREDICTIONS), 1):
        try:
            row = json.loads(line)
            record = {"input": row["prompt"], "reference": row["label"].strip(), "answer": row["predict"]}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Unfit("broken_line", place=f"{one.folder / _PREDICTIONS}:{number}") from None
        if record["reference"]:
            found.append({"source": row.get("source", f"{_PREDICTIONS}:{number}"), **record})
    return found


def _asked(record: Record) -> tuple[str, str]:
    return record["input"], record["reference"]
