"""What the files of a model or adapter may not decide: which code runs, and which other files are read.

Looked at before transformers or PEFT see them (their own refusals differ between versions, come late, and ask
on standard input where they can). Where transformers 5.23 and PEFT 0.21 let a file name code:

- `auto_map` in config.json (at any depth), tokenizer_config.json and the processors' files: Python files of
  the folder, or `owner/repo--file.Class` of another. Runs with trust_remote_code alone.
- `tokenizer_class`, in both: any class of transformers; another Auto class would ask again whether to trust.
- `attn_implementation`, `experts_implementation` and their `_` forms in config.json: a kernel of a hub
  (`owner/repo:function`), compiled code.
- `custom_generate/generate.py`: runs with trust_remote_code alone (5.0: for a local folder always, when
  generate(custom_generate=folder) is called, which luthier does not).
- `transformers_weights` in config.json, and the index's `weight_map`: names of the files with weights; .bin
  files are pickles. `dtype`: any attribute of torch.
- `quantization_config`: names of installed quantizers, and patterns of module names.
- adapter_config.json: `megatron_core` (a module that is imported), `auto_mapping` (a library that
  AutoPeftModel imports), `peft_type` (prompt tuning loads a tokenizer by name, multitask prompt tuning and
  X-LoRA other files), `corda_config` and `lora_ga_config` (pickled caches), `layer_replication`, and names of
  modules that are regular expressions. Beside a config.json, transformers puts the adapter on the model
  unasked; without one, the adapter decides which base is loaded.

What a file says about trust (`trust_remote_code` in any of them) has no effect: only the user's own word has.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from luthier.errors import ModelError
from luthier.model import files, locate

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from luthier.config import Config

log = logging.getLogger(__name__)

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
EXPERTS = ("eager", "batched_mm", "grouped_mm")
MOST_QUANTIFIERS = 5
MOST_LAYERS, MOST_PARTS = 2048, {"experts": 1 << 16}
"""Each is built as a module before any weight is read, and the deepest models have 200 layers."""
LARGEST_RANK = 1024
"""Of an adapter whose file has no low-rank matrices at all; with matrices, theirs counts."""
_REMOTE = ("auto_map", "trust_remote_code")
_COUNT = re.compile(r"(?:^|_)(layers?|blocks?|depths?|experts)$")
_FIRST = re.compile(r"\.lora_(embedding_)?A\b")


def model(name: str, config: Config) -> None:
    """Raises ModelError, naming file and key, when a model's files (a folder or a hub name) name code."""
    file = _find(name, CONFIG, config)
    if file is None:
        return  # transformers says what is missing, or that the hub cannot be reached
    _architecture(file, config)
    generation = _find(name, GENERATION, config)
    if generation is not None:
        files.read_json(generation)
    if _find(name, ADAPTER, config) is not None:
        raise ModelError(
            f"{name}: holds both a model and an adapter ({ADAPTER}), so it would not be clear which is used. "
            f"Move the adapter's files to a folder of their own and write adapter_name_or_path: FOLDER"
        )


def tokenizer(name: str, config: Config) -> None:
    """The same for the files of a tokenizer."""
    for pattern in (*locate.TOKENIZER_FILES, "merges.txt") if Path(name).is_dir() else ():
        for vocabulary in Path(name).glob(pattern):
            files.refuse_disguised(vocabulary)
    beside = _find(name, CONFIG, config)
    known = {} if beside is None else _architecture(beside, config)
    file = _find(name, TOKENIZER, config)
    settings = {} if file is None else files.read_json(file)
    for read, found in ((beside, known), (file, settings)):
        if read is not None:
            _tokenizer_class(read, found.get("tokenizer_class"))
    if file is not None and not config.trust_remote_code:
        _tokenizer_code(file, settings, known)


def forget(loaded: PretrainedConfig | PreTrainedTokenizerBase) -> None:
    """Take the names of code that was not run out of what was loaded: what is saved from it names none."""
    if hasattr(loaded, "init_kwargs"):
        for key in _REMOTE:
            loaded.init_kwargs.pop(key, None)
        return
    for key in _REMOTE:
        vars(loaded).pop(key, None)
    for name in getattr(loaded, "sub_configs", None) or {}:
        part = getattr(loaded, name, None)
        if part is not None:
            forget(part)


