"""Small chat templates of every shape that published ones have, and tokenizers that know their tokens."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import tiny
from luthier.data import template as templates
from luthier.data import trace
from luthier.data.render import Renderer, RenderOptions
from luthier.types import BadRow, Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Refuses a system message, strips every message, calls the assistant "model".
STRIPS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('no system here') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<turn>' + role + '\\n' + m['content'] | trim + '<end>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}"
)
# Shows the reasoning of the last turn only, and writes an empty one where there is none.
REWRITES = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n')"
    " if '</think>' in m.content else '' %}"
    "{%- set reply = m.content.split('</think>')[-1].lstrip('\\n') %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if loop.last %}{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{- reply + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)
# Opens the reasoning in its generation prompt, and drops it from every reply that it renders.
DROPS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '<user>' + m['content'] }}"
    "{% else %}{{ '<bot>' + m['content'].split('</think>')[-1] + '<end>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot><think>\\n' }}{% endif %}"
)
# The eos follows only the whole conversation; a system message without text is left out.
TRAILING = (
    "{% for m in messages %}{% if m['role'] == 'system' and m['content'] %}{{ '<|system|>\\n' + m['content'] "
    "+ '<end>\\n' }}{% elif m['role'] == 'user' %}{{ '<user>\\n' + m['content'] + '<end>\\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<bot>\\n' + m['content'] + '<end>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
# Turns end with nothing of their own; the next turn's opening ends them.
ENDLESS = (
    "{% for m in messages %}{{ ('<bot>\\n' if m['role'] == 'assistant' else '<user>\\n') + m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<bot>\\n' }}{% endif %}"
)
FORGETS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}"
    "{{ '<turn>' + m['role'] + ':' + m['content'] + '<end>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<turn>assistant:' }}{% endif %}"
)
ALL = {
    "chatml": CHATML, "strips": STRIPS, "rewrites": REWRITES, "drops": DROPS, "trailing": TRAILING,
    "endless": ENDLESS,
}  # fmt: skip
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<turn>", "<end>", "<user>", "<bot>", "<|system|>"]


def tokenizer(template: str | None = None) -> PreTrainedTokenizerBase:
    """Byte-level BPE that knows every token of the templates above."""
    made = tiny.tokenizer()
    made.add_special_tokens(
        {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": SPECIAL[2:]}
    )
    made.chat_template = template
    return made


def known(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer that knows the tags of a named template."""
    text = templates.load(name, tokenizer()).text
    tags = [*dict.fromkeys(re.findall(r"<[|/｜]?[a-zA-Z_▁]+[|｜]?>", text))]
    made = tokenizer()
    made.add_special_tokens({"additional_special_tokens": tags}, replace_extra_special_tokens=False)
    return made


@functools.cache
def sentencepiece() -> PreTrainedTokenizerBase:
    """A BPE that puts a space before a text, as Llama 2's and Mistral's do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    alphabet = ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?!:<>|/_"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(tiny.TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=SPECIAL[2:],
    )  # fmt: skip


def renderer(template: str | None, made: PreTrainedTokenizerBase | None = None, **options: Any) -> Renderer:
    """A renderer for a name or Jinja text."""
    made = made or (known(template) if template and "{" not in template else tokenizer())
    chosen = RenderOptions(**options)
    found = templates.load(template, made, enable_thinking=chosen.enable_thinking, history=chosen.history)
    templates.prepare_tokenizer(found, made)
    return Renderer(found, made, chosen)


def say(*turns: str, system: str | None = None) -> list[Message]:
    """user, assistant, user, … ; replies are learnt."""
    first = [] if system is None else [Message("system", system)]
    return first + [
        Message("assistant", t, 1.0) if k % 2 else Message("user", t) for k, t in enumerate(turns)
    ]


def example(messages: list[Message], source: str = "rows.json:1") -> Example:
    return Example(tuple(messages[:-1]), (tuple(messages[-1:]),), source=source)


def shown(made: Renderer, example: Example) -> tuple[str, list[tuple[int, int]]]:
    """The whole text of an example (last part, first branch) and the character ranges that are learnt."""
    [parts] = made.pieces([example])
    assert not isinstance(parts, BadRow), parts
    text, spans = "", list[tuple[int, int]]()
    for unit in (unit for group in parts[-1][:2] for unit in trace.units(made.encoder, group)):
        start, text = len(text), text + unit.text
        if unit.kind == "trained" and unit.text:
            start = spans.pop()[0] if spans and spans[-1][1] == start else start
            spans.append((start, len(text)))
    return text, spans


def sequence(rendered: Any, branch: int = 0) -> tuple[list[int], list[float]]:
    """Ids and weights of trunk + one branch."""
    parts = [rendered.trunk, *rendered.branches[branch : branch + 1]]
    return [int(i) for p in parts for i in p.ids], [float(w) for p in parts for w in p.mask]


def learnt(renderer: Renderer, rendered: Any, branch: int = 0) -> list[str]:
    """The texts of the runs of learnt tokens."""
    runs: list[list[int]] = []
    last = 0.0
    for number, weight in zip(*sequence(rendered, branch), strict=True):
        if weight:
            if not last:
                runs.append([])
            runs[-1].append(number)
        last = weight
    return [renderer.tokenizer.decode(run) for run in runs]
