"""Observers of Steps: the log, evaluation, checkpoints, early stopping. The loop knows none of them.

An observer is a function of (session, step); what they remember lies in `Progress`, which goes into
every checkpoint, so that a resumed run reports what an uninterrupted one would have reported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from luthier.config import Config
from luthier.data.prepare import Examples
from luthier.errors import TrainError
from luthier.runs import Run, atomic, space
from luthier.train import course, evaluation, footprint, memory
from luthier.train.loop import Job
from luthier.train.quality import Quality
from luthier.types import Step

STATE = "trainer_state.json"


@dataclass
class Progress:
    """What has happened so far. Sums, not means, so that it can be continued exactly."""

    global_step: int = 0
    epoch: float = 0.0
    loss_sum: float = 0.0
    window_sum: float = 0.0
    window_steps: int = 0
    trained_tokens: float = 0.0
    num_input_tokens_seen: int = 0
    train_seconds: float = 0.0
    micro_batch_tokens: int = 0
    best_metric: float | None = None
    best_global_step: int | None = None
    evaluations_without_gain: int = 0
    overfitting_from_step: int | None = None
    since_eval_sum: float = 0.0
    since_eval_steps: int = 0
    sample_lines: int = 0
    log_history: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: Step) -> None:
        self.global_step, self.epoch = step.index, step.epoch
        self.loss_sum += step.loss
        self.window_sum += step.loss
        self.window_steps += 1
        self.since_eval_sum += step.loss
        self.since_eval_steps += 1
        self.trained_tokens += step.trained
        self.num_input_tokens_seen += step.seen
        self.train_seconds += step.seconds


@dataclass
class Session:
    """A training run in progress.

    save_weights(directory): writes the model in its method's form, and its tokenizer · stop: why training
    ends early · estimate(): upper bound of a checkpoint's size · saved: step of the newest checkpoint, size:
    its bytes without its history, 0 when there is none · measured: the evaluation of the weights as they are
    now, if any · asked(): the signal by which the run was asked to stop, 0 for none · quality: what the model
    answers at each evaluation, if anything · measures: all that an evaluation has -> larger is better.
    """

    config: Config
    run: Run
    job: Job
    evals: Mapping[str, Examples]
    save_weights: Callable[[Path], None]
    save_moments: Callable[[Path], None]
    say: Callable[[str], None]
    draw: Callable[[Mapping[str, Any]], None]
    estimate: Callable[[], space.Save]
    progress: Progress = field(default_factory=Progress)
    stop: str | None = None
    began: float = field(default_factory=time.perf_counter)
    saved: int = -1
    size: int = 0
    measured: dict[str, float] | None = None
    asked: Callable[[], int] = lambda: 0
    quality: Quality | None = None
    measures: Mapping[str, bool] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.job.plan.total_steps


def due(session: Session, strategy: str, every: float | None) -> bool:
    """Whether an action is due now: each `every` steps (below 1: a share of all), or each epoch."""
    step = session.progress.global_step
    if strategy == "epoch":
        return step % session.job.plan.steps_per_epoch == 0 or step == session.total
    if strategy != "steps" or not every:
        return False
    size = max(1, math.ceil(session.total * every)) if every < 1 else int(every)
    return step % size == 0


def observe(session: Session, step: Step) -> None:
    """Everything that happens after a step, in the order that a reader of the log expects."""
    session.progress.add(step)
    session.progress.micro_batch_tokens = session.job.budget
    session.measured = None
    tell_notes(session)
    log_step(session, step)
    evaluate_step(session)
    save_step(session)


def tell_notes(session: Session) -> None:
    for note in session.job.notes:
        session.say(note)
    session.job.notes.clear()


@contextmanager
def _named(session: Session) -> Iterator[None]:
    """Memory that runs out between the passes, as in a save, is no fault of the program."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        step = session.progress.global_step
        said = f"{error}".splitlines()[0][:200] if f"{error}" else type(error).__name__
        raise TrainError(f"step {step}: out of memory outside a pass, as in a save ({said})") from error