def adapter(folder: Path) -> None:
    """Raises ModelError, naming file and key, when the settings of an adapter name code or other files, or
    when its weights are not safetensors.
    """
    file = folder / ADAPTER
    settings = files.read_json(file)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"{file}: peft_type: {str(kind)[:80]!r} cannot be loaded; luthier reads LORA adapters"
        )
    if settings.get("megatron_config"):
        module = str(settings.get("megatron_core"))[:200]
        raise ModelError(
            f"{file}: megatron_config: asks to import {module!r} and is not read. For an adapter of a "
            "transformers model, write megatron_config: null there"
        )
    for key in ("corda_config", "eva_config", "lora_ga_config", "arrow_config", "layer_replication"):
        if settings.get(key):
            raise ModelError(
                f"{file}: {key}: is not read, because it makes PEFT read other files or build another model. "
                f"If it only tells how the adapter was initialised, write {key}: null there"
            )
    if settings.get("auto_mapping"):
        library = settings["auto_mapping"]
        library = library.get("parent_library") if isinstance(library, dict) else library
        _note(f"{file}: auto_mapping names {str(library)[:200]}; it is not used, the base is loaded as usual")
    for where, pattern in _adapter_patterns(settings):
        tame(file, where, pattern)
    _ranks(file, settings, files.header(folder / ADAPTER_WEIGHTS)[1])


def tame(file: Path, key: str, pattern: str) -> None:
    """Raises ModelError for a regular expression that is none, or could take longer than anyone waits.

    Time is at most exponential in nested repetitions and polynomial of the degree of the number of others:
    the names that patterns are held against have 60 characters, and there are hundreds of them.
    """
    wrong = None
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        wrong = f"is no regular expression ({error})"
    bare = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", pattern, flags=re.DOTALL)
    counted = re.sub(r"([*+?}])[?+]", r"\1", bare.replace("(?", "("))
    repeats = re.findall(r"[*+?]|\{\d*,?\d*\}", counted)
    if (
        re.search(r"\)(?:[*+]|\{\d*,?\d*\})", counted)
        or len(repeats) > MOST_QUANTIFIERS
        or len(pattern) > 10_000
    ):
        wrong = wrong or "is a regular expression that could take forever"
    if wrong:
        raise ModelError(f"{file}: {key}: {pattern[:100]!r} {wrong}. Write the names of the modules instead")


def _find(name: str, file: str, config: Config) -> Path | None:
    """A file of a local folder, or of a model of the hub, fetched if need be; None where there is none."""
    if Path(name).is_dir():
        return Path(name, file) if Path(name, file).is_file() else None
    from transformers.utils import cached_file

    quiet = ("missing_entries", "connection_errors", "gated_repo")
    options: dict[str, Any] = {f"_raise_exceptions_for_{what}": False for what in quiet}
    try:
        found = cached_file(name, file, cache_dir=config.cache_dir, revision=config.model_revision, **options)
    except (OSError, ValueError):  # no such model, no such name: said better when the model is asked for
        return None
    return None if found is None else Path(found)


def _walk(settings: Any) -> Iterator[tuple[str, Any]]:
    """Every key of an object at any depth, with its value. read_json has bounded the depth."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        yield key, value
        yield from _walk(value)
    for value in settings if isinstance(settings, list) else ():
        yield from _walk(value)


def _objects(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(how to name it, object) for the settings and for every object in them."""
    yield "", settings
    for key, value in _walk(settings):
        if isinstance(value, dict):
            yield f"{key}: ", value


def _architecture(file: Path, config: Config) -> dict[str, Any]:
    """What is in a config.json, which is read for a model and for its tokenizer alike. Raises ModelError."""
    settings = files.read_json(file)
    for key, value in _walk(settings):
        if key in ("dtype", "torch_dtype"):
            _dtype(file, key, value)
        part = _COUNT.search(key)
        if part and isinstance(value, int) and not -1 <= value <= MOST_PARTS.get(part[1], MOST_LAYERS):
            raise ModelError(f"{file}: {key}: {str(value)[:40]} is more than any model has. {files.AGAIN}")
    for where, pattern in _patterns(settings.get("quantization_config")):
        tame(file, f"quantization_config: {where}", pattern)
    if not config.trust_remote_code:
        _implementations(file, settings)
        _model_code(file, settings)
    return settings


def _dtype(file: Path, key: str, value: Any) -> None:
    if value is None or isinstance(value, dict) or value == "auto":
        return
    found = getattr(torch, str(value).removeprefix("torch."), None) if isinstance(value, str) else None
    if not isinstance(found, torch.dtype):
        raise ModelError(f"{file}: {key}: {str(value)[:80]!r} is no number format; write float32 or bfloat16")


def _implementations(file: Path, settings: Mapping[str, Any]) -> None:
    for key, value in _walk(settings):
        known = {"attn_implementation": ATTENTION, "experts_implementation": EXPERTS}.get(key.lstrip("_"))
        if known is None:
            continue
        for name in value.values() if isinstance(value, dict) else [value]:
            if name is not None and str(name).removeprefix("paged|") not in known:
                raise ModelError(
                    f"{file}: {key}: {str(name)[:200]!r} is none of {', '.join(known)}. A kernel of a hub is "
                    "code, which is not run unasked: delete the key; flash_attn in your configuration chooses"
                )


