"""What report.json of an evaluation holds, made by hand."""

from __future__ import annotations

from typing import Any

from luthier.evaluate.notes import note

LABELS = ["体育", "财经", "never asked"]


def figure(
    before: float | None, after: float | None, wide: float, verdict: str | None, **more: Any
) -> dict[str, Any]:
    delta = None if before is None or after is None else after - before
    middle = delta if delta is not None else before if after is None else after
    bounds = {"low": None, "high": None} if middle is None else {"low": middle - wide, "high": middle + wide}
    return {"before": before, "after": after, "delta": delta, **bounds, "n": 40, "verdict": verdict, **more}


def example(text: str, **more: Any) -> dict[str, Any]:
    return {
        "source": "eval.json:7",
        "input": text,
        "reference": "体育",
        "before": "财经",
        "after": "体育",
        **more,
    }


def labelled() -> dict[str, Any]:
    """All that the details of closed labels may hold."""
    return {
        "kind": "labels",
        "why": "40 of 40 answers are one of 2 short labels.",
        "why_zh": "40 条答案中有 40 条属于 2 个短标签。",
        "rows": 40,
        "sha256": "ab" * 32,
        "notes": [note("answers_cut", count=3, rows=40, side="before", limit=8)],
        "advice": [{"key": "a", "en": "Tuning is worth it.", "zh": "值得微调。"}],
        "labels": LABELS,
        "per_class": {
            "体育": {"f1": {"before": 0.5, "after": 0.9}, "recall": {"before": 0.5, "after": 0.9}},
            "财经": {"f1": {"before": 0.6, "after": 0.55}, "recall": {"before": 0.6, "after": 0.5}},
        },
        "confusion": {
            "before": [[10, 10, 0, 0], [8, 12, 0, 0], [0, 0, 0, 0]],
            "after": [[19, 0, 0, 1], [7, 13, 0, 0], [0, 0, 0, 0]],
        },
        "calibration": {
            side: {
                "ece": ece,
                "bins": [{"low": 0.6, "high": 0.7, "confidence": 0.65, "accuracy": 0.5, "n": 12}],
            }
            for side, ece in (("before", 0.2), ("after", 0.031))
        },
        "scoring": {"generation": 0.9, "likelihood": 0.925, "delta": 0.025, "low": -0.01, "high": 0.06}
        | {"better": "no evidence"},
        "slices": {
            "length": {"3 to 11 tokens": {"metric": "accuracy", **figure(0.2, 0.8, 0.1, "improved")}},
            "language": {"Chinese characters": {"metric": "accuracy", **figure(0.8, 0.5, 0.1, "regressed")}},
        },
        **_beside(),
    }


def _beside() -> dict[str, Any]:
    """Examples, shots, curve and judge."""
    near = {"source": "train.json:3", "input": "a goal", "answer": "财经", "similarity": 0.87}
    better = figure(0.4, 0.9, 0.1, "improved")
    return {
        "fixed": [example("who won?", score={"before": 0.0, "after": 1.0})],
        "worst": [example("who lost?", nearest=[near], contradicts=True)],
        "shots": {
            "k": 4,
            "tokens": {"without": 20.0, "random": 90.4},
            "random": {"accuracy": figure(0.4, 0.6, 0.1, "improved")},
            "tuned_against_random": {"accuracy": better},
        },
        "curve": {
            "metric": "accuracy",
            "points": [
                {"share": 10, "rows": 100, "value": 0.5, "low": 0.4, "high": 0.6, "seconds": 3.2},
                {"share": 100, "rows": 1000, "value": 0.9, "low": 0.85, "high": 0.95, "seconds": 31.0},
            ],
            "fit": {"a": 0.02, "b": 2.4, "c": 0.5},
            "twice": {"rows": 2000, "value": 0.927, "low": 0.9, "high": 0.95},
            "notes": [{"key": "c", "en": "Twice brings little.", "zh": "翻倍收效甚微。"}],
        },
        "judge": {
            **{"model": "m", "form": "compare", "rows": 50, "asked": 48, "wins": 30, "ties": 12, "losses": 6},
            **{
                "inconsistent": 4,
                "unreadable": 1,
                "failed": 0,
                "agreement": 0.91,
                "kappa": 0.8,
                "first_position": 0.5,
            },
            "win_rate": {"value": 0.75, "low": 0.65, "high": 0.85, "n": 48, "verdict": "improved"},
            "notes": [{"key": "j", "en": "The judge was asleep once.", "zh": "评判模型睡着了一次。"}],
        },
    }


def whole() -> dict[str, Any]:
    """A report of a labelled set, of the suite and of general text."""
    return {
        "tasks": {
            "news": {
                "accuracy": figure(0.55, 0.8, 0.08, "improved", higher=True),
                "outside_labels": figure(0.0, 0.025, 0.02, "regressed", higher=False),
                "likelihood_accuracy": figure(0.6, 0.825, 0.05, "improved", higher=True),
            },
            "suite": {
                "arithmetic": figure(0.5, 0.25, 0.1, "regressed"),
                "reading": figure(0.4, 0.45, 0.1, "no evidence"),
            },
            "general_text": {"perplexity": figure(1234.5, 1250.25, 40.0, "no evidence", higher=False)},
        },
        "details": {
            "news": labelled(),
            "suite": {"kind": "suite", "notes": [], "version": "1"},
            "general_text": {"kind": "perplexity", "notes": []},
        },
        "systems": {
            "before": {"name": "base", "weights": {"base": {"model.safetensors": "cd" * 32}}},
            "after": {"name": "base + run"},
        },
        "decoding": {"num_beams": 1},
        "seed": 42,
        "versions": {"luthier": "0.1.0"},
        "seconds": 12.5,
    }


def one_system(side: str) -> dict[str, Any]:
    """The same of the base alone, or of a model that has no base."""
    found, other = whole(), {"before": "after", "after": "before"}[side]
    del found["systems"][other]
    for metrics in found["tasks"].values():
        for name, one in metrics.items():
            sides = (one["before"], None) if side == "before" else (None, one["after"])
            metrics[name] = {**figure(*sides, 0.02, None), "higher": one.get("higher", True)}
    details = found["details"]["news"]
    for key in ("slices", "fixed", "shots", "curve", "judge", "advice"):
        del details[key]
    for key in ("confusion", "calibration"):
        del details[key][other]
    for metrics in details["per_class"].values():
        metrics["f1"].pop(other)
    details["worst"][0].pop(other)
    details["notes"] = []
    return found
