"""What the evaluations of a run say of its course: which was the best, whether it over-fits, what would help.

Everything here is a function of the history, which goes into every checkpoint: a continued run comes to the
same conclusions at the same steps.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier.config import Config
from luthier.errors import ConfigError, RunError
from luthier.train.stages import STAGES
from luthier.types import Problem

if TYPE_CHECKING:
    from luthier.train.observe import Session
    from luthier.train.quality import Quality

# See `overfitting`.
_FEW, _WIDE, _NARROW, _NOISES, _FALL = 8, 0.05, 0.02, 5.0, 0.02
_SMALLER_IS_BETTER = ("loss", "perplexity")


# --- the best one


def prefix(name: str, sets: int) -> str:
    """What the measures of an evaluation set begin with."""
    return "eval" if sets == 1 else f"eval_{name}"


def measures(evals: Iterable[str], quality: Quality | None) -> dict[str, bool]:
    """Every measure that an evaluation will have -> larger is better.

    Of several sets also the mean over all of what each of them has.
    """
    names, found, common = list(evals), dict[str, bool](), list[dict[str, bool]]()
    for name in names:
        answered = dict(quality.sets[name].higher) if quality else {}
        told = {"loss": False, "token_accuracy": True} | (answered or {"accuracy": True})
        found |= {f"{prefix(name, len(names))}_{key}": higher for key, higher in told.items()}
        found[f"{prefix(name, len(names))}_perplexity"] = False
        common.append(told)
    shared = [key for key in common[0] if all(key in other for other in common)] if common else []
    return found | {f"eval_{key}": common[0][key] for key in shared}


def joined(out: dict[str, float], names: Sequence[str], known: Mapping[str, bool]) -> dict[str, float]:
    """Measures of several sets, and of each that all have the mean over the sets."""
    means = dict[str, float]()
    for key in known:
        parts = [out.get(f"eval_{name}_{key.removeprefix('eval_')}") for name in names]
        if key not in out and parts and None not in parts:
            means[key] = sum(part for part in parts if part is not None) / len(parts)
    return out | means


def headlines(session: Session) -> list[str]:
    """The measures that are looked at: the loss, what stands for the task, what decides which is best."""
    sets = session.quality.sets if session.quality else {}
    leading = [f"{prefix(name, len(session.evals))}_{rows.leading}" for name, rows in sets.items()]
    named = ["eval_loss", *leading, key_of(session.config)]
    return [key for key in dict.fromkeys(named) if key in session.measures]


def key_of(config: Config) -> str:
    """The measure by which evaluations are compared."""
    name = config.metric_for_best_model or "loss"
    return name if name.startswith("eval_") else f"eval_{name}"


def require_known(config: Config, known: Mapping[str, bool], generated: bool) -> None:
    """Raises ConfigError, before an hour of training, when nothing will be measured by that name.

    What the stages of other packages measure is known with the first evaluation only.
    """
    if config.eval_strategy == "no" or not known or config.stage not in STAGES or key_of(config) in known:
        return
    names = ", ".join(sorted(key.removeprefix("eval_") for key in known))
    more = "" if generated else "; the metrics of the task come with predict_with_generate: true"
    what = f"{config.metric_for_best_model!r} will not be measured"
    raise ConfigError([Problem(config.place("metric_for_best_model"), what, f"one of {names}{more}")])


def larger_is_better(session: Session, key: str) -> bool:
    given = session.config.greater_is_better
    return session.measures.get(key, not key.endswith(_SMALLER_IS_BETTER)) if given is None else given


def judge(session: Session, measured: Mapping[str, float]) -> None:
    """Keep the best evaluation; stop when `early_stopping_steps` evaluations brought nothing better."""
    progress, key = session.progress, key_of(session.config)
    if key not in measured:
        known = ", ".join(sorted(measured))
        raise RunError(f"metric_for_best_model: {key!r} was not measured; there are {known}")
    value, best = measured[key], progress.best_metric
    greater = larger_is_better(session, key)
    if best is None or (value > best if greater else value < best):
        progress.best_metric, progress.best_global_step = value, progress.global_step
        progress.evaluations_without_gain = 0
        return
    progress.evaluations_without_gain += 1
    tire(session)


def tire(session: Session) -> None:
    """Stop after `early_stopping_steps` evaluations without gain; a continued run has its from before."""
    patience, progress = session.config.early_stopping_steps, session.progress
    if patience is not None and progress.evaluations_without_gain >= patience:
        key = key_of(session.config)
        session.stop = f"{key} has not improved for {patience} evaluations (best {progress.best_metric:.4f})"


# --- the course


@dataclass(frozen=True)
class Evaluation:
    """loss: on the evaluation sets · trained: mean training loss since the evaluation before, None for the
    first one of a run that evaluates before its first step."""

    step: int
    loss: float
    trained: float | None


def overfitting(found: Sequence[Evaluation]) -> Evaluation | None:
    """The evaluation with the lowest loss, if the last two say that the run has over-fitted since; else None.

    It has when all of this holds:
    - the eval losses of the last two exceed the lowest by more than the margin, and the last is the highest
      since the lowest;
    - the training loss since the evaluation before was, at both, more than 2 % below that at the lowest.

    The margin is what noise does not reach: 5 standard deviations, and at least 2 % of the lowest loss. The
    deviation is that of the evaluations from a smooth course, told from their second differences (their
    median absolute value / (0.6745 sqrt 6), as for normal noise, whose second differences have variance 6).
    With fewer than 8 evaluations that cannot be told, and the margin is 5 %.

    Simulated with losses that stand still but for normal noise (of 5 % in training), a run of 20 evaluations
    is warned in vain in 0 % of the cases with noise of 0.5 %, 1 % with 1 %, 2 % with 2 %; a run of 100 in 1,
    3 and 4 %.
    """
    if len(found) < 3:
        return None
    best = min(range(len(found)), key=lambda i: found[i].loss)
    low, (one, last) = found[best], found[-2:]
    if len(found) - best < 3 or low.trained is None or one.trained is None or last.trained is None:
        return None
    limit = low.loss + margin([e.loss for e in found], low.loss)
    risen = min(one.loss, last.loss) > limit and last.loss >= max(e.loss for e in found[best:])
    fallen = max(one.trained, last.trained) < (1 - _FALL) * low.trained
    return low if risen and fallen else None


def improving(values: Sequence[float]) -> bool:
    """Whether losses (or measures with the sign turned) still fell at the end of a run.

    The last must be the lowest of all, and lower than the one a quarter of the run before (at least two
    evaluations) by more than the margin, which is that of `overfitting`.
    """
    back = max(2, len(values) // 4)
    if len(values) <= back:
        return False
    before, last = values[-1 - back], values[-1]
    return last < min(values[:-1]) and before - last > margin(values, max(abs(before), abs(last)))


def margin(values: Sequence[float], at: float) -> float:
    """By how much a value must differ from one `at` that height, so that noise is no explanation."""
    if len(values) < _FEW:
        return _WIDE * at
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return max(_NARROW * at, _NOISES * statistics.median(bends) / (0.6745 * 6**0.5))


def evaluations(history: Iterable[Mapping[str, Any]]) -> list[Evaluation]:
    """Those in a history, each step once: the last of a run may be evaluated again."""
    found = {
        e["step"]: Evaluation(e["step"], e["eval_loss"], e.get("window_loss"))
        for e in history
        if "eval_loss" in e
    }
    return [found[step] for step in sorted(found)]


def warning(session: Session) -> dict[str, Any]:
    """The line of the log that says, once in a run, that it over-fits; {} where there is nothing to say."""
    progress = session.progress
    if progress.overfitting_from_step is not None:
        return {}
    found = evaluations(progress.log_history)
    low = overfitting(found)
    if low is None:
        return {}
    progress.overfitting_from_step = low.step
    last = found[-1]
    what = (
        f"step {last.step}: over-fitting since step {low.step}: eval loss rose from {low.loss:.4f} to "
        f"{last.loss:.4f} while training loss fell from {low.trained:.4f} to {last.trained:.4f}"
    )
    return {"overfitting_from_step": low.step, "warning": f"{what} -> {_advice(session, low)}"}


def _advice(session: Session, low: Evaluation) -> str:
    config, key = session.config, key_of(session.config)
    epochs = f"about {session.job.plan.epoch_at(low.step):.1f} epochs instead of {config.num_train_epochs:g}"
    steps = f"about {low.step} steps" if config.max_steps > 0 else epochs
    ways = [steps, "more data", *(["a larger lora_dropout"] if config.finetuning_type == "lora" else [])]
    if not config.load_best_model_at_end:
        ways.insert(0, "load_best_model_at_end: true")
    still = session.progress.best_global_step == session.progress.global_step
    more = f" ({key} is still improving, so it need not matter)" if still else ""
    return ", ".join(ways[:-1]) + f", or {ways[-1]}{more}"


def summary(session: Session) -> dict[str, Any]:
    """For all_results.json: since which step the run over-fitted, or that it was still improving at its end.

    Of the latter the user hears, too. A run that was stopped early improves no more.
    """
    progress, key = session.progress, key_of(session.config)
    if progress.overfitting_from_step is not None:
        return {"overfitting_from_step": progress.overfitting_from_step}
    sign = -1.0 if larger_is_better(session, key) else 1.0
    by_step = {e["step"]: sign * e[key] for e in progress.log_history if key in e}
    if session.stop or not improving([by_step[step] for step in sorted(by_step)]):
        return {}
    more = "max_steps" if session.config.max_steps > 0 else "num_train_epochs"
    session.say(f"{key} was still improving at the end: more epochs ({more}) may help")
    return {"still_improving_at_end": True}
