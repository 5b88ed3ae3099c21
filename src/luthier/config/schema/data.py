"""Keys that say which examples are read, and how they become tokens."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.config.schema.key import key


@dataclass(frozen=True)
class Data:
    template: str | None = key(
        None,
        "Chat template: a name (qwen), a .jinja file, or null for the one that comes with the tokenizer.",
    )
    dataset: tuple[str, ...] = key(
        (), "Data sets to train on: names in dataset_info.json, files, folders or hub names."
    )
    eval_dataset: tuple[str, ...] = key((), "Data sets to evaluate or predict on.")
    dataset_dir: str = key(
        "data", "Folder that holds dataset_info.json; ONLINE = names are looked up on the hub."
    )
    cutoff_len: int = key(
        2048, "Longest sequence in tokens; cutoff_policy says what happens to longer ones.", limits=(2, None)
    )
    cutoff_policy: str = key(
        "cut_prompt",
        "An example longer than cutoff_len: shorten its prompt in the middle, drop it, or stop.",
        ("cut_prompt", "drop", "error"),
    )
    train_on_prompt: bool = key(False, "Also learn to write the prompt.")
    mask_history: bool = key(False, "Learn only the last reply of each conversation.")
    history: str = key(
        "as_trained",
        "Earlier replies of reasoning models: as written, or as the template rewrites them (no thoughts).",
        ("as_trained", "as_template"),
    )
    enable_thinking: bool | None = key(
        True, "Reasoning models: think before answering; null = both kinds of data."
    )
    default_system: str | None = key(None, "System message of conversations that have none.")
    packing: bool | None = key(
        None,
        "Fill sequences up to cutoff_len with examples that do not see each other; null = in stage pt.",
    )
    neat_packing: bool = key(False, "The same as packing: packed examples never see each other here.")
    prefix_sharing: bool = key(True, "Compute a prefix that several examples of a step share only once.")
    max_samples: int | None = key(None, "Use at most this many examples of each data set.", limits=(1, None))
    val_size: float = key(
        0,
        "Part of the training data to hold out: a fraction below 1, or a number of examples.",
        limits=(0, None),
    )
    eval_on_each_dataset: bool = key(False, "Evaluate every eval_dataset by itself.")
    mix_strategy: str = key(
        "concat",
        "Several data sets: one after the other, or drawn in turn until the first is used up (under), "
        "all are (over), or without repeats (once).",
        ("concat", "interleave_under", "interleave_over", "interleave_once"),
        aliases={"interleave": "interleave_under"},
    )
    interleave_probs: tuple[float, ...] = key((), "Probability of each data set when drawn in turn.")
    streaming: bool = key(False, "Read while training instead of before (stage pt).")
    buffer_size: int = key(16384, "Examples among which streaming shuffles.", limits=(1, None))
    tokenized_path: str | None = key(
        None, "Folder that keeps the tokens; null = the user's cache.", cosmetic=True
    )
    overwrite_cache: bool = key(
        False, "Tokenise again even when the tokens are already on disk.", cosmetic=True
    )
    preprocessing_num_workers: int | None = key(
        None, "Threads that tokenise; null = one per core.", limits=(1, None), cosmetic=True
    )
    on_bad_rows: str = key(
        "stop",
        "When more rows than bad_rows_limit cannot be used: stop, or go on without them.",
        ("stop", "skip"),
    )
    bad_rows_limit: float = key(
        0.01, "Part of the rows that may be bad before on_bad_rows: stop stops.", limits=(0, 1)
    )
