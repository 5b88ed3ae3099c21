"""Supervised fine-tuning in one flat file: the oracle that the spine must agree with to the last bit.

Nothing of luthier is used but the renderer. One example a forward pass, gradients of the step's summed
loss divided by the step's number of trained tokens, AdamW, cosine schedule with warmup, clipping by norm.
"""

import math

import numpy as np
import torch

from luthier.data.render import Renderer


def train(model, renderer: Renderer, examples, settings) -> list[float]:
    """Train `model` in place; returns the loss of each step.

    settings: learning_rate, epochs, per_step, seed, warmup_ratio, max_grad_norm, weight_decay.
    """
    sequences = []
    for rendered in (part for parts in renderer.examples(examples) for part in parts):
        ids = np.concatenate([rendered.trunk.ids, rendered.branches[0].ids])
        mask = np.concatenate([rendered.trunk.mask, rendered.branches[0].mask])
        sequences.append((torch.tensor(ids, dtype=torch.long), torch.tensor(mask)))

    norms = {
        f"{name}.{inner}"
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for inner, _ in module.named_parameters(recurse=False)
    }
    learnt = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in learnt if name in norms or name.endswith("bias")]
    decayed = [p for name, p in learnt if not (name in norms or name.endswith("bias"))]
    groups = [{"params": decayed, "weight_decay": settings["weight_decay"]}]
    if plain:
        groups.append({"params": plain, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=(0.9, 0.999), eps=1e-8)

    steps_per_epoch = math.ceil(len(sequences) / settings["per_step"])
    total = math.ceil(settings["epochs"] * steps_per_epoch)
    warmup = math.ceil(total * settings["warmup_ratio"])
    losses = []
    model.train()
    for step in range(total):
        epoch, within = divmod(step, steps_per_epoch)
        order = np.random.Generator(np.random.PCG64([settings["seed"], epoch])).permutation(len(sequences))
        chosen = order[within * settings["per_step"] : (within + 1) * settings["per_step"]]
        batch = sorted((sequences[i] for i in chosen), key=lambda s: s[0].numpy().astype(">i4").tobytes())
        count = sum(float(mask[1:].sum()) for _, mask in batch)
        loss_sum = 0.0
        for ids, mask in batch:
            at = torch.nonzero(mask[1:])[:, 0]
            logits = model(input_ids=ids[None], use_cache=False, logits_to_keep=at).logits[0]
            log_probabilities = torch.log_softmax(logits.float(), dim=-1)
            nll = -log_probabilities[torch.arange(len(at)), ids[at + 1]]
            loss = (nll * mask[at + 1]).sum()
            (loss * (1 / count)).backward()
            loss_sum += loss.item()
        if step < warmup:
            factor = step / max(1, warmup)
        else:
            progress = (step - warmup) / max(1, total - warmup)
            factor = max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * factor
        torch.nn.utils.clip_grad_norm_([p for _, p in learnt], settings["max_grad_norm"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss_sum / count)
    return losses
