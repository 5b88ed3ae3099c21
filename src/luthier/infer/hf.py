"""Decoding with a transformers model: a loop of our own, because prompts share their beginnings.

`model.generate` computes every prompt from its first token and carries finished rows to the end of the
batch. Here what a group of prompts shares is computed once and its keys and values are lent to every row;
rows leave the batch when they stop; and a conversation keeps its cache from turn to turn. Greedy answers
equal those of `model.generate` (tested token by token in float32).

A batch looks like this, with the shared tokens stored once and the padding between them and the rest::

    cache [shared, shared, shared | pad, pad, own]      positions [0, 1, 2 | 0, 0, 3]
          [shared, shared, shared | own, own, own]                [0, 1, 2 | 3, 4, 5]

Attention sees positions and a mask, so the gap is invisible - except to layers with a sliding window, which
count columns. For them nothing is shared unless everything fits into the window. Models that keep another
kind of state (linear attention, state space), learn absolute prefixes (prompt tuning) or take no position
ids are decoded by `model.generate`, as is beam search.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from luthier.errors import ModelError
from luthier.infer import caches, lean, likelihood
from luthier.infer.caches import Start, State
from luthier.infer.engine import Generation, Progress
from luthier.infer.likelihood import Trie
from luthier.infer.prefixes import Group, alone, common_prefix, groups
from luthier.infer.sampling import Chooser


class HFEngine:
    """Generates with `model`, in evaluation mode, on the model's device.

    batch_size: rows decoded together; None lets memory decide (at most 128).
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int | None = None) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_size = batch_size
        self.context = caches.context_length(model)
        self._own_loop = caches.expressible(model)
        self._windows = caches.windows(model) if self._own_loop else []
        self._parameters = inspect.signature(caches.base_model(model).forward).parameters
        self._lean = lean.of(model) if self._own_loop else None
        self._kept: tuple[list[int], Any] | None = None

    # Batches

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: Generation,
        progress: Progress | None = None,
    ) -> list[list[int]]:
        """Answers in the order of the prompts, without the stop token; `progress` hears of each as it ends.

        Raises ModelError where a prompt is empty or leaves no room in the model's context.
        """
        rows = [list(prompt) for prompt in prompts]
        for row in rows:
            self._check(row)
        answers: list[list[int]] = [[] for _ in rows]
        if options.num_beams > 1 or not self._own_loop:
            found = self._by_transformers(rows, options)
        else:
            found = self._by_own_loop(rows, options)
        for i, ids in found:
            answers[i] = ids
            if progress is not None:
                progress(i, ids)
        return answers

    @torch.inference_mode()
    def score(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[Sequence[int]]],
    ) -> list[list[float]]:
        """log P(continuation | prompt), natural logarithm, for each of each prompt's continuations.

        A prompt is computed once for all its continuations, what they share once for all of those, and what
        the prompts share once for all of them.
        """
        rows = [list(prompt) for prompt in prompts]
        for row in rows:
            self._check(row)
        if not self._own_loop:
            pairs = zip(rows, continuations, strict=True)
            return [likelihood.whole(self.model, row, options) for row, options in pairs]
        scores: list[list[float]] = [[] for _ in rows]
        for group in groups(rows):
            for i, values in self._scored(group, rows, continuations):
                scores[i] = values
        return scores

    def _scored(
        self, group: Group, rows: list[list[int]], continuations: Sequence[Sequence[Sequence[int]]]
    ) -> Iterator[tuple[int, list[float]]]:
        """Row and scores. A lean model reads all continuations of a row as one tree, another one by one."""
        tries = {i: Trie.of(continuations[i]) for i in group.rows}
        if self._lean is None:
            options = Generation(max_new_tokens=max((tries[i].depth for i in group.rows), default=0))
            copies = max(1, *(len(continuations[i]) for i in group.rows))
        else:
            width = max(len(tries[i].tokens) for i in group.rows)
            options = Generation(max_new_tokens=width)
            copies = max(1, width * caches.MAX_ROWS // likelihood.READ)
        start = self._start(group, rows, options)
        for batch in self._batches(group, rows, options, copies):
            state, first = self._prefill(start, [rows[i] for i in batch])
            if self._lean is None:
                asked = [continuations[i] for i in batch]
                found = likelihood.one_by_one(self._forward, state, first, asked)
            else:
                found = likelihood.as_trees(self._lean, state, first, [tries[i] for i in batch])
            yield from zip(batch, found, strict=True)

    # One conversation

    def stream(self, prompt: Sequence[int], options: Generation) -> Iterator[int]:
        """The answer's tokens as they are chosen; what the prompt shares with the last one is reused."""
        row = list(prompt)
        self._check(row)
        if options.num_beams > 1 or not self._own_loop:
            yield from self.generate([row], options)[0]
            return
        cache, known = self._recall(row)
        chooser = Chooser(options, [row], [0])
        fed = row[:known]
        new = row[known:]
        for _ in range(self._budget(row, options)):
            with torch.inference_mode():
                state = State(
                    cache,
                    torch.ones(1, len(fed) + len(new), dtype=torch.long),
                    torch.tensor([len(fed)]),
                )
                logits = self._forward(
                    state,
                    torch.tensor([new]),
                    torch.arange(len(fed), len(fed) + len(new))[None],
                )
                fed += new
                new = chooser.next(logits)
            if new[0] in options.stop_ids:
                break
            self._kept = (fed, cache)
            yield new[0]
            self._kept = None
        self._kept = (fed, cache)

    def forget(self) -> None:
        """Free what is kept for the next turn."""
        self._kept = None

    def _recall(self, row: list[int]) -> tuple[Any, int]:
        """A cache of the prompt's beginning as far as it is known (one token less at most), and its length.

        The kept cache is handed over, not shared: an interrupted forward pass must not be resumed from.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            return caches.new_cache(self.model), 0
        ids, cache = kept
        known = min(common_prefix(ids, row), len(row) - 1)
        if known < len(ids) and any(len(ids) >= window for window in self._windows):
            return caches.new_cache(self.model), 0
        if known < len(ids):
            cache.crop(known - len(ids))
        return cache, known

    # The loop

    def _by_own_loop(self, rows: list[list[int]], options: Generation) -> Iterator[tuple[int, list[int]]]:
        for group in groups(rows):
            start = self._start(group, rows, options)
            for batch in self._batches(group, rows, options):
                yield from self._decode(start, rows, batch, options)

    def _decode(
        self,
        start: Start,
        rows: list[list[int]],
        batch: list[int],
        options: Generation,
    ) -> Iterator[tuple[int, list[int]]]:
        """Decode one batch; where the device has too little memory for it, each half of it."""
        try:
            yield from self._decode_whole(start, rows, batch, options)
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise
        else:
            return
        torch.cuda.empty_cache()
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            yield from self._decode(start, rows, half, options)

    def _decode_whole(
        self,
        start: Start,
        rows: list[list[int]],
        batch: list[int],
        options: Generation,
    ) -> list[tuple[int, list[int]]]:
        prompts = [rows[i] for i in batch]
        budgets = [self._budget(prompt, options) for prompt in prompts]
        answers: list[list[int]] = [[] for _ in batch]
        chooser = Chooser(options, prompts, batch)
        state, logits = self._prefill(start, prompts)
        alive = list(range(len(batch)))
        while True:
            tokens = chooser.next(logits)
            going = []
            for place, row in enumerate(alive):
                if tokens[place] in options.stop_ids or len(answers[row]) == budgets[row]:
                    continue
                answers[row].append(tokens[place])
                if len(answers[row]) < budgets[row] and not self._ended(answers[row], options):
                    going.append(place)
            if not going:
                return list(zip(batch, answers, strict=True))
            if len(going) < len(alive):
                alive = [alive[place] for place in going]
                chooser.keep(going)
                state = state.select(going)
            logits = self._step(state, torch.tensor([[tokens[place]] for place in going]))

    def _ended(self, answer: list[int], options: Generation) -> bool:
        """Whether a stop string has come; a token holds at least one byte of it."""
        if not options.stop_strings:
            return False
        tail = self.tokenizer.decode(answer[-max(len(stop.encode()) for stop in options.stop_strings) :])
        return any(stop in tail for stop in options.stop_strings)

    def _start(self, group: Group, rows: list[list[int]], options: Generation) -> Start:
        """Compute what the group shares, once. Nothing is shared where it would leave a sliding window."""
        shared = group.shared
        columns = max(len(rows[i]) for i in group.rows) + max(
            self._budget(rows[i], options) for i in group.rows
        )
        if shared == 0 or any(columns > window for window in self._windows):
            return Start(caches.new_cache(self.model), 0)
        ids = rows[group.rows[0]][:shared]
        state = State(
            caches.new_cache(self.model),
            torch.ones(1, shared, dtype=torch.long),
            torch.tensor([0]),
        )
        self._forward(state, torch.tensor([ids]), torch.arange(shared)[None])
        return Start(state.cache, shared)

    def _prefill(self, start: Start, prompts: list[list[int]]) -> tuple[State, Tensor]:
        """Read the rest of each prompt, padded on the left. Returns the logits after the last token."""
        own = [prompt[start.shared :] for prompt in prompts]
        width = max(map(len, own))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in own])
        lengths = torch.tensor([len(row) for row in own])
        mask = (torch.arange(width) >= width - lengths[:, None]).long()
        positions = torch.where(mask.bool(), start.shared + mask.cumsum(-1) - 1, 0)
        mask = torch.cat([torch.ones(len(own), start.shared, dtype=torch.long), mask], dim=-1)
        state = State(caches.lend(start.cache, len(own)), mask, start.shared + lengths)
        return state, self._forward(state, ids, positions)

    def _step(self, state: State, tokens: Tensor) -> Tensor:
        """Feed one token to each row. tokens [rows, 1] -> logits [rows, vocabulary]"""
        state.mask = torch.cat([state.mask, torch.ones(len(tokens), 1, dtype=torch.long)], dim=-1)
        logits = self._forward(state, tokens, state.lengths[:, None])
        state.lengths = state.lengths + 1
        return logits

    def _forward(self, state: State, ids: Tensor, positions: Tensor, last: bool = True) -> Tensor:
        """ids, positions [rows, n] -> logits [rows, vocabulary] after the last, or [rows, n, vocabulary]."""
        if self._lean is not None:
            return self._lean(ids, positions, state.mask, state.cache, last)
        device = self.model.device
        # By index: a slice would not lie in one piece, and the head would be copied for each row.
        extra = (
            {"logits_to_keep": torch.tensor([-1], device=device)}
            if last and "logits_to_keep" in self._parameters
            else {}
        )
        output = self.model(
            input_ids=ids.to(device),
            attention_mask=state.mask.to(device),
            position_ids=positions.to(device),
            past_key_values=state.cache,
            use_cache=True,
            **extra,
        )
        logits: Tensor = output.logits
        return logits[:, -1] if last else logits

    # By transformers

    def _by_transformers(self, rows: list[list[int]], options: Generation) -> Iterator[tuple[int, list[int]]]:
        for batch in self._batches(alone(rows), rows, options):
            yield from self._one_by_transformers(rows, batch, options)

    def _one_by_transformers(
        self, rows: list[list[int]], batch: list[int], options: Generation
    ) -> Iterator[tuple[int, list[int]]]:
        width = max(len(rows[i]) for i in batch)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(rows[i])) + rows[i] for i in batch])
        mask = torch.tensor([[0] * (width - len(rows[i])) + [1] * len(rows[i]) for i in batch])
        budgets = [self._budget(rows[i], options) for i in batch]
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            output = self.model.generate(
                inputs=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                generation_config=_generation_config(options, max(budgets), pad),
            )
        for i, budget, answer in zip(batch, budgets, output[:, width:].tolist(), strict=True):
            end = next(
                (n for n, token in enumerate(answer) if token in options.stop_ids),
                len(answer),
            )
            yield i, answer[: min(end, budget)]

    # Sizes

    def _check(self, row: list[int]) -> None:
        if not row:
            raise ModelError("the prompt has no tokens -> give at least one message")
        if len(row) >= self.context:
            raise ModelError(
                f"the prompt has {len(row)} tokens, the model reads {self.context} (max_position_embeddings)"
                " -> shorten the prompt, clear the history, or set rope_scaling"
            )

    def _budget(self, row: list[int], options: Generation) -> int:
        return min(options.budget(len(row)), self.context - len(row))

    def _batches(
        self, group: Group, rows: list[list[int]], options: Generation, copies: int = 1
    ) -> Iterator[list[int]]:
        """The group's rows, shortest first, cut so that `copies` of each fit into memory together."""
        longest = max(len(rows[i]) + self._budget(rows[i], options) for i in group.rows)
        size = self.batch_size or caches.rows_in_memory(self.model, longest)
        size = max(1, size // max(copies, options.num_beams))
        for at in range(0, len(group.rows), size):
            yield list(group.rows[at : at + size])


def _generation_config(options: Generation, budget: int, pad: int) -> GenerationConfig:
    sampling = (
        {}
        if options.greedy
        else {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "top_k": options.top_k,
        }
    )
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=budget,
        do_sample=not options.greedy,
        num_beams=options.num_beams,
        length_penalty=options.length_penalty,
        repetition_penalty=options.repetition_penalty,
        eos_token_id=sorted(options.stop_ids) or None,
        pad_token_id=pad,
        **sampling,
    )
