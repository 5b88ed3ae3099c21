"""What follows from the kind of a task: by which metrics it is scored, and how their values are written."""

from __future__ import annotations

from collections.abc import Iterable

METRICS_OF = {"calls": "tools", "number": "numbers"}
"""Kinds of tasks whose metrics have another name: `tasks.Kind` -> a row of `metrics.METRICS`."""

LEADING: dict[str, str] = {
    "labels": "accuracy",
    "extraction": "field_f1",
    "text": "token_f1",
    "calls": "call_match",
    "choice": "accuracy",
    "number": "number_match",
    "perplexity": "perplexity",
}
"""Kind of task -> the metric that stands for it where only one is looked at: slices, best and worst rows."""

PLAIN = frozenset(
    "rouge-1 rouge-2 rouge-l bleu-4 sacrebleu chrf perplexity length_gap schema_missing schema_extra "
    "schema_type word_perplexity byte_perplexity bits_per_byte bleu ter brier_score".split()
)
"""Metrics that are no shares; all others are shown in per cent."""


def number(metric: str, value: float | None) -> str:
    """A value of a metric for people, "-" where there is none; `likelihood_` before its name is no matter."""
    if value is None:
        return "-"
    return f"{value:.3f}" if metric.removeprefix("likelihood_") in PLAIN else f"{value * 100:.1f} %"


def leading(kind: str, found: Iterable[str]) -> str:
    """The one of the metrics `found` that stands for this kind of task; the first for a kind of others."""
    names = list(found)
    return LEADING[kind] if LEADING.get(kind) in names else names[0]
