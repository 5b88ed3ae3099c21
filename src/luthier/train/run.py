"""`luthier train`: from a configuration to a finished run directory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch

from luthier.config import Config, load, resolve
from luthier.data.jinja_guards import on_day
from luthier.errors import RunError, UsageError
from luthier.model import machine as machines
from luthier.model import methods
from luthier.runs import Run
from luthier.runs.run import CONFIG
from luthier.runs.seal import MANIFEST, verify
from luthier.train import course, footprint, observe, results, signals
from luthier.train.engine import Engine
from luthier.train.loop import steps
from luthier.train.screen import Screen, tell
from luthier.train.setup import Setup, only_evaluates, session, setup, take_weights, write_account


def main(args: list[str]) -> int:
    """`luthier train CONFIG …`: train, then evaluate and predict where asked."""
    config = load(args, "train")
    run = train(config)
    tell(_as_json(run) if config.format == "json" else str(run.path))
    return 0


def resume(args: list[str]) -> int:
    """`luthier runs resume RUN [key=value …]`: the training of RUN goes on, from any directory.

    Relative paths mean what they meant where the run was started. Raises RunError when RUN is none, or when
    it stopped before it had written its configuration; else as `train`.
    """
    if not args or ((args[0].startswith("-") or "=" in args[0]) and not os.path.isdir(args[0])):
        raise UsageError("which run? luthier runs resume RUN; `luthier runs` lists them")
    run = Run.open(Path(args[0]).absolute())
    if not (run.path / CONFIG).is_file() or not (run.path / MANIFEST).is_file():
        raise RunError(f"{run.path}: stopped before anything was trained; start it again as you did")
    there = run.read_json(MANIFEST).get("cwd", ".")
    if not os.path.isdir(there):
        raise RunError(f"{run.path}: was started in {there}, which is gone; use luthier train CONFIG instead")
    os.chdir(there)
    return main([str(run.path), *args[1:]])


def _as_json(run: Run) -> str:
    """Where the run is, and the numbers of all_results.json."""
    found = run.read_json("all_results.json") if (run.path / "all_results.json").is_file() else {}
    return json.dumps({"run": str(run.path), **found}, ensure_ascii=False)


def train(config: Config, day: date | None = None) -> Run:
    """Train as `config` says and return the finished run. day: that the chat template writes, if not today.

    Raises ConfigError, DataError, TemplateError, ModelError, RunError, TrainError; a run that fails before
    its first step leaves nothing behind. Raises Stopped (a KeyboardInterrupt) when a signal stops it.
    """
    machine = machines.detect()
    config = resolve(config, machine)
    bar = None if config.disable_tqdm is None else not config.disable_tqdm
    with signals.raised(), Screen(bar) as screen:
        for note in config.notes:
            screen.say(f"note: {note}")
        engine = _engine(config)
        with _run(config, engine) as run, on_day(_day(run, day)):
            for note in run.notes:
                screen.say(note)
            made = setup(config, machine, run, screen, engine)
            at_work, model = session(made, engine)
            asked = 0 if only_evaluates(config) else _train(at_work, made, model)
            if asked and (config.do_eval or config.do_predict):
                raise signals.Stopped(asked, " after the final weights were written")
            _after(at_work, made, model)
    return run


def _day(run: Run, day: date | None) -> date:
    """The date that the run's chat template writes: that of its first start."""
    kept = run.made_of()["manifest"].get("day") if run.resume_from else None
    return date.fromisoformat(kept) if kept else day or date.today()


def _engine(config: Config) -> Engine:
    trackers = [t for t in config.report_to if t != "none"]
    logs = Path(config.logging_dir or Path(str(config.output_dir)) / "runs")
    precision = "bf16" if config.bf16 else "fp16" if config.fp16 else "no"
    return Engine(precision, bool(config.use_cpu), trackers, logs)


@contextmanager
def _run(config: Config, engine: Engine) -> Iterator[Run]:
    """The run directory, held by the main process alone; other ranks only read it."""
    if not engine.is_main:
        run = Run(Path(str(config.output_dir)))
        run.resume_from = engine.shared(None)
        yield run
        return
    asked = config.resume_from_checkpoint
    resume: bool | str = asked is None or asked == "last" or (False if asked == "no" else asked)
    inputs = [p for p in (config.model_name_or_path, *(config.adapter_name_or_path or ())) if p]
    with Run.create(
        str(config.output_dir), overwrite=config.overwrite_output_dir, resume=resume, inputs=inputs
    ) as run:
        engine.shared(run.resume_from)
        yield run


