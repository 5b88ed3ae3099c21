"""The files that a finished run leaves beside its weights, with LLaMA-Factory's names and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from luthier.runs import Run
from luthier.train import course, memory
from luthier.train.observe import STATE, Session


def train_results(session: Session, parameters: int) -> dict[str, Any]:
    """train_results.json. total_flos: 6 x parameters x tokens (Kaplan et al., 2020), an estimate ·
    train_peak_memory: bytes, of the process that ended the run."""
    progress = session.progress
    seconds = max(progress.train_seconds, 1e-9)
    examples = progress.epoch * len(session.job.corpus)
    return {
        "epoch": round(progress.epoch, 4),
        "num_input_tokens_seen": progress.num_input_tokens_seen,
        "total_flos": 6.0 * parameters * progress.num_input_tokens_seen,
        "train_loss": progress.loss_sum / max(progress.global_step, 1),
        "train_runtime": round(seconds, 4),
        "train_samples_per_second": round(examples / seconds, 3),
        "train_steps_per_second": round(progress.global_step / seconds, 3),
        "train_trained_tokens_per_second": round(progress.trained_tokens / seconds, 1),
        "train_peak_memory": memory.peak(session.job.engine.device),
    }


def write(run: Run, split: str, metrics: Mapping[str, Any]) -> None:
    """SPLIT_results.json, and the same keys merged into all_results.json, as transformers does."""
    run.write_json(f"{split}_results.json", dict(metrics))
    old = run.read_json("all_results.json") if (run.path / "all_results.json").is_file() else {}
    run.write_json("all_results.json", {**old, **metrics})


def write_state(session: Session) -> None:
    state = {**asdict(session.progress), "max_steps": session.total}
    state["num_train_epochs"] = session.config.num_train_epochs
    session.run.write_json(STATE, state)


def plot(session: Session) -> list[str]:
    """training_loss.png, training_eval_loss.png and, as in LLaMA-Factory, eval_accuracy; also what stands for
    the task and what best means. Returns the names written, [] without matplotlib.
    """
    if find_spec("matplotlib") is None:
        return []
    keys = dict.fromkeys(["loss", "eval_loss", "eval_accuracy", *course.headlines(session)])
    history = session.progress.log_history
    return [name for key in keys if (name := _draw(session.run.path, history, key))]


def _draw(folder: Path, history: Sequence[Mapping[str, Any]], key: str) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    if not points:
        return ""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, alpha=0.4, label="original")
    axes.plot(steps, smooth(values), label="smoothed")
    axes.set_xlabel("step")
    axes.set_ylabel(key)
    axes.legend()
    name = f"training_{key}.png"
    figure.savefig(folder / name, dpi=100)
    return name


def smooth(values: Sequence[float], weight: float = 0.6) -> list[float]:
    """Exponential moving average, for the eye."""
    out: list[float] = []
    for value in values:
        out.append(value if not out else weight * out[-1] + (1 - weight) * value)
    return out
