"""The demo's tokenizer: byte-level BPE, trained on the base's own text.

Text is cut as Qwen2 cuts it, which every runtime of GGUF files knows. Only while learning the merges are
Chinese characters kept apart as well: from so little text, BPE would learn whole sentences of the templates
as single tokens. No merge then joins two characters, so cutting as Qwen2 does gives the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

VOCABULARY = 4096
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
QWEN2_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train(texts: Iterable[str], directory: str | Path, vocabulary: int = VOCABULARY) -> Path:
    """Learn at most `vocabulary` tokens from `texts`; write what transformers loads into `directory`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = [END_OF_TEXT, TURN_START, TURN_END]
    tokenizer = Tokenizer(models.BPE())
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Split(Regex(QWEN2_CUT), "isolated")
    alone = pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, alone, bytes_only])
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(str(directory))
    return Path(directory)
