"""Is the file what was trained? Prompts, distributions, answers and their ends, compared one by one.

Everything is asked of llama.cpp as it serves the file, so what is proved is what Ollama or LM Studio will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from luthier.export import modelfile
from luthier.export.cases import Case
from luthier.gguf import read
from luthier.infer.engine import Generation
from luthier.infer.llama_cpp import LlamaCpp

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier.infer.engine import Engine

Floats = npt.NDArray[np.float64]
Say = Callable[[str], None]
ANSWER = 48
"""Tokens of each greedy answer that are compared."""
WITHIN = {"f32": 1e-3}
"""Largest difference of a log probability that is allowed, by kind. A family may allow more, see `LOOSE`."""
LOOSE = {"gemma2": 2e-2, "gemma3": 2e-2}
"""llama.cpp computes GELU of these from a table in float16."""
LEAST = {"f16": 0.98, "bf16": 0.95}
"""Share of prompts whose likeliest token must be the same; smaller kinds are judged by the gate, not here."""


@dataclass(frozen=True)
class Expected:
    """What the merged model says to each case: log probabilities of the next token [vocabulary], and a greedy
    answer."""

    logprobs: tuple[Floats, ...]
    answers: tuple[tuple[int, ...], ...]
    options: Generation = field(default_factory=Generation)


@torch.inference_mode()
def expected(model: PreTrainedModel, engine: Engine, cases: Sequence[Case], options: Generation) -> Expected:
    """The merged model's own words, in the precision in which it was loaded (float32 for a proof)."""
    found = []
    device = model.get_input_embeddings().weight.device
    for case in cases:
        logits = model(
            input_ids=torch.tensor([case.ids], device=device), use_cache=False, logits_to_keep=1
        ).logits
        found.append(logits[0, -1].double().log_softmax(-1).cpu().numpy())
    answers = engine.generate([case.ids for case in cases], options)
    return Expected(tuple(found), tuple(tuple(ids) for ids in answers), options)


def prove(
    file: Path,
    kind: str,
    cases: Sequence[Case],
    wanted: Expected,
    variables: dict[str, Any],
    lora: Path | None = None,
) -> dict[str, Any]:
    """Compare a GGUF file with what is `wanted`; "ok" says whether it is the same model.

    variables: what the chat template was given besides the messages (enable_thinking) · lora: an adapter over
    the file.
    """
    with LlamaCpp(file, exact=True, slots=1, lora=lora) as opened:
        found: dict[str, Any] = {"file": file.name, "kind": kind, "cases": len(cases)}
        found["prompts"] = _prompts(opened, cases, variables)
        found["logits"] = _logits(opened, kind, cases, wanted)
        found["answers"] = _answers(opened, cases, wanted)
    found["problems"] = [
        problem for part in ("prompts", "logits", "answers") for problem in found[part].pop("problems")
    ]
    found["ok"] = not found["problems"]
    return found


def _prompts(opened: LlamaCpp, cases: Sequence[Case], variables: dict[str, Any]) -> dict[str, Any]:
    """Rendered by the file's template, and tokenised, by llama.cpp.

    llama.cpp takes from a template's text the token that it puts before each text by itself, so that this is
    there once; what counts is what both steps make of a conversation.
    """
    begin = modelfile.begins(read.header(opened.path).metadata)
    texts = tokens = 0
    problems: list[str] = []
    for case in cases:
        served = opened.apply_template(case.messages, case.tools, **variables)
        text = begin + served
        same = text == case.text
        texts += same
        if not same:
            problems.append(f"{case.source}: the prompt differs {_where(case.text, text)}")
        ids = tuple(opened.tokenize(served if same else case.text.removeprefix(begin), begin=True))
        tokens += ids == case.ids
        if ids != case.ids:
            problems.append(f"{case.source}: the tokens differ {_where(case.ids, ids)}")
    return {"same_text": texts, "same_tokens": tokens, "problems": problems}


def _logits(opened: LlamaCpp, kind: str, cases: Sequence[Case], wanted: Expected) -> dict[str, Any]:
    """Next-token distributions: largest difference, mean KL divergence in nats, same likeliest token."""
    worst, kl, top = 0.0, 0.0, 0
    problems: list[str] = []
    allowed = WITHIN.get(kind)
    if allowed is not None:
        allowed = max(allowed, LOOSE.get(opened.architecture, 0.0))
    for case, right in zip(cases, wanted.logprobs, strict=True):
        found = opened.logprobs(case.ids, forced=opened.letter)[: len(right)]
        difference = float(np.max(np.abs(found - right)))
        # llama.cpp sums in float32: its probabilities add up to 1 within 1e-7, more than float16 differs by.
        kl += max(0.0, float(np.sum(np.exp(right) * (right - found + np.logaddexp.reduce(found)))))
        same = int(np.argmax(found)) == int(np.argmax(right))
        top += same
        worst = max(worst, difference)
        if allowed is not None and not difference <= allowed:
            problems.append(
                f"{case.source}: log probabilities differ by {difference:.2g}, allowed {allowed:g}"
            )
    share = top / max(len(cases), 1)
    if share < LEAST.get(kind, 0.0):
        problems.append(
            f"the likeliest token is the same for {share:.0%} of the prompts, asked {LEAST[kind]:.0%}"
        )
    return {
        "max_abs_difference": worst,
        "allowed": allowed,
        "mean_kl": kl / max(len(cases), 1),
        "same_top": share,
        "problems": problems,
    }


def _answers(opened: LlamaCpp, cases: Sequence[Case], wanted: Expected) -> dict[str, Any]:
    """Greedy answers, as served, and whether an answer that ended then ends now.

    llama.cpp is not told which tokens end a turn: others who serve the file will not tell it either.
    """
    stops, limit = wanted.options.stop_ids, wanted.options.max_new_tokens
    alone = replace(wanted.options, stop_ids=frozenset())
    whole = opened.generate([case.ids for case in cases], alone)
    said = [ids[: _end(ids, stops)] for ids in whole]
    same = sum(tuple(ids) == right for ids, right in zip(said, wanted.answers, strict=True))
    ended = [i for i, right in enumerate(wanted.answers) if len(right) < limit]
    still = sum(len(whole[i]) < limit and len(said[i]) + 1 >= len(whole[i]) for i in ended)
    differing = [
        {"source": case.source, "trained": list(right), "served": list(ids)}
        for case, right, ids in zip(cases, wanted.answers, said, strict=True)
        if tuple(ids) != right
    ]
    problems = []
    if still < len(ended) / 2:
        problems.append(
            f"{len(ended) - still} of {len(ended)} answers that had an end go on: nothing ends a turn"
        )
    return {
        "same": same,
        "of": len(cases),
        "ended": len(ended),
        "ended_as_served": still,
        "differing": differing[:10],
        "problems": problems,
    }


def _end(ids: Sequence[int], stops: Set[int]) -> int:
    return next((i for i, token in enumerate(ids) if token in stops), len(ids))


def _where(one: Sequence[Any], other: Sequence[Any]) -> str:
    pairs = enumerate(zip(one, other, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    part = slice(max(0, at - 8), at + 12)
    return f"at {at}: {one[part]!r} was trained, {other[part]!r} is served"
