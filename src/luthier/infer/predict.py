"""`luthier predict`: the model's answers to a data set, and how good they are.

Writes LLaMA-Factory's files with its names and keys: generated_predictions.jsonl (prompt, predict, label, and
here also source), predict_results.json, and the same numbers merged into all_results.json. Answers are kept
as they are finished; when the work is stopped, generated_predictions.partial.jsonl has those that are done.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from luthier.errors import DataError
from luthier.infer import engine as engines
from luthier.infer import metrics
from luthier.infer.engine import Engine, Generation
from luthier.infer.loading import load, ready_engine
from luthier.runs import Run
from luthier.types import BadRow, Example, Message

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer

PREDICTIONS = "generated_predictions.jsonl"
PARTIAL = "generated_predictions.partial.jsonl"
RESULTS = "predict_results.json"
ALL_RESULTS = "all_results.json"
NOWHERE = "predictions"
"""Where results go when the request names neither a run nor an output_dir."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """One row: the prompt in tokens, the reference answer ("" where the row has none), and "file:row"."""

    prompt: list[int]
    label: str
    source: str


def main(args: Sequence[str]) -> int:
    """`luthier predict RUN --dataset NAME`: numbers to stdout, everything else to stderr."""
    from luthier.config import load as load_config
    from luthier.config import resolve
    from luthier.model import machine

    config = resolve(load_config(list(args), "predict"), machine.detect())
    for note in config.notes:
        _say(f"note: {note}")
    results = predict(config)
    print(json.dumps(results, ensure_ascii=False) if config.format == "json" else table(results))
    return 0


def predict(config: Config, say: Say | None = None) -> dict[str, float]:
    """Answer the data set of the request and write the results; returns what predict_results.json holds.

    They go to `output_dir`, else into the run. Raises DataError, ModelError, RunError.
    """
    say = say or _say
    run = Run.join((config.is_set("output_dir") and config.output_dir) or config.run or NOWHERE)
    try:
        ready = load(config)
        say(ready.about)
        return _answer(ready.engine, ready.tokenizer, ready.renderer, config, run, say)
    finally:
        run.close()


def predict_with(
    model: Any, tokenizer: Any, renderer: Renderer, config: Config, run: Run, say: Say | None = None
) -> dict[str, float]:
    """The same with a model that is loaded already, at the end of training; `run` is open for writing.

    The model is left in the mode (training or evaluation) in which it was.
    """
    training = model.training
    try:
        return _answer(ready_engine(model, tokenizer, config), tokenizer, renderer, config, run, say or _say)
    finally:
        model.train(training)


def table(results: dict[str, float]) -> str:
    """Results as lines that can be read: shares in per cent, LLaMA-Factory's scores as they are."""
    names = {name: name.removeprefix("predict_") for name in results}
    width = max(map(len, names.values()))
    shares = {"exact_match", "accuracy", "macro_f1", "outside_labels"}
    return "\n".join(
        f"{short:<{width}}  {f'{results[name] * 100:.2f} %' if short in shares else f'{results[name]:.4f}'}"
        for name, short in names.items()
    )


# --- questions


def questions(config: Config, renderer: Renderer, say: Say) -> list[Question]:
    """Rows of the data sets to predict on, in order, with their prompts.

    That is `eval_dataset`, or `dataset` where it is given on the command line; without eval_dataset the part
    of `dataset` that val_size holds out. Raises DataError when nothing is left or too many rows are bad.
    """
    names, wanted = _which(config, renderer, say)
    found: list[Question] = []
    bad: list[BadRow] = []
    read = 0
    for row in _rows(names, config):
        read += 1
        if isinstance(row, BadRow):
            bad.append(row)
        elif wanted is None or row.source in wanted:
            found.append(_question(row, config, renderer))
    _judge(config, read, bad, say)
    if not found:
        raise DataError(f"{', '.join(names)}: no row to predict on; check the data set and max_samples")
    return found


def _which(config: Config, renderer: Renderer, say: Say) -> tuple[Sequence[str], set[str] | None]:
    """Names of data sets, and the sources of the rows that count (None: all)."""
    from luthier.data import prepare

    typed = config.where.get("dataset", "").lstrip("-") in ("dataset", "argument")
    if config.eval_dataset and not (typed and config.verb == "predict"):
        return config.eval_dataset, None
    if typed and config.verb == "predict":
        return config.dataset, None
    if config.val_size > 0:
        held = prepare.prepare(config, renderer, lambda _: None).evals["validation"]
        say(f"predicting on the {len(held)} rows that val_size held out")
        return config.dataset, {held[i].source for i in range(len(held))}
    say(f"predicting on {', '.join(config.dataset)}; eval_dataset or --dataset NAME chooses another")
    return config.dataset, None


def _rows(names: Sequence[str], config: Config) -> Iterator[Example | BadRow]:
    """Rows as for training, with their answer as a branch; rows that ask without an answer have none."""
    from luthier.data import formats, prepare, registry, sources

    for spec in registry.specs(names, config.dataset_dir, hub=prepare.hub_of(config)):
        for row in islice(sources.read(spec), config.max_samples):
            if isinstance(row, BadRow):
                yield row
                continue
            for stage in ("sft", "predict"):
                try:
                    yield formats.to_example(row, spec, stage)
                    break
                except formats.RowProblem as problem:
                    why = problem
            else:
                yield BadRow(row.source, why.field, why.reason, row.data)


