"""One evaluation: the loss of every evaluation set, and what the model answers to its rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier.data.prepare import Examples
from luthier.train import course
from luthier.train.loop import evaluate
from luthier.types import Rendered

if TYPE_CHECKING:
    from luthier.train.observe import Session

_SHOWN = 60  # characters of a reply on the screen


class Left(Exception):
    """An evaluation was left, because the run was asked to stop."""


@dataclass(frozen=True)
class _Until:
    """A corpus that is read no further once the run is asked to stop: an evaluation may take long."""

    corpus: Examples
    check: Callable[[], None]

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> Rendered:
        self.check()
        return self.corpus[index]


def measure(
    session: Session, asked: Callable[[], int] | None = None
) -> tuple[dict[str, float], list[dict[str, str]]]:
    """What is measured, with LLaMA-Factory's names, several sets each under their own; and sample replies.

    Raises Left once `asked` gives the signal by which the run is to stop.
    """

    def check() -> None:
        if asked is not None and asked():
            raise Left

    out, replies = dict[str, float](), list[dict[str, str]]()
    for name, corpus in session.evals.items():
        found = _loss(session, _Until(corpus, check))
        if session.quality:
            said, seconds = session.quality.replies(name, session.job, check)
            found |= session.quality.scores(name, said, seconds)
            replies += session.quality.samples(name, said)
        prefix = course.prefix(name, len(session.evals))
        if f"{prefix}_accuracy" in session.measures and "token_accuracy" in found:
            found.setdefault(
                "accuracy", found["token_accuracy"]
            )  # LLaMA-Factory's name where nothing is answered
        out |= {f"{prefix}_{key}": value for key, value in found.items()}
    return course.joined(out, list(session.evals), session.measures), replies


def _loss(session: Session, corpus: Examples) -> dict[str, float]:
    began = time.perf_counter()
    measured = evaluate(session.job, corpus)
    seconds = max(time.perf_counter() - began, 1e-9)
    batches = math.ceil(len(corpus) / session.config.per_device_eval_batch_size)
    return {
        **measured,
        "perplexity": math.exp(min(measured["loss"], 700.0)),
        "runtime": round(seconds, 4),
        "samples_per_second": round(len(corpus) / seconds, 3),
        "steps_per_second": round(batches / seconds, 3),
    }


def shown(reply: dict[str, str]) -> str:
    """A sample reply in a line for the screen."""
    answer, wanted = _short(reply["answer"]), _short(reply["reference"])
    return f"  {reply['source']}: {answer}" + ("" if answer == wanted else f"  (wanted: {wanted})")


def _short(text: str) -> str:
    """On one line and printable: a model may write what would command a terminal."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
