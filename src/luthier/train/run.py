"""`luthier train`: from a configuration to a finished run directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from luthier.config import Config, Machine, load, resolve
from luthier.data import plan as planning
from luthier.data import template as templates
from luthier.data.formats import write_rejected
from luthier.data.prepare import REJECTED, Prepared, prepare
from luthier.data.render import Renderer
from luthier.errors import ConfigError
from luthier.model import attention, locate, methods
from luthier.model import load as loading
from luthier.model import machine as machines
from luthier.runs import Run, compare, manifest
from luthier.train import checkpoint, memory, noise, observe, optim, results, signals
from luthier.train.engine import Engine
from luthier.train.loop import Job, steps
from luthier.train.screen import Screen
from luthier.train.stages import loss_of
from luthier.types import Problem


@dataclass
class Setup:
    """What is loaded before training starts."""

    config: Config
    machine: Machine
    run: Run
    tokenizer: Any
    renderer: Renderer
    prepared: Prepared
    screen: Screen


def main(args: list[str]) -> int:
    """`luthier train CONFIG …`: train, then evaluate and predict where asked."""
    config = load(args, "train")
    run = train(config)
    print(run.path)
    return 0


def train(config: Config) -> Run:
    """Train as `config` says and return the finished run.

    Raises ConfigError, DataError, TemplateError, ModelError, RunError, TrainError; a run that fails before
    its first checkpoint leaves nothing behind.
    """
    machine = machines.detect()
    config = resolve(config, machine)
    with Screen(bar=None if config.disable_tqdm is None else not config.disable_tqdm) as screen:
        for note in config.notes:
            screen.say(f"note: {note}")
        engine = _engine(config)
        with _run(config, engine) as run:
            for note in run.notes:
                screen.say(note)
            setup = _prepare(config, machine, run, screen)
            session, model = _session(setup, engine)
            if not _only_evaluates(config):
                _train(session, setup, model)
            _after(session, setup, model)
    return run


def _only_evaluates(config: Config) -> bool:
    return not config.do_train and (config.do_eval or config.do_predict)


def _engine(config: Config) -> Engine:
    trackers = [t for t in config.report_to if t != "none"]
    logs = Path(config.logging_dir or Path(str(config.output_dir)) / "runs")
    precision = "bf16" if config.bf16 else "fp16" if config.fp16 else "no"
    return Engine(precision, bool(config.use_cpu), trackers, logs)


@contextmanager
def _run(config: Config, engine: Engine) -> Iterator[Run]:
    """The run directory, held by the main process alone; other ranks only read it."""
    if not engine.is_main:
        engine.wait()
        yield Run(Path(str(config.output_dir)))
        return
    asked = config.resume_from_checkpoint
    resume: bool | str = asked is None or asked == "last" or (False if asked == "no" else asked)
    inputs = [p for p in (config.model_name_or_path, *(config.adapter_name_or_path or ())) if p]
    with Run.create(
        str(config.output_dir), overwrite=config.overwrite_output_dir, resume=resume, inputs=inputs
    ) as run:
        engine.wait()
        yield run


def _prepare(config: Config, machine: Machine, run: Run, screen: Screen) -> Setup:
    """Tokenizer, template and data: all that can fail cheaply, before the model is loaded."""
    tokenizer = loading.tokenizer(config)
    renderer = Renderer.of(config, tokenizer)
    for note in renderer.notes:
        screen.say(f"note: {note}")
    prepared = prepare(config, renderer, screen.say)
    if not prepared.train and not _only_evaluates(config):
        raise ConfigError([Problem("dataset", "nothing to train on", "dataset: NAME or a file")])
    write_rejected(run.path / REJECTED, prepared.rejected)
    run.write_json("ledger.json", [ledger.as_dict() for ledger in prepared.ledgers])
    run.write_text(templates.FILE, renderer.template.text)
    return Setup(config, machine, run, tokenizer, renderer, prepared, screen)


def _session(setup: Setup, engine: Engine) -> tuple[observe.Session, torch.nn.Module]:
    """Model, optimizer and plan, as new or as they were at the checkpoint that the run continues from."""
    config, run = setup.config, setup.run
    _confirm(setup)
    dtype = loading.dtype(config, training=True)
    base = loading.model(config, dtype, training=True, tokenizer=setup.tokenizer)
    model = methods.prepare(base, config, training=True, resume_from=run.resume_from)
    layout = _layout(config, model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    before = noise.attach(model, config.neftune_noise_alpha) if config.neftune_noise_alpha else None
    optimizer = optim.build(model, config)
    trained, total = methods.trainable_parameters(model)
    setup.screen.say(
        f"trainable parameters: {trained:,} of {total:,} ({trained / total:.2%}), {layout} layout"
    )
    wrapped, prepared_optimizer = engine.prepare(model, optimizer)
    plan = plan_of(config, setup.prepared, engine.world)
    job = Job(
        engine=engine,
        model=wrapped,
        optimizer=prepared_optimizer,
        schedule=optim.schedule(config, plan.total_steps),
        loss=loss_of(config.stage),
        plan=plan,
        corpus=setup.prepared.train,  # type: ignore[arg-type]  # absent only when nothing is trained
        budget=_budget(setup, model, trained),
        share=config.prefix_sharing and layout == "tree",
        layout=layout,
        clip=config.max_grad_norm,
        seed=config.seed,
        before_forward=before,
    )

    session = observe.Session(
        config=config,
        run=run,
        job=job,
        evals=setup.prepared.evals,
        save_weights=lambda folder: methods.save(engine.unwrap(wrapped), folder, config),
        save_moments=lambda folder: checkpoint.save_optimizer(optimizer, model, folder),
        say=setup.screen.say,
        draw=setup.screen.draw,
    )
    if run.resume_from is not None:
        session.progress = observe.restore(run.resume_from)
        session.saved = session.progress.global_step
        checkpoint.load_optimizer(optimizer, model, run.resume_from)
    return session, model


def plan_of(config: Config, prepared: Prepared, world: int) -> planning.Plan:
    """The plan of a run. Packing makes bins of `cutoff_len` tokens; blocks of pre-training are full already."""
    if prepared.train is None:
        return planning.Plan(1, 1, 0, max_steps=1)
    lengths = prepared.train.lengths
    bins = (
        tuple(planning.pack(lengths, config.cutoff_len)) if config.packing and config.stage != "pt" else None
    )
    return planning.Plan(
        units=len(bins) if bins is not None else len(lengths),
        per_step=config.per_device_train_batch_size * config.gradient_accumulation_steps * world,
        seed=config.data_seed if config.data_seed is not None else config.seed,
        epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        world=world,
        shuffle=not config.disable_shuffling,
        bins=bins,
    )


def _layout(config: Config, model: torch.nn.Module) -> str:
    attention.enable(model)
    return attention.probe(model)


def _budget(setup: Setup, model: torch.nn.Module, trained: int) -> int:
    config = setup.config
    if config.micro_batch_tokens:
        return config.micro_batch_tokens
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return memory.tokens_per_pass(
        model.config, setup.machine, weights, 4 * trained, bool(config.gradient_checkpointing)
    )


def _confirm(setup: Setup) -> None:
    """Write what the run is made of; on resume, name every change, and have those that matter confirmed."""
    config, run = setup.config, setup.run
    base = Path(locate.model(str(config.model_name_or_path), config))
    folder = base if base.is_dir() else None
    new = manifest.build(
        config.as_dict(),
        data_files=list(setup.prepared.files),
        template_text=setup.renderer.template.text,
        tokenizer_dir=folder,
        base_dir=folder,
        machine=asdict(setup.machine),
    )
    if run.resume_from is not None:
        old_config, old = run.read_json("config.resolved.json"), run.read_json("manifest.json")
        found = compare.all_changes(old_config, config.as_dict(), old, new)
        for line in compare.confirm(found, config.confirm_changes):
            setup.screen.say(line)
    run.write_config(config_text(config), config.as_dict())
    run.write_json("manifest.json", new)
    run.write_marker(
        stage=config.stage,
        finetuning_type=config.finetuning_type,
        base=config.model_name_or_path,
        adapter=config.finetuning_type == "lora",
        template=setup.renderer.template.name,
        system=config.default_system,
    )


def config_text(config: Config) -> str:
    """The configuration as the user wrote it, whether in a file or on the command line."""
    import yaml

    return str(yaml.safe_dump(dict(config.written), allow_unicode=True, sort_keys=False))


def _train(session: observe.Session, setup: Setup, model: torch.nn.Module) -> None:
    """Run the loop under observation, then write the final weights and the results."""
    config, job = setup.config, session.job
    job.engine.start_tracking(config.project or "luthier", config.as_dict())
    done = session.progress.global_step
    setup.screen.start(job.plan.total_steps, done)
    if done < job.plan.total_steps:
        setup.screen.say(f"training from step {done} to {job.plan.total_steps}, {len(job.corpus)} examples")
    if config.eval_on_start and done == 0 and session.evals:
        observe.run_evaluation(session)
    with signals.deferred() as asked:
        for step in steps(job, done):
            observe.observe(session, step)
            if asked():
                observe.save(session)
                raise signals.Stopped(asked())
            if session.stop:
                setup.screen.say(f"stopped early: {session.stop}")
                break
    if config.load_best_model_at_end:
        _take_best(session, setup)
    if job.engine.is_main:
        _finish(session, setup, methods.trainable_parameters(model)[1])
    job.engine.end()


def _take_best(session: observe.Session, setup: Setup) -> None:
    best = session.progress.best_global_step
    folder = setup.run.path / f"checkpoint-{best}"
    if best is None or best == session.progress.global_step or not folder.is_dir():
        return
    checkpoint.load_weights(session.job.engine.unwrap(session.job.model), folder, setup.config)
    setup.screen.say(f"the best weights are those of step {best}; they are the result")


def _finish(session: observe.Session, setup: Setup, parameters: int) -> None:
    config, run = setup.config, setup.run
    session.save_weights(run.path)
    setup.tokenizer.chat_template = setup.renderer.template.text
    setup.tokenizer.save_pretrained(run.path)
    metrics = results.train_results(session, parameters)
    results.write(run, "train", metrics)
    results.write_state(session)
    if config.plot_loss and not results.plot(run, session.progress.log_history):
        setup.screen.say('plot_loss: matplotlib is not installed: pip install "luthier[plot]"')
    setup.screen.say(
        f"done: loss {metrics['train_loss']:.4f} in {observe.clock(metrics['train_runtime'])}, in {run.path}"
    )


def _after(session: observe.Session, setup: Setup, model: torch.nn.Module) -> None:
    """Evaluation and prediction at the end, where asked."""
    config = setup.config
    if config.do_eval and session.evals:
        measured = observe.run_evaluation(session)
        if session.job.engine.is_main:
            results.write(setup.run, "eval", {**measured, "epoch": round(session.progress.epoch, 4)})
    if config.do_predict and session.job.engine.is_main:
        from luthier.infer.predict import predict_with

        predict_with(model, setup.tokenizer, setup.renderer, config, setup.run)