def _model_code(file: Path, settings: Mapping[str, Any]) -> None:
    """auto_map: needless where transformers knows the architecture (noted, not run), refused elsewhere."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

    for where, part in _objects(settings):
        if "auto_map" not in part:
            continue
        kind, named = str(part.get("model_type"))[:80], part["auto_map"]
        known = kind in CONFIG_MAPPING and (
            kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (bool(where) and kind in MODEL_MAPPING_NAMES)
        )
        if not known:
            raise _code(
                file, f"{where}auto_map", named, f'transformers has no language model "{kind}" of its own'
            )
        _note(f"{file}: {where}auto_map names code ({_names(named)}), which is not needed and not run")
    kind = settings.get("model_type")
    if "auto_map" not in settings and isinstance(kind, str) and kind not in CONFIG_MAPPING:
        raise ModelError(
            f"{file}: model_type: transformers does not know {kind[:80]!r}. If the model is newer than your "
            "transformers: pip install --upgrade transformers"
        )


def _tokenizer_code(file: Path, settings: Mapping[str, Any], architecture: Mapping[str, Any]) -> None:
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    named = settings.get("auto_map")
    if named is None:
        return
    pair = named.get("AutoTokenizer") if isinstance(named, dict) else named
    if isinstance(pair, list) and len(pair) != 2:
        raise ModelError(
            f"{file}: auto_map: {_names(named)} is no pair of classes; delete the key. {files.AGAIN}"
        )
    chosen = settings.get("tokenizer_class") or architecture.get("tokenizer_class")
    own = architecture.get("model_type") in TOKENIZER_MAPPING_NAMES
    if not own and not (isinstance(chosen, str) and tokenizer_class_from_name(chosen)):
        raise _code(file, "auto_map", named, f"transformers has no tokenizer {str(chosen)[:80]!r} of its own")
    _note(f"{file}: auto_map names code ({_names(named)}), which is not needed and not run")


def _tokenizer_class(file: Path, name: Any) -> None:
    """A class of transformers that is no tokenizer would be asked to load the folder in its own way."""
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    found = tokenizer_class_from_name(name) if isinstance(name, str) and name else None
    dummy = getattr(found, "is_dummy", False)  # stands for a class whose package is missing, and says so
    stranger = (
        found is not None
        and not dummy
        and not (isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase))
    )
    if stranger or not isinstance(name, (str, type(None))):
        raise ModelError(
            f"{file}: tokenizer_class: {str(name)[:80]!r} is no tokenizer of transformers. {files.AGAIN}"
        )


def _code(file: Path, key: str, named: Any, why: str) -> ModelError:
    return ModelError(
        f"{file}: {key} asks to run Python code ({_names(named)}), and {why}. Code is not run unless you say "
        "so: read it, and if you trust it, write trust_remote_code: true"
    )


def _names(named: Any) -> str:
    """The classes that an auto_map names, shortened to a line."""
    found = [v for _, v in _walk({"": named}) if isinstance(v, str)]
    found += [
        v
        for _, values in _walk({"": named})
        if isinstance(values, list)
        for v in values
        if isinstance(v, str)
    ]
    return ", ".join(dict.fromkeys(found))[:200] or "unreadable"


def _patterns(settings: Any) -> Iterator[tuple[str, str]]:
    """Strings in a quantization_config that are held against names of modules."""
    for key, value in _walk(settings):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and re.search(r"[*+?{]", item):
                yield key, item


def _adapter_patterns(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What PEFT takes for a regular expression (a list of target_modules is compared literally)."""
    for key in ("target_modules", "exclude_modules"):
        if isinstance(settings.get(key), str):
            yield key, settings[key]
    for key in ("modules_to_save", "layers_pattern", "rank_pattern", "alpha_pattern"):
        value = settings.get(key)
        names = [value] if isinstance(value, str) else value if isinstance(value, (list, dict)) else []
        yield from ((key, name) for name in names if isinstance(name, str))


def _ranks(file: Path, settings: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Matrices of this rank are made before the weights are read, so a false one could fill the memory."""
    largest = max((shape[0] for name, shape in shapes.items() if _FIRST.search(name)), default=LARGEST_RANK)
    patterns = settings.get("rank_pattern") or {}
    named = {
        "r": settings.get("r", 8),
        **(patterns if isinstance(patterns, dict) else {"rank_pattern": patterns}),
    }
    for key, rank in named.items():
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= largest:
            raise ModelError(
                f"{file}: {key[:80]}: {str(rank)[:80]} is no rank of the weights (the largest is {largest}). "
                f"{files.AGAIN}"
            )


@functools.cache
def _note(text: str) -> None:
    """Said once, however often the folder is read."""
    log.warning("%s", text)