def _train(at_work: observe.Session, made: Setup, model: torch.nn.Module) -> int:
    """Run the loop under observation, then write the final weights and the results.

    Returns the signal that came when there was nothing left to train, 0 for none.
    """
    config, job = made.config, at_work.job
    job.engine.start_tracking(config.project or "luthier", config.run_name, config.as_dict())
    done = at_work.progress.global_step
    made.screen.start(job.plan.total_steps, done)
    if config.eval_on_start and done == 0 and at_work.evals:
        observe.run_evaluation(at_work)
    with signals.deferred() as asked, observe.naming_what_is_kept(at_work):
        at_work.asked = asked
        if job.engine.is_main:
            footprint.require_run(at_work)
        if done:
            observe.catch_up(at_work)
        if done < job.plan.total_steps and not at_work.stop:
            _loop(at_work, made)
        if at_work.stop:
            made.screen.say(f"stopped early: {at_work.stop}")
        if config.load_best_model_at_end:
            _take_best(at_work, made)
        if job.engine.is_main:
            _finish(at_work, made, methods.trainable_parameters(model)[1])
        number = signals.agreed(job.engine.sum, asked())
    job.engine.end()
    return number


def _loop(at_work: observe.Session, made: Setup) -> None:
    """Step after step. Raises Stopped, after saving, at the end of a step in which a signal came."""
    job, done = at_work.job, at_work.progress.global_step
    made.screen.say(f"training from step {done} to {job.plan.total_steps}, {len(job.corpus)} examples")
    for step in steps(job, done):
        observe.observe(at_work, step)
        number = signals.agreed(job.engine.sum, at_work.asked())
        if number:
            observe.save(at_work, to_go_on=True)
            # A launcher ends all ranks as soon as one has ended, so none may before the main one has saved.
            job.engine.sum(0.0)
            raise signals.Stopped(number, " after saving; the same command continues from here")
        if at_work.stop:
            break


def _take_best(at_work: observe.Session, made: Setup) -> None:
    best = at_work.progress.best_global_step
    if best is None or best == at_work.progress.global_step:
        return
    folder = made.run.path / f"checkpoint-{best}"
    problems = verify(folder) if folder.is_dir() else ["it is not there any more"]
    if problems:
        made.screen.say(
            f"note: the result has the weights of the last step: the best ones, {folder}, cannot be used: "
            + "; ".join(problems)
        )
        return
    take_weights(made, at_work.job.engine.unwrap(at_work.job.model), folder)
    at_work.measured = None
    made.screen.say(f"the best weights are those of step {best}; they are the result")


def _finish(at_work: observe.Session, made: Setup, parameters: int) -> None:
    config, run = made.config, made.run
    footprint.require_result(at_work)
    with run.result() as folder:
        at_work.save_weights(folder)
    metrics = results.train_results(at_work, parameters) | course.summary(at_work)
    results.write(run, "train", metrics)
    results.write_state(at_work)
    if config.streaming:
        # Continued after its last step, a run has read nothing yet; the account is of all that it trained on.
        at_work.job.corpus[at_work.job.plan.examples(at_work.progress.global_step - 1)[-1]]
        write_account(made)
    if config.plot_loss and not results.plot(at_work):
        made.screen.say('plot_loss: matplotlib is not installed: pip install "luthier[plot]"')
    made.screen.say(
        f"done: loss {metrics['train_loss']:.4f} in {observe.clock(metrics['train_runtime'])}, in {run.path}"
    )


def _after(at_work: observe.Session, made: Setup, model: torch.nn.Module) -> None:
    """Evaluation and prediction at the end, where asked."""
    config = made.config
    if config.do_eval and at_work.evals:
        # What the best weights answer is in samples.jsonl already, under their own step.
        best = config.load_best_model_at_end and at_work.progress.best_global_step is not None
        measured = at_work.measured or observe.run_evaluation(at_work, samples=not best)
        if at_work.job.engine.is_main:
            found = {**measured, "epoch": round(at_work.progress.epoch, 4)}
            if config.stage == "pt" and "eval_perplexity" in found:
                found["perplexity"] = found["eval_perplexity"]  # LLaMA-Factory's name for it
            results.write(made.run, "eval", found)
    if config.do_predict and at_work.job.engine.is_main:
        from luthier.infer.predict import predict_with, table

        made.screen.say(table(predict_with(model, made.tokenizer, made.renderer, config, made.run)))
