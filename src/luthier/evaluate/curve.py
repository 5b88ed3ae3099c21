"""`luthier eval RUN --curve 10,25,50,100`: what did the amount of data bring, and what would twice as much?

The run is trained again on nested shares of its own data (`subsets`), with its own configuration and base and
as many epochs; steps, and the steps of the warm-up, shrink with the rows. Each training is an ordinary run in
curve/SHARE, of which only the final weights stay; its answers to the evaluated rows are kept beside them. A
training that is finished, with the same settings, rows and base, is not done again; one that was stopped goes
on from its last checkpoint. 100 is the run itself, as long as its data is what it was.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import ConfigError, DataError, LuthierError, UsageError
from luthier.evaluate import report, subsets
from luthier.evaluate.answers import Kept, answer
from luthier.evaluate.notes import Note, note
from luthier.evaluate.plan import Plan
from luthier.evaluate.report import finite
from luthier.evaluate.results import Got, hear
from luthier.evaluate.sets import Set
from luthier.evaluate.systems import System, ask, systems
from luthier.infer.loading import Ready
from luthier.infer.questions import Say
from luthier.measure import curve, kinds, statistics
from luthier.measure.types import Measured
from luthier.runs import Run, atomic, hashing, seal
from luthier.runs.run import RESOLVED, TEMPLATE

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer

WHOLE = 100
# What a point does not do: evaluate, predict, draw, and tell anybody.
_LEFT_OUT = frozenset(
    "do_eval do_predict predict_with_generate eval_strategy eval_steps eval_delay eval_on_start "
    "eval_dataset eval_on_each_dataset load_best_model_at_end metric_for_best_model greater_is_better "
    "early_stopping_steps report_to run_name project logging_dir plot_loss overwrite_output_dir "
    "overwrite_cache confirm_changes resume_from_checkpoint trust_remote_code format output_dir".split()
)
# What chose the rows of the run; the rows of a point are chosen already.
_CHOICE = frozenset("dataset dataset_dir max_samples val_size mix_strategy interleave_probs".split())
_SAVING = {"save_strategy": "steps", "save_steps": 0.25, "save_total_limit": 1, "save_only_model": False}
_STEPS = ("max_steps", "warmup_steps")
_PLACES = ("output_dir", "dataset_dir", "template")
"""Where something is; what is there is hashed."""
_POINTS = {"unit": "points", "unit_zh": " 个百分点"}


@dataclass(frozen=True)
class Point:
    """One share of the data. rows: different ones · settings: with which it is trained, {} for the run itself
    · fingerprint: of all that decides its weights · folder: the run that is or will be trained."""

    share: int
    rows: int
    folder: Path
    settings: Mapping[str, Any]
    fingerprint: str = ""

    @property
    def record(self) -> Path:
        return self.folder.with_name(f"{self.share}.json")

    @property
    def known(self) -> dict[str, Any]:
        """What is recorded of this very training: {} before it began, with "seconds" once it is finished."""
        found = atomic.read_json(self.record) if self.record.is_file() else {}
        return found if found.get("fingerprint") == self.fingerprint else {}

    @property
    def seconds(self) -> float | None:
        """How long it was trained; None while that is still to be done."""
        if not self.settings:
            return _runtime(self.folder)
        whole = "seconds" in self.known and not seal.verify(self.folder, seal.CHECKSUMS)
        return float(self.known["seconds"]) if whole else None


@dataclass(frozen=True)
class Study:
    """What a curve is drawn of. config: of the evaluation · keys: of the run's training · parts: its rows ·
    same: the data is what the run was trained on, so the run is the point of 100 % · base: identity of what
    is tuned · folder: where the points go."""

    config: Config
    shares: tuple[int, ...]
    run: Run
    keys: Mapping[str, Any]
    parts: Sequence[subsets.Part]
    same: bool
    base: Mapping[str, Any]
    folder: Path


def study(config: Config, shares: Sequence[int], found: Sequence[System], folder: Path) -> Study:
    """Look at the run and its data; nothing is written yet.

    Raises UsageError for shares or runs without a curve, DataError where the run's data is gone.
    """
    shares = _checked(shares)
    if found[-1].side != "after":
        raise UsageError("--curve: is about a tuned model -> leave out --baseline only")
    run = _run(config)
    keys = _keys(run, config)
    parts, files = _trained(run, keys)
    _large_enough(keys, parts, shares, run)
    then = {entry["sha256"] for entry in run.read_json(seal.MANIFEST)["data"]}
    same = set(files.values()) <= then
    return Study(config, shares, run, keys, parts, same, found[0].identity, folder)


def draw(study: Study, plan: Plan, got: Got, renderer: Renderer, say: Say) -> dict[str, dict[str, Any]]:
    """Train and ask what is still to be; of each set: metric, points, fit, twice, notes, as in `details`.

    got: what the run said. A point that cannot be trained is missing, and a note says why.
    """
    points = [_point(study, share) for share in study.shares]
    _say_time(points, study.run, say)
    notes = [] if study.same else [note("curve_data_changed")]
    if study.same and _chosen_by_evaluation(study.run):
        notes.append(note("curve_best_kept"))
    drawn: dict[str, list[Drawn]] = {one.name: [] for one in plan.sets}
    for point in points:
        try:
            said = _answers(study, point, plan, renderer, say) if point.settings else got
        except LuthierError as error:
            notes.append(note("curve_point_failed", share=point.share, error=str(error).splitlines()[0]))
            say(f"curve: {notes[-1]['en']}")
            continue
        for one in plan.sets:
            heard = hear(one, plan, {"after": said}, study.config, renderer.template.thought)
            metric, measured = _leading(one, heard.by_generation["after"])
            drawn[one.name].append((_shown(point, measured, study.config.seed), measured))
            say(f"curve: {one.name}: {report.curve_point(metric, drawn[one.name][-1][0])}")
    return {one.name: _of_set(one, drawn[one.name], notes, study.config.seed) for one in plan.sets}


def _checked(shares: Sequence[int]) -> tuple[int, ...]:
    """The shares, and 100, which is the run itself and costs nothing."""
    if not shares or min(shares) < 1 or max(shares) > WHOLE:
        raise UsageError("--curve: shares are whole numbers from 1 to 100 -> --curve 10,25,50,100")
    if list(shares) != sorted(set(shares)):
        raise UsageError("--curve: each share must be larger than the one before -> --curve 10,25,50,100")
    return tuple(dict.fromkeys([*shares, WHOLE]))


def _run(config: Config) -> Run:
    if config.run is None:
        raise UsageError("--curve: trains a run again on less data -> luthier eval RUN --curve 10,25,50,100")
    run = Run.open(config.run)
    weights = config.adapter_name_or_path[-1] if config.adapter_name_or_path else config.model_name_or_path
    if Path(str(weights)).resolve() != run.path.resolve():
        raise UsageError(f"--curve: {weights} is not the end of a training -> give the run, {run.path}")
    return run


def _keys(run: Run, config: Config) -> dict[str, Any]:
    """What the run was trained with, as far as it decides its weights; keys with their defaults are left
    out."""
    from luthier.config import KEYS
    from luthier.config.check import escaped

    defaults = {
        name: list(key.default) if isinstance(key.default, tuple) else key.default
        for name, key in KEYS.items()
    }
    kept = run.read_json(RESOLVED)
    found = {
        name: escaped(kept[name])
        for name in KEYS
        if name in kept and name not in _LEFT_OUT and kept[name] not in (None, defaults[name])
    }
    if (run.path / TEMPLATE).is_file():
        found["template"] = str((run.path / TEMPLATE).resolve())
    if config.trust_remote_code:  # said anew each time, never by a run
        found["trust_remote_code"] = True
    world = int(run.read_json(seal.MANIFEST).get("process", {}).get("world", 1))
    found["gradient_accumulation_steps"] = world * int(found.get("gradient_accumulation_steps", 1))
    return {**found, **_SAVING, "do_train": True}


def _trained(run: Run, keys: Mapping[str, Any]) -> tuple[list[subsets.Part], dict[str, str]]:
    from luthier.config import load

    try:
        return subsets.trained(load({**keys, "output_dir": str(run.path)}, "train", {}))
    except (ConfigError, DataError) as error:
        raise DataError(
            f"--curve: the data that {run.path} was trained on is needed again: {error}"
        ) from error


def _point(study: Study, share: int) -> Point:
    """A point with its rows written, unless it is the run itself."""
    rows = subsets.rows(study.parts, share)
    if share == WHOLE and study.same:
        return Point(share, rows, study.run.path, {})
    settings = _settings(study.keys, study.parts, share, study.folder)
    decides = {key: value for key, value in settings.items() if key not in _PLACES}
    content = [hashing.sha256_tree(Path(settings["dataset_dir"])), study.base, _text(study.run)]
    fingerprint = hashing.sha256_json([decides, *content])[:32]
    return Point(share, rows, study.folder / str(share), settings, fingerprint)


def _settings(
    keys: Mapping[str, Any], parts: Sequence[subsets.Part], share: int, folder: Path
) -> dict[str, Any]:
    """The configuration of a point, whose rows are written."""
    data = (folder / "data" / str(share)).resolve()
    found = {name: value for name, value in keys.items() if name not in _CHOICE}
    part = subsets.seen(parts, share) / subsets.seen(parts, WHOLE)
    for name in _STEPS:
        if found.get(name, 0) >= 1:
            found[name] = max(1, round(found[name] * part))
    found["dataset"] = subsets.write(parts, share, data)
    return {**found, "dataset_dir": str(data), "output_dir": str(folder / str(share))}


def _large_enough(
    keys: Mapping[str, Any], parts: Sequence[subsets.Part], shares: Sequence[int], run: Run
) -> None:
    """Raises UsageError for a share of which not even one whole step could be trained."""
    from luthier.config import KEYS

    size = keys.get("per_device_train_batch_size", KEYS["per_device_train_batch_size"].default)
    step = int(size) * int(keys["gradient_accumulation_steps"])
    for share in shares:
        rows = subsets.seen(parts, share)
        if rows < step and share < WHOLE:
            raise UsageError(
                f"--curve: {share} % of the data of {run.path} are {rows} rows, fewer than the {step} of one "
                "step -> larger shares"
            )


def _chosen_by_evaluation(run: Run) -> bool:
    kept = run.read_json(RESOLVED)
    return bool(kept.get("load_best_model_at_end") or kept.get("early_stopping_steps"))


def _text(run: Run) -> str:
    """The chat template of the run."""
    file = run.path / TEMPLATE
    return file.read_text("utf-8") if file.is_file() else ""


def _runtime(folder: Path) -> float | None:
    file = folder / "all_results.json"
    return atomic.read_json(file).get("train_runtime") if file.is_file() else None


def _say_time(points: Sequence[Point], run: Run, say: Say) -> None:
    todo = [point for point in points if point.settings and point.seconds is None]
    if not todo:
        return
    runtime, whole = _runtime(run.path), max(point.rows for point in points)
    about = "nobody knows how long: the run does not say how long it took"
    if runtime is not None:
        seconds = sum(runtime * point.rows / whole for point in todo)
        about = f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"
    shares = ", ".join(f"{point.share} % ({point.rows:,} rows)" for point in todo)
    say(f"curve: to train on {shares}: {about}, at the speed of the run; then as many rounds of answers")


def _train(point: Point, say: Say) -> None:
    """Train a point to its end, unless it is; then only the final weights stay."""
    from luthier.config import load
    from luthier.train.run import train

    if point.seconds is None:
        begun = bool(point.known) and "seconds" not in point.known
        say(f"curve: {'goes on with' if begun else 'trains on'} {point.share} % ({point.rows:,} rows)")
        anew = {} if begun else {"overwrite_output_dir": True}
        atomic.write_json(point.record, {"fingerprint": point.fingerprint})
        train(load({**point.settings, **anew}, "train", {}))
        gc.collect()  # the trained model, before it is loaded to answer
        record = {"fingerprint": point.fingerprint, "rows": point.rows, "seconds": _runtime(point.folder)}
        atomic.write_json(point.record, record)
    for checkpoint in Run.open(point.folder).checkpoints():
        atomic.discard(checkpoint)


def _answers(study: Study, point: Point, plan: Plan, renderer: Renderer, say: Say) -> Got:
    """What the model of a point, trained where it is not yet, says to the rows of the data sets."""
    _train(point, say)
    folder, config = str(point.folder), study.config
    if config.adapter_name_or_path:
        config = config.replace(adapter_name_or_path=(folder,), run=folder)
    else:
        config = config.replace(model_name_or_path=folder, run=folder)

    def tell(line: str) -> None:
        say(f"curve: {point.share} %: {line}")

    names = {one.name for one in plan.sets}
    jobs = [job for job in plan.jobs if job.name in names]
    found = Got()

    def work(system: System, ready: Ready) -> None:
        kept = Kept(point.folder / "answers.after.jsonl")
        for job in jobs:
            found[job.name] = answer(job, ready, kept, system.identity, tell)
        kept.settle({job.name: job.fingerprint(system.identity) for job in jobs})

    ask(systems(config)[-1:], renderer.tokenizer, renderer, work)
    return found


Drawn = tuple[dict[str, Any], Measured]
"""A point as it is shown, and the metric behind it."""


def _leading(one: Set, metrics: Mapping[str, Measured]) -> tuple[str, Measured]:
    name = kinds.leading(one.task.kind, metrics)
    return name, metrics[name]


def _shown(point: Point, measured: Measured, seed: int) -> dict[str, Any]:
    low, high = map(finite, statistics.interval(measured, seed))
    figures = {"value": finite(measured.value), "low": low, "high": high, "seconds": point.seconds}
    return {"share": point.share, "rows": point.rows, **figures}


def _of_set(one: Set, drawn: Sequence[Drawn], notes: Sequence[Note], seed: int) -> dict[str, Any]:
    metric, points = kinds.LEADING[one.task.kind], [shown for shown, _ in drawn]
    found = curve.learn([point["rows"] for point in points], [measured for _, measured in drawn], seed)
    return {
        "metric": metric,
        "points": points,
        "fit": asdict(found.fit) if found.fit else None,
        "twice": asdict(found.twice) if found.twice and not found.why else None,
        "notes": [*notes, *_told(found, metric, [point["share"] for point in points])],
    }


def _told(found: curve.Learned, metric: str, shares: Sequence[int]) -> list[Note]:
    """What twice the data would bring, or why nobody can say."""
    if found.twice is None:
        return [note("curve_few", count=len(shares))]
    if found.worse is not None:
        earlier, later = (shares[place] for place in found.worse)
        return [note("curve_worse", metric=metric, earlier=earlier, later=later)]
    twice, plain = found.twice, metric in kinds.PLAIN
    sizes = [twice.gain, twice.gain_low, twice.gain_high]
    gain, low, high = (f"{size:.3f}" if plain else f"{size * 100:.1f}" for size in sizes)
    unit = {"unit": f"less {metric}", "unit_zh": f"（{metric} 降幅）"} if plain else _POINTS
    figures = {"rows": f"{twice.rows:,}", "gain": gain, "low": low, "high": high, **unit}
    if found.why:
        return [note("curve_unsure", **figures)]
    return [note("curve_twice", **figures), note("curve_chance")]
