"""Was fine-tuning worth it, do examples in the prompt suffice, does the task ask for documents: in words.

The rules, on the metric that leads a kind of task (`kinds.LEADING`). Of labels it is taken by likelihood
where the base, with or without examples, is better so by more than `CLEAR`: it may know what it does not
write. The best of several choices on the same rows is a little flattered, so the advice is careful about
tuning.

With a tuned model, by the verdict of the base against it:

- improved, and compared with the better choice of examples: the interval of tuned minus examples lies above
  zero -> worth it · contains zero -> examples may suffice, for so many more prompt tokens · lies below ->
  they are better. Not compared with examples -> worth it as far as is known.
- no evidence: the base at the ceiling (`CEILING`) -> nothing was to be gained; else -> no evidence, and what
  to look at: few training rows (`FEW`), answers that were cut (`CUT`), template, learning rate. Also whether
  examples improve the base.
- regressed -> worse, and what to look at.

Before any training (base only), the first that holds:

- the base at the ceiling -> not worth it
- facts that stand in documents (below)
- examples improve the base and reach `ENOUGH` -> they may suffice
- free text -> nothing can be said before some training
- answers that are right or wrong: of what is between chance (labels: 1 / their number) and all right, the
  best without training reaches less than `HALF` -> looks worth it; more -> may be worth it

Facts (`documents.Facts`): free text whose questions ask (`HALF` of the rows) for names and numbers that the
questions do not hold (`HALF` of the rows), while no system tried reaches a token F1 of `HALF`: these stand in
the answers of the nearest training rows (`HALF` of them) -> look them up there; else -> give the model the
documents. In the former case examples may answer well, which is retrieval already.

Damage: whatever regressed in the general suite or on general text is in the first sentence. Rows so few that
a difference of `WIDE` would not show are said at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier.evaluate import documents, shots
from luthier.evaluate.documents import Facts
from luthier.evaluate.notes import Note, note
from luthier.evaluate.sets import SUITE, TEXTS
from luthier.measure import kinds, statistics, tasks

if TYPE_CHECKING:
    from luthier.evaluate.results import Heard

Figure = Mapping[str, Any]
CEILING, ENOUGH, HALF = 0.95, 0.9, 0.5
FEW, CUT, WIDE, CLEAR = 200, 0.05, 0.05, 0.1


@dataclass(frozen=True)
class Examples:
    """The base with k examples. way: "random" or "retrieved" · tokens: how many more a prompt has in the mean
    · figure: the base without and with them · against: with them, and the tuned model."""

    k: int
    way: str
    tokens: float
    figure: Figure
    against: Figure | None = None


@dataclass(frozen=True)
class Case:
    """What is known about one task. metric: that leads it, perhaps with `likelihood_` before it · base: its
    value for the base, with its 95 % interval · tuned: base against tuned model · trained: training rows ·
    cut: share of the tuned answers · chance: what guessing reaches · damage: (name, metric, figure) of what
    regressed."""

    kind: str
    metric: str
    n: int
    base: tuple[float, float, float]
    tuned: Figure | None = None
    examples: Examples | None = None
    trained: int | None = None
    cut: float = 0.0
    chance: float = 0.0
    facts: Facts | None = None
    damage: tuple[tuple[str, str, Figure], ...] = ()


def advise(case: Case) -> list[Note]:
    """The sentences for one task, the answer first."""
    found = _before(case) if case.tuned is None else _after(case)
    if found and case.damage:
        listed = ", ".join(
            f"{name} {kinds.number(metric, one['before'])} -> {kinds.number(metric, one['after'])}"
            for name, metric, one in case.damage
        )
        found[0] = {**note("advice_damage", first=found[0], listed=listed), "key": found[0]["key"]}
    return found + (_small(case) if found else [])


def told(heard: Heard, tasks: Mapping[str, Any], detail: Mapping[str, Any]) -> dict[str, Any]:
    """`advice` of a set, and of free text `documents`, once all figures of the report are known."""
    if "before" not in heard.measured:
        return {}
    found = _case(heard, tasks, detail)
    facts = {} if found.facts is None else {"documents": vars(found.facts)}
    said = advise(found)
    if len(heard.plan.sets) > 1:
        said = [{**note("advice_of", name=heard.one.name, text=one), "key": one["key"]} for one in said]
    return {**facts, "advice": said}


def _after(case: Case) -> list[Note]:
    assert case.tuned is not None, "a tuned model"
    verdict, values = case.tuned["verdict"], _values(case.metric, case.tuned)
    if verdict == "improved":
        return [_gained(case, values), *_documents(case)]
    if verdict == "regressed":
        return [note("advice_worse", **values), *_causes(case)]
    if _at_ceiling(case):
        return [note("advice_ceiling", **values, room=_room(case))]
    helped = case.examples is not None and case.examples.figure["verdict"] == "improved"
    examples = [note("advice_examples_help", **_shown(case))] if helped else []
    return [note("advice_no_evidence", **values), *examples, *_documents(case), *_causes(case)]


def _gained(case: Case, values: Mapping[str, Any]) -> Note:
    """What tuning brought, held against examples in the prompt."""
    if case.examples is None or case.examples.against is None:
        return note("advice_worth", **values)
    against = _values(case.metric, case.examples.against)
    shown = {**_shown(case), **{f"shots_{name}": value for name, value in against.items()}}
    low, high = case.examples.against["low"], case.examples.against["high"]
    higher = case.examples.against.get("higher", True)
    key = "advice_examples_suffice"
    if low is not None and (low > 0 if higher else high < 0):
        key = "advice_worth_beyond"
    elif high is not None and (high < 0 if higher else low > 0):
        key = "advice_examples_better"
    return note(key, **{**shown, **values})


def _before(case: Case) -> list[Note]:
    if case.kind == "perplexity":
        return []
    base, low, high = (kinds.number(case.metric, value) for value in case.base)
    values = {"metric": case.metric, "base": base, "low": low, "high": high, "n": case.n}
    if _at_ceiling(case):
        return [note("advice_not_needed", **values, room=_room(case))]
    found, examples = _documents(case), case.examples
    asked = [] if examples else [note("advice_no_examples")]
    if found:
        return [*found, *asked]
    if examples and examples.figure["verdict"] == "improved" and examples.figure["after"] >= ENOUGH:
        return [note("advice_examples_first", **_shown(case))]
    best = max([case.base[0], *([examples.figure["after"]] if examples else [])])
    if case.kind == "text":
        key = "advice_text"
    else:
        low_room = best - case.chance < HALF * (1 - case.chance)
        key = "advice_looks_worth" if low_room else "advice_may_be_worth"
    more = [note("advice_examples_bring", **_shown(case))] if examples else asked
    return [note(key, **values, best=kinds.number(case.metric, best)), *more]


def _documents(case: Case) -> list[Note]:
    """Whether the task asks for facts, and where they stand."""
    facts = case.facts
    if facts is None or min(facts.asks, facts.rows) < HALF:
        return []
    tuned, examples = case.tuned, case.examples
    reached = max(case.base[0], tuned["after"] if tuned else 0.0)
    nearby = facts.in_nearest is not None and facts.in_nearest >= HALF
    if reached >= HALF or (not nearby and examples and examples.figure["after"] >= HALF):
        return []
    shares = {name: f"{value * 100:.0f} %" for name, value in vars(facts).items() if value is not None}
    shares |= {"metric": case.metric, "reached": kinds.number(case.metric, reached), "n": str(facts.n)}
    if facts.in_nearest is None:
        return [note("advice_documents", **shares)]
    return [note("advice_documents_near" if nearby else "advice_documents_nowhere", **shares)]


def _causes(case: Case) -> list[Note]:
    """What to look at, the likeliest first."""
    found = []
    if case.trained is not None and case.trained < FEW:
        found.append(note("advice_cause_rows", rows=case.trained))
    if case.cut >= CUT:
        found.append(note("advice_cause_cut", share=f"{case.cut * 100:.0f} %"))
    return [*found, note("advice_cause_settings")]


def _small(case: Case) -> list[Note]:
    """Whether the rows tell small differences at all."""
    judged = (case.examples and case.examples.against) or case.tuned
    low, high = (judged["low"], judged["high"]) if judged else case.base[1:]
    if case.kind == "perplexity" or low is None or high is None or math.isnan(high - low):
        return []
    half = (high - low) / 2
    return [note("advice_small", n=case.n, half=kinds.number(case.metric, half))] if half > WIDE else []


def _at_ceiling(case: Case) -> bool:
    return case.kind != "perplexity" and case.base[0] >= CEILING


def _room(case: Case) -> str:
    return kinds.number(case.metric, 1 - case.base[0])


def _values(metric: str, figure: Figure) -> dict[str, Any]:
    numbers = {name: kinds.number(metric, figure[name]) for name in ("before", "after", "low", "high")}
    return {"metric": metric, **numbers, "n": figure["n"]}


def _shown(case: Case) -> dict[str, Any]:
    """The values of a sentence about examples."""
    examples = case.examples
    assert examples is not None, "asked with examples"
    return {
        **_values(case.metric, examples.figure),
        "k": examples.k,
        "way": note(f"advice_{examples.way}"),
        "tokens": f"{examples.tokens:.0f}",
    }


# --- from the report's figures to a case


def _case(heard: Heard, figures: Mapping[str, Any], detail: Mapping[str, Any]) -> Case:
    one, shown = heard.one, detail.get("shots")
    mine = figures[one.name]
    name = _leading(one.task.kind, mine, shown)
    measured = heard.measured["before"]["likelihood" if name.startswith("likelihood_") else ""]
    base = measured[name.removeprefix("likelihood_")]
    tuned = mine[name] if "after" in heard.measured else None
    count = max(1, len(one.rows))
    return Case(
        one.task.kind,
        name,
        len(one.rows),
        (base.value, *statistics.interval(base, heard.config.seed)),
        tuned,
        _examples(name, shown) if shown else None,
        None if heard.plan.trained is None else len(heard.plan.trained),
        detail.get("cut", {}).get("after", 0) / count if heard.answered else 0.0,
        1 / len(one.labels) if one.labels else 0.0,
        _facts(heard),
        _damage(figures),
    )


def _leading(kind: str, figures: Mapping[str, Figure], shown: Mapping[str, Any] | None) -> str:
    """The leading metric, perhaps by likelihood: the way in which the base shows what it knows."""
    plain = kinds.leading(kind, figures)
    likely = f"likelihood_{plain}"

    def best(name: str) -> float:
        found = [figures[name]["before"]]
        found += [shown[way][name]["after"] for way in shots.WAYS if name in shown[way]] if shown else []
        return max((float(value) for value in found if value is not None), default=0.0)

    return likely if likely in figures and best(likely) > best(plain) + CLEAR else plain


def _examples(name: str, shown: Mapping[str, Any]) -> Examples:
    """The better of the two choices; of equal ones the retrieved."""
    way = max(reversed(shots.WAYS), key=lambda way: shown[way][name]["after"])
    tokens = shown["tokens"][way] - shown["tokens"]["without"]
    against = shown.get(f"tuned_against_{way}", {}).get(name)
    return Examples(shown["k"], way, tokens, shown[way][name], against)


def _facts(heard: Heard) -> Facts | None:
    if heard.one.task.kind != "text":
        return None
    return documents.facts(heard.one.rows, [tasks.asked(one) for one in heard.plan.trained or ()])


def _damage(figures: Mapping[str, Any]) -> tuple[tuple[str, str, Figure], ...]:
    return tuple(
        (f"{task}.{metric}", metric, figure)
        for task in (SUITE, TEXTS)
        for metric, figure in figures.get(task, {}).items()
        if figure["verdict"] == "regressed"
    )
