"""The doctor's checks: a table of functions from `Data` to findings, and the order in which they are told."""

from __future__ import annotations

import importlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.measure import closed
from luthier.prepare import numbered
from luthier.prepare.report import Finding
from luthier.prepare.table import Table

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer
    from luthier.prepare.near import Alike


NAMED = 200
"""Rows, or runs of them, that a command names; with more, nobody would read it."""


@dataclass
class Data:
    """What a check may look at.

    file: the words that name the data set in a command, for `fix` · evals: the data sets that it must not
    share rows with · config, renderer: of --model; None without one · converted: values that were read as
    something else, counted · say: shows progress, one line.
    """

    file: str
    table: Table
    evals: list[Table] = field(default_factory=list)
    config: Config | None = None
    renderer: Renderer | None = None
    converted: Counter[str] = field(default_factory=Counter)
    say: Callable[[str], None] = print

    @cached_property
    def closed(self) -> tuple[str, ...] | None:
        """The answers, when they come from a small closed set (labels); None otherwise."""
        return closed.labels(self.table.answers) if self.table.stage == "sft" else None

    @cached_property
    def alike(self) -> Alike:
        """Which rows have the same system prompt and equal or near inputs; MissingPackage without rensa."""
        from luthier.prepare.near import alike

        return alike([self.table.inputs], self.table.systems)

    def leave_out(self, sources: Sequence[str]) -> str:
        """The command that drops these rows; "" where it would be too long to be read."""
        spec = self.table.spec
        rows = numbered.written(sources, spec.where == "file" and not Path(spec.location).is_dir())
        if not rows or rows.count(",") >= NAMED:
            return ""
        return f"luthier data clean {self.file} --steps row_removal {shlex.quote(f'row_removal.rows={rows}')}"

    def or_leave_out(self, instead: str, sources: Sequence[str]) -> str:
        """What to do, and the command for who would rather do without these rows."""
        command = self.leave_out(sources)
        return f"{instead}, or leave the rows out" + (f": {command}" if command else "")


Check = Callable[[Data], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Row:
    """Where the check is ("module:function"), what it looks for, and what it needs: "model", "eval" or ""."""

    path: str
    what: str
    needs: str = ""


CHECKS: dict[str, Row] = {
    "structure": Row("structure:structure", "rows that cannot be used, and why"),
    "texts": Row(
        "texts:texts", "encoding damage, HTML, control tokens, placeholders, personal data, secrets"
    ),
    "duplicates": Row("duplicates:duplicates", "rows that say the same, exactly or nearly"),
    "leakage": Row("duplicates:leakage", "evaluation rows that training has seen", "eval"),
    "contradictions": Row("duplicates:contradictions", "the same input with different answers"),
    "label_names": Row("labelled:label_names", "answers that are almost labels"),
    "class_balance": Row("labelled:class_balance", "classes that are rare or dominate"),
    "label_noise": Row("labelled:label_noise", "answers that the rest of the data contradicts"),
    "agreement": Row("labelled:agreement", "label columns of several annotators that disagree"),
    "languages": Row("variety:languages", "languages of questions and answers"),
    "outliers": Row("variety:outliers", "rows unlike the others in length, repetition or symbols"),
    "diversity": Row("variety:diversity", "distinct n-grams, openings and topics"),
    "truncation": Row("endings:truncation", "answers that stop in the middle"),
    "lengths": Row("lengths:lengths", "length in tokens, and what cutoff_len would cut", "model"),
    "perplexity": Row("perplexity:perplexity", "rows that the model finds least likely", "model"),
    "replay": Row("replay:replay", "what LLaMA-Factory would drop or change"),
}
ON_REQUEST = frozenset({"perplexity", "replay"})
"""Checks that run only when they are asked for: they take long, or belong to another program."""


def load(name: str) -> Check:
    """The function of the check `name`."""
    module, _, function = CHECKS[name].path.partition(":")
    check: Check = getattr(importlib.import_module(f"luthier.prepare.checks.{module}"), function)
    return check
