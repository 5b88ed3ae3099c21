"""However a step is cut into forward passes, its gradient is that of one pass for each example alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tiny
from faults import cover
from faults.bench import Bench, Trial
from faults.resume import train
from faults.resume_more import mamba
from luthier.runs.hashing import sha256_file

if TYPE_CHECKING:
    import torch

LIMIT = 1e-6
"""Norm of the difference over norm, in float32, of all trained parameters together."""
PRODUCTS = ((8, 1), (4, 2), (2, 4), (1, 8))
"""per_device_train_batch_size x gradient_accumulation_steps."""

MODELS = ("qwen3", "llama", "gemma3", "mistral", "mamba")
BUDGETS: dict[str, dict[str, Any]] = {
    "passes as the memory allows": {},
    "passes of 400 tokens": {"micro_batch_tokens": 400},
    "passes of 150 tokens": {"micro_batch_tokens": 150},
    "one example a pass": {"micro_batch_tokens": 1},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "sharing": {"packing": False},
    "no sharing": {"packing": False, "prefix_sharing": False},
    "packing": {"packing": True, "cutoff_len": 300},
    "packing, no sharing": {"packing": True, "cutoff_len": 300, "prefix_sharing": False},
}
METHODS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "lora": {},
    "recomputed activations": {"gradient_checkpointing": True},
}
LEARNT: dict[str, dict[str, Any]] = {
    "replies": {},
    "the last reply": {"mask_history": True},
    "prompts too": {"train_on_prompt": True},
    "weighted replies": {"dataset": "weighted.json"},
    "text": {"stage": "pt", "dataset": "text.json", "cutoff_len": 120},
}

FACTORS: dict[str, tuple[str, ...]] = {
    "model": MODELS,
    "batch": tuple(f"{size} x {times}" for size, times in PRODUCTS),
    "budget": tuple(BUDGETS),
    "layout": tuple(LAYOUTS),
    "method": tuple(METHODS),
    "learnt": tuple(LEARNT),
}
IMPOSSIBLE: dict[cover.Pair, str] = {
    frozenset({("model", "mamba"), ("method", "lora")}): "PEFT has no adapters for its kernels",
    frozenset({("model", "mamba"), ("method", "recomputed activations")}): "the same",
}


def cuts(bench: Bench, count: int) -> Iterator[Trial]:
    """The gradient that the real command steps with, against a reference; then accumulation, bit for bit.

    The configurations cover every possible pair of levels of any two factors; there are at least `count`.
    """
    design = cover.cover(FACTORS, IMPOSSIBLE)
    missing = cover.possible(FACTORS, IMPOSSIBLE) - set().union(*map(cover.pairs, design))
    assert not missing and len(design) >= 24, (missing, len(design))
    folder = bench.folder()
    data(folder)
    short = count < 24
    for row in cover.spread(design, count) if short else design:
        yield Trial(", ".join(row.values()), stepped(bench, settings(folder, row)))
    for name, changes in list(SAME.items())[: 1 if short else None]:
        asked = settings(folder, {**design[0], **changes})
        yield Trial(f"{name}: the same weights however 8 examples are counted", identical(bench, asked))


SAME: dict[str, dict[str, str]] = {
    "lora": {"model": "qwen3", "method": "lora", "layout": "sharing"},
    "full, packing": {"model": "gemma3", "method": "full", "layout": "packing"},
    "pre-training": {"model": "llama", "method": "full", "learnt": "text"},
    "one example a pass": {"model": "mamba", "method": "full", "budget": "one example a pass"},
}


def data(folder: Path) -> None:
    """Conversations of up to three turns that begin alike, the same with weights, texts, and the models."""
    turns = (
        "where is my order?",
        "it comes tomorrow",
        "and the other one?",
        "in two days",
        "thank you",
        "bye",
    )
    system = {"role": "system", "content": "You are a helpful assistant. The user asks a question. " * 2}
    talks: list[Any] = []
    for k in range(16):
        said = [f"{turn} {k}" * (1 + (k + n) % 3) for n, turn in enumerate(turns[: 2 + 2 * (k % 3)])]
        roles = ("assistant" if n % 2 else "user" for n in range(len(said)))
        talks.append([system, *({"role": r, "content": c} for r, c in zip(roles, said, strict=True))])
    weights = ({}, {}, {"weight": 0.5}, {}, {"weight": 2.0}, {}, {"weight": 0.25})
    files = {
        "talks": [{"messages": talk} for talk in talks],
        "weighted": [
            {"messages": [{**m, **w} for m, w in zip(talk, weights, strict=False)]} for talk in talks
        ],
        "text": [{"text": " ".join(m["content"] for m in talk)} for talk in talks],
    }
    (folder / "data").mkdir()
    for name, rows in files.items():
        (folder / "data" / f"{name}.json").write_text(json.dumps(rows))
    for arch in MODELS[:-1]:
        tiny.make_model(folder / arch, arch)
    mamba(folder / "mamba")


def settings(folder: Path, row: Mapping[str, str]) -> dict[str, Any]:
    """One step, whose gradient is not clipped and whose weights are not saved."""
    size, times = row["batch"].split(" x ")
    base = folder / row["model"]
    asked = {
        "model_name_or_path": str(base),
        "dataset": "talks.json",
        "dataset_dir": str(folder / "data"),
        "tokenized_path": str(folder / "tokens"),
        "template": "chatml",
        "per_device_train_batch_size": int(size),
        "gradient_accumulation_steps": int(times),
        "learning_rate": 1e-3,
        "max_steps": 1,
        "max_grad_norm": 0,
        "save_strategy": "no",
        "logging_steps": 1,
        **LAYOUTS[row["layout"]],
        **METHODS[row["method"]],
        **LEARNT[row["learnt"]],
        **BUDGETS[row["budget"]],
    }
    return {**asked, **adapter(folder, asked)} if "finetuning_type" not in asked else asked


def adapter(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """An adapter that has learnt something: the gradient of a fresh one is zero in half of its matrices."""
    from luthier.config import load
    from luthier.model import load as loading
    from luthier.model import methods

    place = Path(f"{asked['model_name_or_path']}-adapter")
    if not place.exists():
        config = load({**asked, "output_dir": str(folder)}, "train", {})
        base = loading.model(config, loading.dtype(config, training=True), training=True)
        place.mkdir()
        methods.save(tiny.disturb(methods.prepare(base, config, training=True)), place, config)
    return {"adapter_name_or_path": str(place)}


def keep_gradients(file: str) -> None:
    """Called in the process that trains: what each optimizer step is given goes to `file`, group by group."""
    from safetensors.torch import save_file
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def keep(optimizer: torch.optim.Optimizer, *unused: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        save_file({str(n): p.grad for n, p in enumerate(parameters) if p.grad is not None}, file)

    register_optimizer_step_pre_hook(keep)


def stepped(bench: Bench, asked: Mapping[str, Any]) -> str:
    """What is wrong with loss and gradient of the first step of the real command; "" for nothing."""
    from safetensors.torch import load_file

    place = bench.folder()
    file = place / "gradients.safetensors"
    done = bench.luthier(train(asked, place / "run"), before=keep_gradients, args=[str(file)])
    if done.code:
        return done.err
    loss, expected = reference({**asked, "output_dir": str(place / "run")})
    entry = json.loads((place / "run" / "trainer_state.json").read_text())["log_history"][0]
    found = load_file(file)
    if sorted(found, key=int) != [str(n) for n in range(len(expected))]:
        return f"{len(found)} gradients, not {len(expected)}"
    off = sum(float((found[str(n)].double() - g).square().sum()) for n, g in enumerate(expected)) ** 0.5
    size = sum(float(g.square().sum()) for g in expected) ** 0.5
    if not off <= LIMIT * size:
        return f"the gradient is off by {off / size:.1e} of its norm"
    return "" if abs(entry["loss"] - loss) <= LIMIT * loss else f"loss {entry['loss']} is not {loss}"


def reference(asked: Mapping[str, Any]) -> tuple[float, list[torch.Tensor]]:
    """Mean loss and its gradients (float64), each example of the first step in a forward pass of its own."""
    import torch

    from luthier.config import load, resolve
    from luthier.data.prepare import prepare
    from luthier.data.render import Renderer
    from luthier.model import load as loading
    from luthier.model import machine, methods
    from luthier.train import optim
    from luthier.train.setup import plan_of

    config = resolve(load(dict(asked), "train", {}), machine.detect())
    tokenizer = loading.tokenizer(config)
    prepared = prepare(config, Renderer.of(config, tokenizer), lambda line: None)
    model = methods.prepare(loading.model(config, torch.float32, training=True), config, training=True)
    count = total = 0.0
    for number in plan_of(config, prepared, 1).examples(0):
        rendered = prepared.train[number]
        pieces = (rendered.trunk, rendered.branches[0])
        ids = torch.tensor([int(token) for piece in pieces for token in piece.ids])
        weight = torch.tensor([float(w) for piece in pieces for w in piece.mask])[1:]
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        loss = (torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none") * weight).sum()
        loss.backward()
        count, total = count + float(weight.sum()), total + float(loss.detach())
    parameters = [p for group in optim.groups(model, config) for p in group["params"]]
    return total / count, [p.grad.double() / count for p in parameters]


def identical(bench: Bench, asked: Mapping[str, Any]) -> str:
    """Four divisions of eight examples, six steps each: what differs between the final weights."""
    found = {}
    for size, times in PRODUCTS:
        place = bench.folder()
        counted = {"per_device_train_batch_size": size, "gradient_accumulation_steps": times}
        done = bench.luthier(train({**asked, **counted, "max_steps": 6, "max_grad_norm": 1.0}, place))
        if done.code:
            return done.err
        weights = sorted(place.glob("*.safetensors"))
        found[f"{size} x {times}"] = [sha256_file(file) for file in weights]
    return "" if len({str(hashes) for hashes in found.values()}) == 1 else f"weights differ: {found}"