@contextmanager
def naming_what_is_kept(session: Session) -> Iterator[None]:
    """A training that cannot go on says where the same command will continue once the cause is mended."""
    try:
        with _named(session):
            yield
    except TrainError as error:
        tell_notes(session)
        if not session.job.engine.is_main:
            raise
        mended = "; once the cause is mended the same command"
        if session.saved <= 0:
            kept = f"no checkpoint was written yet{mended} starts anew"
        else:
            how = "" if session.config.save_only_model else f"{mended} continues from it"
            kept = f"checkpoint {session.saved} is kept{how}"
        raise TrainError(f"{error}.\n{kept}") from error


def log_step(session: Session, step: Step) -> None:
    config, progress = session.config, session.progress
    session.draw({"step": step.index, "loss": step.loss, "lr": step.learning_rate, "tokens": step.trained})
    first = config.logging_first_step and step.index == 1
    if not (
        first or step.index == session.total or due(session, config.logging_strategy, config.logging_steps)
    ):
        return
    record: dict[str, Any] = {
        "loss": progress.window_sum / progress.window_steps,
        # JSON knows no infinity, which is what fp16's scaler answers with a skipped update
        "grad_norm": step.grad_norm if math.isfinite(step.grad_norm) else None,
        "learning_rate": step.learning_rate,
        **step.metrics,
    }
    if config.include_num_input_tokens_seen not in ("no", False):
        record["num_input_tokens_seen"] = progress.num_input_tokens_seen
    progress.window_sum, progress.window_steps = 0.0, 0
    write_log(session, record, loss=record["loss"], lr=step.learning_rate)


def write_log(session: Session, record: dict[str, Any], **shown: Any) -> None:
    """One line of trainer_log.jsonl with LLaMA-Factory's names, one entry of the history, the trackers."""
    progress, total = session.progress, session.total
    session.progress.log_history.append(
        {**record, "epoch": round(progress.epoch, 4), "step": progress.global_step}
    )
    if not session.job.engine.is_main:
        return
    elapsed = time.perf_counter() - session.began
    left = progress.train_seconds / max(progress.global_step, 1) * (total - progress.global_step)
    session.run.append_log(
        {
            "current_steps": progress.global_step,
            "total_steps": total,
            **shown,
            "epoch": round(progress.epoch, 4),
            "percentage": round(100 * progress.global_step / total, 2),
            "elapsed_time": clock(elapsed),
            "remaining_time": clock(left),
            "throughput": round(progress.trained_tokens / max(progress.train_seconds, 1e-9), 2),
            "total_tokens": progress.num_input_tokens_seen,
        }
    )
    session.job.engine.track(
        {k: v for k, v in record.items() if isinstance(v, (int, float))}, progress.global_step
    )


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def evaluate_step(session: Session) -> None:
    """Evaluate when it is due, though not before `eval_delay` steps, or epochs where each of those counts.

    A run that is asked to stop leaves the evaluation to its continuation (`catch_up`); of several ranks none
    does, because the others would wait for it.
    """
    config, progress = session.config, session.progress
    passed = progress.epoch if config.eval_strategy == "epoch" else progress.global_step
    if passed < config.eval_delay or not session.evals:
        return
    if due(session, config.eval_strategy, config.eval_steps or config.logging_steps):
        try:
            measured = run_evaluation(session, session.asked if session.job.engine.world == 1 else None)
        except evaluation.Left:
            return
        session.measured = measured
        course.judge(session, measured)
        warn(session)


def catch_up(session: Session) -> None:
    """What a continued run knows of its last step: its evaluation (made now if it was left out), its end.

    A kill between a save and its rotation has left a checkpoint too many.
    """
    rotate(session)
    progress = session.progress
    found = [entry for entry in progress.log_history if entry.get("step") == progress.global_step]
    measured = {key: value for entry in found for key, value in entry.items() if key.startswith("eval_")}
    if measured:
        session.measured = measured
    else:
        evaluate_step(session)
    course.tire(session)


