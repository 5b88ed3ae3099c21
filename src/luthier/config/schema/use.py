"""Keys of using a model: how it writes, what is exported, how results are printed."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.config.schema.key import key


@dataclass(frozen=True)
class Generate:
    do_sample: bool = key(True, "Draw each token; false = take the most likely. predict: false unless given.")
    temperature: float = key(0.95, "Below 1 likelier tokens get likelier.", limits=(0, None))
    top_p: float = key(
        0.7, "Draw among the likeliest tokens that together have this probability.", limits=(0, 1)
    )
    top_k: int = key(50, "Draw among this many likeliest tokens; 0 = all.", limits=(0, None))
    num_beams: int = key(1, "Beam search with this many beams.", limits=(1, None))
    max_new_tokens: int = key(1024, "Longest answer in tokens; 0 = max_length decides.", limits=(0, None))
    max_length: int = key(
        1024, "Prompt and answer together in tokens, where max_new_tokens is 0.", limits=(1, None)
    )
    repetition_penalty: float = key(
        1.0, "Above 1 tokens that were already used get less likely.", limits=(0, None)
    )
    length_penalty: float = key(1.0, "Above 0 beams prefer longer answers.")
    skip_special_tokens: bool = key(True, "Leave control tokens out of the shown text.", cosmetic=True)
    system: str | None = key(
        None, "System message in chat and predict; null = the one the run was trained with."
    )


@dataclass(frozen=True)
class Export:
    export_dir: str | None = key(None, "Where the merged model is written.", cosmetic=True)
    export_size: float = key(5, "Largest weight file in GB.", limits=(0.001, None), cosmetic=True)
    export_device: str = key(
        "cpu", "Where to merge; auto = on the accelerator.", ("cpu", "auto"), cosmetic=True
    )
    merge_into: str = key(
        "original",
        "Of a base that was quantized to train on it: merge into its original weights, or the rounded ones.",
        ("original", "quantized"),
        cosmetic=True,
    )
    export_hub_model_id: str | None = key(
        None, "Upload what was exported under this name (owner/name) once it is proved.", cosmetic=True
    )
    export_hub_private: bool = key(True, "Whether the uploaded model is private at first.", cosmetic=True)


@dataclass(frozen=True)
class Luthier:
    format: str = key("text", "How results are printed.", ("text", "json"), cosmetic=True)
    confirm_changes: bool = key(
        False,
        "Go on although config or data of a resumed run, or the template of a trained one, changed.",
        cosmetic=True,
    )
