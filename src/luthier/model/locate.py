"""From the name of a model or adapter to a directory, or to a hub name that can be fetched.

Mistakes are found here, before transformers sees the name: its messages speak about the hub
when a local path was meant.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import LuthierError, MissingPackage, ModelError
from luthier.runs import seal

if TYPE_CHECKING:
    from luthier.config import Config

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json",
    "spiece.model", "sentencepiece.bpe.model", "*.tiktoken",
)  # fmt: skip
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def model(name: str, config: Config) -> str:
    """A directory that holds a config.json, or a hub name. Raises ModelError; RunError for a damaged one."""
    path = _local(name)
    if path is None:
        return _modelscope(name, config) if config.hub == "modelscope" else name
    if not (path / "config.json").is_file():
        if (path / ADAPTER_CONFIG).is_file():
            raise ModelError(
                f"{name}: holds an adapter, not a model. Write adapter_name_or_path: {name} "
                f"and its base as model_name_or_path"
            )
        raise ModelError(
            f"{name}: holds no config.json, so it is not a model ({_contents(path)}). "
            "Give the directory with config.json, *.safetensors and the tokenizer"
        )
    seal.check(path)
    return str(path)


def tokenizer(name: str, config: Config) -> str:
    """Like `model`, for a directory that need hold only tokenizer files."""
    path = _local(name)
    if path is None:
        return _modelscope(name, config) if config.hub == "modelscope" else name
    if not has_tokenizer(path):
        raise ModelError(
            f"{name}: holds no tokenizer ({_contents(path)}). Copy tokenizer.json and "
            "tokenizer_config.json of the model there"
        )
    seal.check(path)
    return str(path)


def has_tokenizer(path: Path) -> bool:
    return any(next(path.glob(pattern), None) for pattern in TOKENIZER_FILES)


def adapter(name: str, config: Config) -> Path:
    """The directory with an adapter's two files. Raises ModelError; RunError for a damaged run."""
    path = _local(name) or Path(_fetch_adapter(name, config))
    if not (path / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{path}: holds no {ADAPTER_CONFIG}, so it is not an adapter ({_contents(path)}). "
            "Give a run directory, a checkpoint-N in it, or another PEFT adapter"
        )
    if not (path / ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"{path}: holds no {ADAPTER_WEIGHTS} ({_contents(path)}). Pickled weights (adapter_model.bin) "
            "can run code and are not read: load the adapter with PEFT once and save it as safetensors"
        )
    seal.check(path)
    return path


def hub_options(config: Config) -> dict[str, Any]:
    """Keyword arguments that every from_pretrained shares."""
    return {
        "trust_remote_code": bool(config.trust_remote_code),
        "cache_dir": config.cache_dir,
        "revision": config.model_revision,
    }


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Whatever transformers, tokenizers or PEFT raise over the files of `name` is a ModelError in words.

    Their parsers raise what they like, tokenizers even a bare Exception.
    """
    try:
        yield
    except LuthierError:
        raise
    except Exception as error:
        raise explain(name, error) from error


def explain(name: str, error: Exception) -> LuthierError:
    """What a failed from_pretrained means for the user."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, (LookupError, AttributeError, TypeError, RecursionError)):
        first = f"{type(error).__name__}: {first}"  # the bare message would be a single word
    if Path(name).is_dir():
        return ModelError(f"{name}: cannot be loaded: {first}")
    if isinstance(error, ImportError):
        return ModelError(f"{name}: needs a package that is not installed: {first}")
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return ModelError(
            f"{name}: neither a directory here nor in the cache, and HF_HUB_OFFLINE keeps us from the hub. "
            "Give a local directory, or unset HF_HUB_OFFLINE"
        )
    return ModelError(
        f"{name}: not a directory here, and {constants.ENDPOINT} did not give it: {first}. Check the name; "
        "behind a wall set HF_ENDPOINT to a mirror or USE_MODELSCOPE_HUB=1, or give a local directory"
    )


def _local(name: str) -> Path | None:
    """The directory that `name` means; None for a hub name. Raises ModelError for a path to nothing."""
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_file():
        what = "a GGUF file, made for inference only" if path.suffix == ".gguf" else "a file"
        raise ModelError(f"{name}: is {what}; give the directory with config.json and *.safetensors")
    written_as_path = path.is_absolute() or name.startswith((".", "~")) or "\\" in name
    if written_as_path or name.strip("/").count("/") > 1:
        raise ModelError(f"{name}: no such directory (looked in {Path.cwd()})")
    return None


def _contents(path: Path) -> str:
    names = sorted(p.name for p in path.iterdir())[:8] if path.is_dir() else []
    return "it has " + ", ".join(names) if names else "it is empty or missing"


def _modelscope(name: str, config: Config) -> str:
    if importlib.util.find_spec("modelscope") is None:
        raise MissingPackage("modelscope", "hub: modelscope", "modelscope")
    from modelscope import snapshot_download

    revision = "master" if config.model_revision == "main" else config.model_revision
    try:
        return str(snapshot_download(name, revision=revision, cache_dir=config.cache_dir))
    except Exception as error:  # modelscope raises requests' and its own errors alike
        raise ModelError(
            f"{name}: ModelScope did not give it: {error}. Check the name and the network"
        ) from error


def _fetch_adapter(name: str, config: Config) -> str:
    if config.hub == "modelscope":
        return _modelscope(name, config)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
    try:
        return str(snapshot_download(name, cache_dir=config.cache_dir, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        raise explain(name, error) from error
