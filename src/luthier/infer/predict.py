"""`luthier predict`: the model's answers to a data set, and how good they are.

Writes LLaMA-Factory's files with its names and keys: generated_predictions.jsonl (prompt, predict, label, and
here also source), predict_results.json, and the same numbers merged into all_results.json. Answers are kept
as they are finished; when the work is stopped, generated_predictions.partial.jsonl has those that are done.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, cast

from luthier.errors import DataError
from luthier.infer import loading
from luthier.infer.engine import text_of
from luthier.infer.loading import Ready
from luthier.infer.questions import Question, Say, questions
from luthier.measure import strings
from luthier.runs import Run
from luthier.streams import Lasting
from luthier.streams import say as to_stderr

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer

PREDICTIONS = "generated_predictions.jsonl"
PARTIAL = "generated_predictions.partial.jsonl"
RESULTS = "predict_results.json"
ALL_RESULTS = "all_results.json"
NOWHERE = "predictions"
"""Where results go when the request names neither a run nor an output_dir."""


def main(args: Sequence[str]) -> int:
    """`luthier predict RUN --dataset NAME`: numbers to stdout, everything else to stderr."""
    from luthier.config import load as load_config
    from luthier.config import resolve
    from luthier.model import machine

    config = resolve(load_config(list(args), "predict"), machine.detect())
    for note in config.notes:
        to_stderr(f"note: {note}")
    results = predict(config)
    print(json.dumps(results, ensure_ascii=False) if config.format == "json" else table(results))
    return 0


def predict(config: Config, say: Say | None = None) -> dict[str, float]:
    """Answer the data set of the request and write the results; returns what predict_results.json holds.

    They go to `output_dir`, else into the run. Raises DataError, ModelError, RunError.
    """
    say = say or to_stderr
    with Run.join((config.is_set("output_dir") and config.output_dir) or config.run or NOWHERE) as run:
        tokenizer, renderer = loading.text(config, say)
        rows = questions(config, renderer, say)
        ready = loading.model(config, tokenizer, renderer)
        say(ready.about)
        return _answer(ready, rows, run, say)


def predict_with(
    model: Any, tokenizer: Any, renderer: Renderer, config: Config, run: Run, say: Say | None = None
) -> dict[str, float]:
    """The same with a model that is loaded already, at the end of training; `run` is open for writing.

    The model is left in the mode (training or evaluation) in which it was.
    """
    say, training = say or to_stderr, model.training
    rows = questions(config, renderer, say)
    try:
        ready = loading.Ready(config, tokenizer, renderer, loading.engine_of(model, tokenizer, config))
        return _answer(ready, rows, run, say)
    finally:
        model.train(training)


def table(results: dict[str, float]) -> str:
    """Results as lines that can be read: shares in per cent, LLaMA-Factory's scores as they are."""
    names = {name: name.removeprefix("predict_") for name in results}
    width = max(map(len, names.values()))
    return "\n".join(f"{short:<{width}}  {_shown(short, results[name])}" for name, short in names.items())


def _shown(name: str, value: float) -> str:
    if name in ("exact_match", "accuracy", "macro_f1", "outside_labels"):
        return f"{value * 100:.2f} %"
    return f"{value:.0f}" if name == "rows" else f"{value:.4f}"


# --- answers


def _answer(ready: Ready, rows: list[Question], run: Run, say: Say) -> dict[str, float]:
    config, tokenizer, renderer = ready.config, ready.tokenizer, ready.renderer
    _fit(rows, ready.engine.context)
    options = ready.generation(config.do_sample if config.is_set("do_sample") else False)
    partial, done = run.path / PARTIAL, dict[int, str]()
    partial.unlink(missing_ok=True)
    began = time.perf_counter()

    def record(i: int) -> dict[str, str]:
        prompt = tokenizer.decode(rows[i].prompt, skip_special_tokens=False)
        return {"prompt": prompt, "predict": done[i], "label": rows[i].label, "source": rows[i].source}

    with _Bar(len(rows)) as bar:

        def finished(i: int, ids: list[int]) -> None:
            done[i] = text_of(tokenizer, ids, options, config.skip_special_tokens)
            with open(partial, "a", encoding="utf-8") as file:
                file.write(_line(record(i)))
            bar.advance(len(ids))

        try:
            ready.engine.generate([row.prompt for row in rows], options, finished)
        except BaseException:
            if done:
                say(f"stopped after {len(done)} of {len(rows)} rows, which are in {partial}")
            raise
    pairs = [(done[i], row.label) for i, row in enumerate(rows)]
    results = _results(pairs, renderer.template.thought, time.perf_counter() - began)
    _keep(run, [record(i) for i in range(len(rows))], results)
    if strings.word_cutter()[1] != "jieba":
        say('ROUGE is over characters, not words: jieba is missing (pip install "luthier[metrics]")')
    say(f"written: {run.path / PREDICTIONS}, {run.path / RESULTS}")
    return results


def _results(
    pairs: list[tuple[str, str]], thought: tuple[str, str] | None, seconds: float
) -> dict[str, float]:
    scored = [(predict, label) for predict, label in pairs if label]
    values = strings.score([predict for predict, _ in scored], [label for _, label in scored], thought)
    values |= {"rows": len(pairs), "runtime": round(seconds, 4)}
    values |= {"samples_per_second": round(len(pairs) / max(seconds, 1e-9), 3)}
    return {f"predict_{name}": round(value, 6) for name, value in values.items()}


def _keep(run: Run, records: list[dict[str, str]], results: dict[str, float]) -> None:
    """Write all results, each file whole; then the partial file has served."""
    run.write_text(PREDICTIONS, "".join(map(_line, records)))
    run.write_json(RESULTS, results)
    known = run.read_json(ALL_RESULTS) if (run.path / ALL_RESULTS).is_file() else {}
    run.write_json(ALL_RESULTS, {**known, **results})
    (run.path / PARTIAL).unlink()


def _line(record: dict[str, str]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _fit(rows: list[Question], context: int) -> None:
    """Name every row that the model cannot read, before the first is answered."""
    long = [f"  {row.source}: {len(row.prompt)} tokens" for row in rows if len(row.prompt) >= context]
    if long:
        shown = "\n".join(long[:20])
        raise DataError(
            f"{len(long)} of {len(rows)} prompts leave no room for an answer; "
            f"the model reads {context} tokens:\n{shown}\nShorten these rows, or set rope_scaling"
        )


class _Bar:
    """Progress on stderr: a bar with the time left on a terminal, else a line every ten seconds."""

    def __init__(self, total: int) -> None:
        from rich import progress
        from rich.console import Console

        console = Console(file=cast(IO[str], Lasting(sys.stderr)))
        self._total, self._done, self._tokens = total, 0, 0
        self._began = self._printed = time.perf_counter()
        self._bar = progress.Progress(
            progress.TextColumn("predicting"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[speed]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("eta"),
            progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("predicting", total=total, speed="")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, tokens: int) -> None:
        """One more row is done, with this many tokens."""
        now = time.perf_counter()
        self._done, self._tokens = self._done + 1, self._tokens + tokens
        seconds = max(now - self._began, 1e-9)
        speed = f"{self._tokens / seconds:,.0f} tok/s"
        if not self._bar.disable:
            self._bar.update(self._task, completed=self._done, speed=speed)
        elif now - self._printed > 10:
            self._printed = now
            left = seconds / self._done * (self._total - self._done)
            to_stderr(f"predicted {self._done}/{self._total}  {speed}  eta {left:.0f} s")
