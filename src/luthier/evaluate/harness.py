"""Any task of the lm-eval package (Gao et al., 2024, zenodo.12608602), asked before and after: its only door.

The package makes the prompts and scores each sample; intervals and verdicts are made here, from its values of
single samples (`harness_figures`), because its own standard errors are of one system and know of no pairs.
Prompts are the package's plain ones, without a chat template, as in its published figures.

Tasks are programs of others on data of others: one that cannot be loaded (its data is not in the cache and
there is no network), breaks off, or would run what the model writes (the package calls it unsafe) is a note
of the report, and the other tasks go on.
"""

from __future__ import annotations

import copy
import difflib
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import MissingPackage, RunError, UsageError
from luthier.evaluate import harness_figures
from luthier.evaluate.harness_figures import Found
from luthier.evaluate.notes import Note, note
from luthier.infer.loading import Ready
from luthier.infer.questions import Say
from luthier.redact import redact
from luthier.runs import atomic, hashing
from luthier.streams import legible

if TYPE_CHECKING:
    from luthier.evaluate.plan import Request
    from luthier.evaluate.systems import System

NAME = "lm_eval"
_SEEDS = (0, 1234)  # the package's own, for Python and for numpy, torch and the examples in prompts
_LONGEST = 300  # characters of another program's error


@dataclass
class Harness:
    """The tasks that were asked for. loaded: name -> what the package made of it, and a hash of what decides
    its questions · found: side -> name -> what came out."""

    limit: int | None
    loaded: dict[str, tuple[Any, str]]
    notes: list[Note] = field(default_factory=list)
    found: dict[str, dict[str, Found]] = field(default_factory=dict)

    def ask(self, system: System, ready: Ready, folder: Path, say: Say) -> None:
        """All tasks of one system, on the model that is loaded; what is kept is not asked again."""
        path = folder / f"lm_eval.{system.side}.json"
        kept: dict[str, Any] = _kept(path)
        self.found[system.side] = {}
        for name, (loaded, identity) in self.loaded.items():
            fingerprint = hashing.sha256_json([system.identity, self.limit, identity])[:32]
            if fingerprint not in kept:
                say(f"{system.side}: lm_eval {name}")
                try:
                    kept[fingerprint] = _run(ready, loaded, self.limit)
                except Exception as error:  # of any program of the package's, its tasks' and its data's
                    self._lost("lm_eval_failed", name, error, side=system.side)
                    continue
                atomic.write_json(path, kept)
            self.found[system.side][name] = harness_figures.found(name, kept[fingerprint])

    def told(self, seed: int) -> dict[str, dict[str, Any]]:
        """`tasks` and `details` of the tasks that all systems finished; details.lm_eval says what failed."""
        tasks: dict[str, Any] = {}
        details: dict[str, Any] = {}
        for name in self.loaded:
            sides = {side: found[name] for side, found in self.found.items() if name in found}
            if len(sides) == len(self.found):
                for key, (figures, detail) in harness_figures.told(name, sides, seed).items():
                    tasks[key], details[key] = figures, detail
        about = {"kind": NAME, "version": version("lm_eval"), "limit": self.limit, "notes": self.notes}
        return {"tasks": tasks, "details": {**details, NAME: about}}

    def _lost(self, key: str, name: str, error: Exception, **values: str) -> None:
        words = (str(error).strip().splitlines() or [""])[0]
        why = legible(redact(f"{type(error).__name__}: {words}"))[:_LONGEST]
        self.notes.append(note(key, name=name, why=why, **values))


def begin(request: Request, say: Say) -> Harness | None:
    """The tasks that a request names, loaded with their data; None where it names none.

    Raises MissingPackage without the package, and UsageError for a name that neither it nor lm_eval_path
    knows: both before anything is answered.
    """
    if not request.lm_eval:
        if request.lm_eval_path is not None:
            raise UsageError("--lm_eval_path: which of its tasks? -> --lm_eval NAME, too")
        return None
    if find_spec("lm_eval") is None:
        raise MissingPackage("lm-eval", "--lm_eval", "lm-eval")
    own = request.lm_eval_path
    if own is not None and not Path(own).is_dir():
        raise UsageError(f"--lm_eval_path: {own} is no directory -> one with tasks as YAML")
    say("lm_eval: tasks are programs, which are run" + (f", those in {own}, too" if own is not None else ""))
    harness = Harness(request.lm_eval_limit, {})
    with _quiet():
        manager = _manager(request.lm_eval, own)
        for name in request.lm_eval:
            say(f"lm_eval: loading {name}")
            _seed()
            try:
                loaded = manager.load([name])
                harness.loaded[name] = loaded, _identity(loaded, request.lm_eval_limit)
            except Exception as error:  # of any program of the package's, its tasks' and its data's
                harness._lost("lm_eval_not_loaded", name, error)
    for told in harness.notes:
        say(f"note: {told['en']}")
    return harness


def _manager(names: Sequence[str], path: str | None) -> Any:
    """What knows all the names; the package's own 10,000 tasks are only read where one of them is meant."""
    from lm_eval.tasks import TaskManager

    if path is not None:
        own = TaskManager(include_path=path, include_defaults=False)
        if set(names) <= set(own.all_tasks):
            return own
    manager = TaskManager(include_path=path)
    check(names, manager.all_tasks)
    return manager


def check(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise UsageError for a name that is not among the known ones."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            instead = ", ".join(near) if near else "one that `lm-eval ls tasks` shows"
            raise UsageError(f'--lm_eval: "{name}" is no task of lm-eval -> {instead}')


def _run(ready: Ready, loaded: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """One task or group on the loaded model, as it is kept (`harness_figures.kept`)."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    model: Any = ready.engine.model  # type: ignore[attr-defined]
    before = _places(model)
    _seed()
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(_SEEDS[1])
    with _quiet():
        wrapped = HFLM(
            pretrained=model,
            tokenizer=copy.deepcopy(ready.tokenizer),  # the package may give it another padding token
            batch_size=ready.config.per_device_eval_batch_size,
        )
        if _places(model) != before:
            raise RunError("lm-eval tied weights of the model that were trained apart")
        results = lm_eval.evaluate(wrapped, task_dict=loaded, limit=limit, bootstrap_iters=0)
    return harness_figures.kept(results)


def _identity(loaded: Mapping[str, Any], limit: int | None) -> str:
    """Of what decides the questions: the package, and each task's settings and documents."""
    tasks = {
        name: [task.dump_config(), list(islice(task.eval_docs, limit))]
        for name, task in loaded["tasks"].items()
    }
    return hashing.sha256_json([version("lm_eval"), json.dumps(tasks, sort_keys=True, default=str)])


def _places(model: Any) -> dict[str, int]:
    """Where each parameter lies in memory: weights that are tied lie in one place."""
    return {name: value.data_ptr() for name, value in model.named_parameters(remove_duplicate=False)}


def _kept(path: Path) -> dict[str, Any]:
    try:
        found = atomic.read_json(path) if path.is_file() else {}
    except RunError:
        return {}  # damaged, so it is asked again
    return found if isinstance(found, dict) else {}


def _seed() -> None:
    """As the package's command line does: some tasks shuffle their options while they are loaded."""
    import numpy as np
    import torch

    random.seed(_SEEDS[0])
    np.random.seed(_SEEDS[1])
    torch.manual_seed(_SEEDS[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the package's remarks on defaults of its tasks; errors are shown."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