def warn(session: Session) -> None:
    """Say once in a run that it over-fits, on the screen and in the log."""
    found = course.warning(session)
    if found:
        session.say(f"warning: {found['warning']}")
        write_log(session, found, **found)


def run_evaluation(
    session: Session, asked: Callable[[], int] | None = None, samples: bool = True
) -> dict[str, float]:
    """Measure and log; `samples`: keep and show the sample replies. Raises evaluation.Left when `asked`."""
    out, replies = evaluation.measure(session, asked)
    tell_notes(session)
    progress, record = session.progress, dict(out)
    if progress.since_eval_steps:
        record["window_loss"] = progress.since_eval_sum / progress.since_eval_steps
    progress.since_eval_sum, progress.since_eval_steps = 0.0, 0
    logged = session.measures if session.quality else course.headlines(session)
    write_log(session, record, **{key: out[key] for key in logged if key in out})
    told = [f"{key.removeprefix('eval_')} {out[key]:.4f}" for key in course.headlines(session) if key in out]
    session.say(f"step {progress.global_step}: eval {'  '.join(told)}")
    if samples:
        keep_samples(session, replies)
    return out


def keep_samples(session: Session, replies: list[dict[str, str]]) -> None:
    """Append the sample replies of an evaluation to samples.jsonl, and show each in a line."""
    step = session.progress.global_step
    session.progress.sample_lines += len(replies)
    if not session.job.engine.is_main:
        return
    for reply in replies:
        session.run.append_sample({"step": step, **reply})
        session.say(evaluation.shown(reply))


def save_step(session: Session) -> None:
    config, progress = session.config, session.progress
    last = progress.global_step == session.total or session.stop is not None
    wanted = config.save_strategy == "best" or config.load_best_model_at_end
    best_now = wanted and progress.best_global_step == progress.global_step
    if config.save_strategy != "no" and (
        last or best_now or due(session, config.save_strategy, config.save_steps)
    ):
        save(session)


def save(session: Session, to_go_on: bool = False) -> None:
    """Write checkpoint-N whole, then let go of the oldest ones beyond `save_total_limit` (never the best).

    to_go_on: the run stops here, so that even with `save_only_model` this one must have all that is needed.
    """
    progress, run = session.progress, session.run
    bare = session.config.save_only_model and not to_go_on
    done = session.saved == progress.global_step and (bare or not session.config.save_only_model)
    if done or not session.job.engine.is_main:
        return
    state = {
        **asdict(progress),
        "max_steps": session.total,
        "num_train_epochs": session.config.num_train_epochs,
    }
    history = atomic.encode_json(state, where=f"checkpoint-{progress.global_step}/{STATE}", indent=2)
    footprint.require_save(session, len(history))
    with run.checkpoint(progress.global_step) as folder:
        session.save_weights(folder)
        if not bare:
            session.save_moments(folder)
        (folder / STATE).write_bytes(history)
    session.saved = progress.global_step
    session.say(f"checkpoint {progress.global_step} durable")
    session.size = footprint.of_checkpoint(run.path / f"checkpoint-{progress.global_step}", STATE)
    rotate(session)


def rotate(session: Session) -> None:
    """Remove the oldest checkpoints beyond `save_total_limit`; the best one is never among them.

    One that cannot be removed stays until the next time: it is no reason to stop. Checkpoints of steps to
    come, of an earlier course of the run, are replaced when their steps are saved.
    """
    limit, progress = session.config.save_total_limit, session.progress
    if not limit or not session.job.engine.is_main:
        return
    try:
        kept = [c for c in session.run.checkpoints() if _step(c) <= progress.global_step]
        spare = [c for c in kept[:-1] if _step(c) != progress.best_global_step]
        for folder in spare[: max(0, len(kept) - limit)]:
            atomic.discard(folder)
    except OSError as error:
        session.say(f"note: a checkpoint beyond save_total_limit cannot be removed now ({error}); it stays")


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def restore(folder: Path) -> Progress:
    """Progress as it was when the checkpoint was written."""
    known = Progress.__dataclass_fields__
    return Progress(**{k: v for k, v in atomic.read_json(folder / STATE).items() if k in known})
