"""`luthier eval`: what did the base say to the same rows, did tuning help, and what did it damage?

Writes report.json, the same for people (report.md and report.html in English, report.zh.md and report.zh.html
in Chinese) and answers.before.jsonl, answers.after.jsonl into RUN/eval/NAME or output_dir.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.evaluate import curve, harness, report, results, scoring, sets, training
from luthier.evaluate import judge as judges
from luthier.evaluate.answers import Kept, answer
from luthier.evaluate.markdown import markdown
from luthier.evaluate.page import page
from luthier.evaluate.plan import Plan, Request, plan
from luthier.evaluate.results import Got
from luthier.evaluate.sets import Set
from luthier.evaluate.systems import System, ask, systems
from luthier.infer import loading, questions
from luthier.infer.loading import Ready
from luthier.infer.questions import Say
from luthier.runs import Run
from luthier.streams import say as to_stderr

if TYPE_CHECKING:
    from luthier.config import Config

NOWHERE = "evaluations"
"""Where results of a model go that is no run, when the request names no output_dir."""
PAGES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "report.md": partial(markdown, language="en"),
    "report.zh.md": partial(markdown, language="zh"),
    "report.html": partial(page, language="en"),
    "report.zh.html": partial(page, language="zh"),
}
"""What is written for people: name of a file -> what makes it of report.json."""


def evaluate(config: Config, request: Request | None = None, say: Say | None = None) -> dict[str, Any]:
    """Evaluate before and after on the rows that the request names; returns what report.json holds.

    Raises DataError, ModelError, UsageError, MissingPackage before the first answer where it can be known.
    """
    request, say = request or Request(), say or to_stderr
    began = time.perf_counter()
    if config.do_sample and config.is_set("do_sample"):
        say("note: do_sample is not used: the most likely answers of both systems are compared")
    found = systems(config, request.baseline)
    judge, outside = judges.judge(request, config.seed, say), harness.begin(request, say)
    tokenizer, renderer = loading.text(config, say)
    rows = questions.questions(config, renderer, say, evaluating=True)
    trained = training.known(config, request, rows)
    asked = scoring.scored(sets.sets(rows, request.task, trained, renderer.template.thought), request)
    sets.say_tasks(asked, say)
    place = _place(config, asked)
    study = curve.study(config, request.curve, found, place / "curve") if request.curve else None
    with Run.join(place) as run:
        plans, got = list[Plan](), dict[str, Got]()

        def work(system: System, ready: Ready) -> None:
            say(f"{system.side}: {ready.about if system.side == 'after' else system.name}")
            if not plans:
                plans.append(plan(asked, config, request, renderer, ready.engine.context, trained))
            got[system.side] = _answers(system, ready, plans[0], run.path, say)
            if outside:
                outside.ask(system, ready, run.path, say)

        try:
            ask(found, tokenizer, renderer, work)
        except KeyboardInterrupt:
            say(f"what was answered is in {run.path}; the same command goes on from there")
            raise
        more = [judge.told(run.path)] if judge else []
        result = results.result(plans[0], got, config, renderer.template.thought, more)
        result |= report.about(config, found, plans[0].jobs)
        if outside:
            for key, told in outside.told(config.seed).items():
                result[key] |= told
        _write(run, result, began)
        if study is not None:  # hours may pass from here on, so what is known is written before
            for name, drawn in curve.draw(study, plans[0], got["after"], renderer, say).items():
                result["details"][name]["curve"] = drawn
            _write(run, result, began)
        say(f"written: {run.path / 'report.json'} and beside it {', '.join(PAGES)}")
    return result


def _write(run: Run, result: dict[str, Any], began: float) -> None:
    result["seconds"] = round(time.perf_counter() - began, 3)
    for name, make in PAGES.items():
        run.write_text(name, make(result))
    run.write_json("report.json", result)


def _answers(system: System, ready: Ready, plan: Plan, folder: Path, say: Say) -> Got:
    kept = Kept(folder / f"answers.{system.side}.jsonl")
    jobs = [job for job in plan.jobs if job.only in ("", system.side)]
    got = {
        job.name: answer(job, ready, kept, system.identity, lambda line: say(f"{system.side}: {line}"))
        for job in jobs
    }
    kept.settle({job.name: job.fingerprint(system.identity) for job in jobs})
    return got


def _place(config: Config, asked: Sequence[Set]) -> Path:
    """output_dir, or a folder of its own in the run, named after the data."""
    name = re.sub(r"[^\w.+-]+", "_", "+".join(Path(one.name).stem for one in asked)) or "data"
    asked_for = config.output_dir if config.is_set("output_dir") else None
    if asked_for and not (config.run and Path(asked_for).resolve() == Path(config.run).resolve()):
        return Path(asked_for)
    return Path(config.run) / "eval" / name if config.run else Path(NOWHERE) / name
