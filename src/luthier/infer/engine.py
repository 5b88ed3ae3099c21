"""What every inference engine offers, and how decoding is asked for. Free of torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from luthier.errors import UsageError

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer

Progress = Callable[[int, list[int]], None]
"""Called once per finished prompt with its index and its tokens."""

ENGINES = {
    "hf": "luthier.infer.hf:HFEngine",
    "huggingface": "luthier.infer.hf:HFEngine",
}
"""Name -> "module:class", imported when asked for. "huggingface" is LLaMA-Factory's name of the first."""


@dataclass(frozen=True)
class Generation:
    """How to write an answer. The defaults decode greedily; `do_sample` draws instead.

    max_new_tokens: tokens to write at most; where it is 0, prompt and answer share `max_length` tokens ·
    temperature: divides the logits · top_k: keep the k most likely tokens, 0 keeps all · top_p: keep the
    smallest set of tokens whose probabilities sum to p · repetition_penalty: Keskar et al. 2019, over prompt
    and answer · num_beams, length_penalty: beam search · seed: with the prompt's index it alone decides every
    draw, so an answer does not depend on which prompts share its batch · stop_ids: any of them ends it ·
    stop_strings: endings that are no token of the vocabulary; the answer still holds the one that came.
    """

    max_new_tokens: int = 1024
    max_length: int = 1024
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()

    @property
    def greedy(self) -> bool:
        """A temperature of 0 asks for the most likely token, as it does elsewhere."""
        return not self.do_sample or self.temperature == 0 or self.top_k == 1

    def budget(self, prompt_length: int) -> int:
        """Tokens that may follow a prompt of this length."""
        return self.max_new_tokens or max(0, self.max_length - prompt_length)


class Engine(Protocol):
    """Prompts in tokens -> answers in tokens, without the stop token. context: tokens the model reads."""

    context: int

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: Generation,
        progress: Progress | None = None,
    ) -> list[list[int]]: ...

    def stream(self, prompt: Sequence[int], options: Generation) -> Iterator[int]: ...


def generation(config: Config, renderer: Renderer, do_sample: bool | None = None) -> Generation:
    """The decoding that a Config asks for; `do_sample` overrides the config where it is not None."""
    return Generation(
        max_new_tokens=config.max_new_tokens,
        max_length=config.max_length,
        do_sample=config.do_sample if do_sample is None else do_sample,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        repetition_penalty=config.repetition_penalty,
        num_beams=config.num_beams,
        length_penalty=config.length_penalty,
        seed=config.seed,
        stop_ids=frozenset(renderer.stop_ids),
        stop_strings=renderer.stop_strings,
    )


def find(name: str) -> Callable[..., Engine]:
    """The engine class of that name. Raises UsageError, naming those there are."""
    if name not in ENGINES:
        raise UsageError(f"infer_backend: there is no engine {name!r} -> one of {', '.join(ENGINES)}")
    module, _, attribute = ENGINES[name].partition(":")
    engine: Callable[..., Engine] = getattr(importlib.import_module(module), attribute)
    return engine


def text_of(tokenizer: Any, ids: Sequence[int], options: Generation, skip_special_tokens: bool = True) -> str:
    """A whole answer as text, without the stop string that ended it."""
    text: str = tokenizer.decode(
        ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
    )
    return text[: _end(text, options.stop_strings)]


def _end(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop string begins; None where there is none."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)


class TextStream:
    """Turns a growing list of tokens into text, piece by piece, never splitting a character.

    Byte-level tokens may each hold part of a character, and some tokenizers write a leading space only in
    context. So the last tokens are decoded together with the ones before them, and text is held back while
    it ends in the replacement character, or in the beginning of a stop string; a whole one ends it.
    """

    def __init__(self, tokenizer: Any, skip_special_tokens: bool = True, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids: list[int] = []
        self._context = self._said = 0
        self._stops = tuple(stops)
        self._held = ""
        self.ended = False

    def push(self, token: int) -> str:
        """The text that became certain with this token; may be empty."""
        self._ids.append(token)
        return self._release(self._advance(hold=True), hold=True)

    def close(self) -> str:
        """What was held back: bytes that never became a character are shown as U+FFFD."""
        return self._release(self._advance(hold=False), hold=False)

    def _release(self, new: str, hold: bool) -> str:
        text, self._held = self._held + new, ""
        end = _end(text, self._stops)
        if self.ended or end is not None:
            text, self.ended = "" if self.ended else text[:end], True
        elif hold:
            begun = max(
                (n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
            )
            text, self._held = text[: len(text) - begun], text[len(text) - begun :]
        return text

    def _advance(self, hold: bool) -> str:
        before = self._decode(self._ids[self._context : self._said])
        now = self._decode(self._ids[self._context :])
        if len(now) <= len(before) or (hold and now.endswith("\ufffd")):
            return ""
        self._context, self._said = self._said, len(self._ids)
        return now[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False
        )
        return text
