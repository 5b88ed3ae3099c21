"""Everything before the first step: data, plan, model, optimizer; as new, or as a checkpoint left them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from luthier.config import Config, Machine, plain
from luthier.data import plan as planning
from luthier.data import template as templates
from luthier.data.formats import write_rejected
from luthier.data.jinja_guards import today
from luthier.data.prepare import REJECTED, Prepared, prepare
from luthier.data.render import Renderer
from luthier.data.store import Corpus
from luthier.data.stream import Stream
from luthier.errors import ConfigError
from luthier.model import attention, locate, methods
from luthier.model import load as loading
from luthier.runs import Run, compare, manifest
from luthier.train import checkpoint, course, footprint, memory, noise, observe, optim, quality
from luthier.train.engine import Engine
from luthier.train.loop import Job
from luthier.train.probe import layout_of
from luthier.train.quality import Quality
from luthier.train.screen import Screen
from luthier.train.stages import loss_of
from luthier.types import Problem


@dataclass
class Setup:
    """What is known before the model is loaded."""

    config: Config
    machine: Machine
    run: Run
    tokenizer: Any
    renderer: Renderer
    prepared: Prepared
    screen: Screen
    quality: Quality | None = None


def only_evaluates(config: Config) -> bool:
    return not config.do_train and (config.do_eval or config.do_predict)


def setup(config: Config, machine: Machine, run: Run, screen: Screen, engine: Engine) -> Setup:
    """Tokenizer, template and data: all that can fail cheaply, before the model is loaded."""
    tokenizer = loading.tokenizer(config)
    renderer = Renderer.of(config, tokenizer)
    for note in renderer.notes:
        screen.say(f"note: {note}")
    prepared = prepare(config, renderer, screen.say)
    if config.streaming:
        _stream(config, renderer, prepared)
    if prepared.train is None and not only_evaluates(config):
        raise ConfigError([Problem("dataset", "nothing to train on", "dataset: NAME or a file")])
    asked = quality.prepare(config, renderer, list(prepared.evals), screen.say)
    course.require_known(config, course.measures(prepared.evals, asked), config.predict_with_generate)
    made = Setup(config, machine, run, tokenizer, renderer, prepared, screen, asked)
    if engine.is_main:
        _confirm(made, engine)
        write_account(made)
        run.write_text(templates.FILE, renderer.template.text)
    return made


def _stream(config: Config, renderer: Renderer, prepared: Prepared) -> None:
    stream = Stream(config, renderer, config.max_steps * _per_step(config, 1))
    prepared.train = stream
    prepared.ledgers.append(stream.ledger)
    if stream.held_out:
        prepared.evals["validation"] = stream.held_out


def write_account(made: Setup) -> None:
    """ledger.json and rejected.jsonl, as they stand."""
    prepared, run = made.prepared, made.run
    rejected = [*prepared.rejected]
    if isinstance(prepared.train, Stream):
        rejected += prepared.train.rejected
    if rejected:
        write_rejected(run.path / REJECTED, rejected)
    run.write_json("ledger.json", [ledger.as_dict() for ledger in prepared.ledgers])


def session(made: Setup, engine: Engine) -> tuple[observe.Session, torch.nn.Module]:
    """The session of a run that starts, or continues from `run.resume_from`; and the model, unwrapped."""
    config, run = made.config, made.run
    dtype = loading.dtype(config, training=True)
    base = loading.model(config, dtype, training=True, tokenizer=made.tokenizer)
    model = methods.prepare(base, config, training=True, resume_from=run.resume_from)
    attention.enable(model)
    layout = layout_of(model)
    if config.gradient_checkpointing:
        memory.checkpoint_activations(model)
        model.enable_input_require_grads()
    optimizer = optim.build(model, config)
    made.screen.say(_about(model, layout))
    job = _job(made, engine, model, optimizer, layout)
    wrapped = job.model
    beside = cache(lambda: footprint.beside(made.tokenizer, made.renderer.template.text, run))
    made_session = observe.Session(
        config=config,
        run=run,
        job=job,
        evals=made.prepared.evals,
        save_weights=lambda folder: _save(made, engine.unwrap(wrapped), folder),
        save_moments=lambda folder: checkpoint.save_optimizer(optimizer, model, folder, engine.scale()),
        say=made.screen.say,
        draw=made.screen.draw,
        estimate=lambda: footprint.of(model, optimizer, config, beside()),
        quality=made.quality and made.quality.fit(model, made.screen.say),
        measures=course.measures(made.prepared.evals, made.quality),
    )
    if run.resume_from is not None:
        made_session.progress = observe.restore(run.resume_from)
        made_session.saved = made_session.progress.global_step
        run.lines = len(made_session.progress.log_history)
        run.samples = made_session.progress.sample_lines
        made_session.size = footprint.of_checkpoint(run.resume_from, observe.STATE)
        job.budget = _budget_of(made, made_session.progress) or job.budget
        if made_session.saved < made_session.total:  # else only the result is still to be written
            engine.rescale(checkpoint.load_optimizer(optimizer, model, run.resume_from))
    return made_session, model


def _save(made: Setup, model: torch.nn.Module, folder: Path) -> None:
    """The weights, with the tokenizer and the template that they were trained with: usable by themselves."""
    methods.save(model, folder, made.config)  # type: ignore[arg-type]
    made.tokenizer.chat_template = made.renderer.template.text
    made.tokenizer.save_pretrained(folder)


def take_weights(made: Setup, model: torch.nn.Module, checkpoint_folder: Path) -> None:
    """Put the trained weights of a checkpoint into the model, in place."""
    config = made.config
    dtype = loading.dtype(config, training=True)
    base = loading.model(config, dtype, training=True, tokenizer=made.tokenizer)
    other = dict(methods.prepare(base, config, True, resume_from=checkpoint_folder).named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(other[name])


def _about(model: torch.nn.Module, layout: str) -> str:
    trained, total = methods.trainable_parameters(model)
    how = "" if layout == "tree" else "; this model cannot share prefixes: rows are padded instead"
    return f"trainable parameters: {trained:,} of {total:,} ({trained / total:.2%}){how}"


def _job(
    made: Setup, engine: Engine, model: torch.nn.Module, optimizer: torch.optim.Optimizer, layout: str
) -> Job:
    config = made.config
    wrapped, prepared_optimizer = engine.prepare(model, optimizer)
    plan = plan_of(config, made.prepared, engine.world)
    return Job(
        engine=engine,
        model=wrapped,
        optimizer=prepared_optimizer,
        schedule=optim.schedule(config, plan.total_steps),
        loss=loss_of(config.stage),
        plan=plan,
        corpus=made.prepared.train if made.prepared.train is not None else [],  # type: ignore[arg-type]
        budget=_budget(made, model),
        share=config.prefix_sharing and layout == "tree",
        layout=layout,
        clip=config.max_grad_norm,
        seed=config.seed,
        before_forward=noise.attach(model, config.neftune_noise_alpha)
        if config.neftune_noise_alpha
        else None,
    )


def _per_step(config: Config, world: int) -> int:
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * world


def plan_of(config: Config, prepared: Prepared, world: int) -> planning.Plan:
    """The plan of a run. Packing makes bins of `cutoff_len` tokens; blocks of pre-training are full."""
    corpus, bins = prepared.train, None
    if isinstance(corpus, Corpus) and config.packing and config.stage != "pt":
        bins = tuple(planning.pack(corpus.lengths, config.cutoff_len))
    units = 1 if corpus is None else len(corpus) if bins is None else len(bins)
    return planning.Plan(
        units=units,
        per_step=_per_step(config, world),
        seed=config.data_seed if config.data_seed is not None else config.seed,
        epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        world=world,
        shuffle=not config.disable_shuffling and not config.streaming,
        bins=bins,
    )


def _budget(made: Setup, model: torch.nn.Module) -> int:
    config = made.config
    if config.micro_batch_tokens:
        return config.micro_batch_tokens
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
    checkpointing = bool(config.gradient_checkpointing)
    return memory.tokens_per_pass(model.config, made.machine, weights, trained, checkpointing)


def _budget_of(made: Setup, progress: observe.Progress) -> int:
    """The budget that the run had come to, on the machine where it had; another one would round otherwise."""
    before = made.run.made_of()
    then, now = before["manifest"]["machine"], asdict(made.machine)
    same = all(then.get(key) == now[key] for key in ("device", "name", "memory_bytes"))
    asked = before["config"].get("micro_batch_tokens") == made.config.micro_batch_tokens
    return progress.micro_batch_tokens if same and asked else 0


def _confirm(made: Setup, engine: Engine) -> None:
    """Write what the run is made of; on resume, name every change, and have those that matter confirmed."""
    config, run = made.config, made.run
    base = Path(locate.model(str(config.model_name_or_path), config))
    folder = base if base.is_dir() else None
    new = manifest.build(
        config.as_dict(),
        data_files=[*made.prepared.files, *_registry(config)],
        template_text=made.renderer.template.text,
        tokenizer_dir=folder,
        base_dir=folder,
        machine=asdict(made.machine),
    )
    threads = torch.get_num_threads()
    new["process"] = {"world": engine.world, "threads": threads, "device": engine.device.type}
    new["day"] = today().isoformat()
    if run.resume_from is not None:
        old = run.made_of()
        found = compare.all_changes(old["config"], config.as_dict(), old["manifest"], new)
        for line in compare.confirm(found, config.confirm_changes):
            made.screen.say(line)
    run.describe(config_text(config), config.as_dict(), new)
    run.write_marker(
        stage=config.stage,
        finetuning_type=config.finetuning_type,
        base=config.model_name_or_path,
        adapter=config.finetuning_type == "lora",
        template=made.renderer.template.name,
        system=config.default_system,
        thought=made.renderer.template.thought,
    )


def _registry(config: Config) -> list[str]:
    """dataset_info.json, which decides how the files are read."""
    path = Path(config.dataset_dir) / "dataset_info.json"
    return [str(path)] if path.is_file() else []


def config_text(config: Config) -> str:
    """The configuration as the user wrote it, whether in a file or on the command line."""
    return plain.to_yaml(dict(config.written))