def _question(example: Example, config: Config, renderer: Renderer) -> Question:
    """The conversation up to the last answer, and that answer as training would have the model write it."""
    trunk = list(example.trunk)
    if config.system is not None and not (trunk and trunk[0].role == "system"):
        trunk.insert(0, Message("system", config.system))
    if not example.branches:
        return Question(renderer.prompt(trunk, example.tools), "", example.source)
    *before, answer = example.branches[0]
    prompt = renderer.prompt([*trunk, *before], example.tools)
    return Question(prompt, _label(answer, replace(example, trunk=tuple(trunk)), renderer), example.source)


def _label(answer: Message, example: Example, renderer: Renderer) -> str:
    """The answer as the template writes it: its tokens as text, without the end of the turn."""
    found = renderer.examples([replace(example, branches=example.branches[:1])])[0]
    if isinstance(found, BadRow):
        return answer.content
    ids = found[-1].branches[0].ids.tolist()
    ends = [i for i, token in enumerate(ids) if token in renderer.stop_ids]
    ids = ids[: ends[-1]] if ends else ids
    return engines.text_of(renderer.tokenizer, ids, Generation(stop_strings=renderer.stop_strings))


def _judge(config: Config, read: int, bad: list[BadRow], say: Say) -> None:
    """The rule of training: more bad rows than bad_rows_limit stop the work, fewer are named and left out."""
    if not bad:
        return
    shown = "\n".join(f"  {b.source}{': ' + b.field if b.field else ''}: {b.reason}" for b in bad[:20])
    if config.on_bad_rows == "stop" and len(bad) / read > config.bad_rows_limit:
        raise DataError(
            f"{len(bad)} of {read} rows are bad:\n{shown}\n"
            "Mend these rows, or leave them out: on_bad_rows=skip"
        )
    say(f"{len(bad)} bad rows are left out:\n{shown}")


# --- answers


def _answer(
    engine: Engine, tokenizer: Any, renderer: Renderer, config: Config, run: Run, say: Say
) -> dict[str, float]:
    rows = questions(config, renderer, say)
    sample = config.do_sample if config.is_set("do_sample") else False
    options = engines.generation(config, renderer, sample)
    done: dict[int, str] = {}
    began = time.perf_counter()

    def record(i: int) -> dict[str, str]:
        prompt = tokenizer.decode(rows[i].prompt, skip_special_tokens=False)
        return {"prompt": prompt, "predict": done[i], "label": rows[i].label, "source": rows[i].source}

    with open(run.path / PARTIAL, "w", encoding="utf-8") as partial, _Bar(len(rows)) as bar:

        def finished(i: int, ids: list[int]) -> None:
            done[i] = engines.text_of(tokenizer, ids, options, config.skip_special_tokens)
            _write(partial, record(i))
            bar.advance(len(ids))

        try:
            engine.generate([row.prompt for row in rows], options, finished)
        except KeyboardInterrupt:
            say(f"stopped after {len(done)} of {len(rows)} rows, which are in {run.path / PARTIAL}")
            raise
    pairs = [(done[i], row.label) for i, row in enumerate(rows)]
    results = _results(pairs, renderer.template.thought, time.perf_counter() - began)
    _keep(run, [record(i) for i in range(len(rows))], results)
    if metrics.word_cutter()[1] != "jieba":
        say('ROUGE is over characters, not words: jieba is missing (pip install "luthier[metrics]")')
    say(f"written: {run.path / PREDICTIONS}, {run.path / RESULTS}")
    return results


def _results(
    pairs: list[tuple[str, str]], thought: tuple[str, str] | None, seconds: float
) -> dict[str, float]:
    scored = [(predict, label) for predict, label in pairs if label]
    values = metrics.score([predict for predict, _ in scored], [label for _, label in scored], thought)
    values |= {"rows": len(pairs), "runtime": round(seconds, 4)}
    values |= {"samples_per_second": round(len(pairs) / max(seconds, 1e-9), 3)}
    return {f"predict_{name}": round(value, 6) for name, value in values.items()}


def _keep(run: Run, records: list[dict[str, str]], results: dict[str, float]) -> None:
    """Write all results, each file whole; then the partial file has served."""
    run.write_text(PREDICTIONS, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    run.write_json(RESULTS, results)
    known = run.read_json(ALL_RESULTS) if (run.path / ALL_RESULTS).is_file() else {}
    run.write_json(ALL_RESULTS, {**known, **results})
    (run.path / PARTIAL).unlink()


def _write(file: TextIO, record: dict[str, str]) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Bar:
    """Progress on stderr: a bar with the time left on a terminal, else a line every ten seconds."""

    def __init__(self, total: int) -> None:
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
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
            _say(f"predicted {self._done}/{self._total}  {speed}  eta {left:.0f} s")
