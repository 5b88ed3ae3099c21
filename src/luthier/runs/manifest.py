"""What a run was made of, so that it can be made again, or be told apart from one that merely looks alike.

Data files, tokenizer files and the base model's weights are hashed whole, not sampled: a resumed or
reproduced run must not take other weights for the same ones. Weights are hashed once and remembered by
path, size and modification time (`hashing.cached`), so that a start does not read gigabytes again.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from luthier import __version__
from luthier.redact import redact_words
from luthier.runs import hashing
from luthier.runs.lock import now

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "bitsandbytes",
)
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model",
    "spiece.model", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "*.tiktoken",
)  # fmt: skip
_MODEL = ("config.json", "adapter_config.json", "*.safetensors", "*.bin", "*.gguf")

Folder = str | os.PathLike[str]


def build(
    config: Mapping[str, Any],
    *,
    data_files: Iterable[Folder] = (),
    template_text: str = "",
    tokenizer_dir: Folder | None = None,
    base_dir: Folder | None = None,
    machine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a run with the resolved `config`, in plain JSON types.

    data_files: in the order in which they are read, with the dataset_info.json that says how to read them ·
    template_text: the one Jinja text kept with the run · tokenizer_dir, base_dir: local folders, None when
    there is none · machine: what is known of accelerators.
    Adapters that the run continues from are found in the config. Raises OSError when a file cannot be read.
    """
    adapters = config.get("adapter_name_or_path") or ()
    adapters = adapters.split(",") if isinstance(adapters, str) else adapters
    return {
        "created": now(),
        "command": redact_words(sys.argv),
        "cwd": os.getcwd(),
        "seed": config.get("seed"),
        "config": hashing.sha256_json(dict(config)),
        "data": [_file(path) for path in data_files],
        "template": hashing.sha256_text(template_text),
        "tokenizer": _folder(tokenizer_dir, _TOKENIZER),
        "base": _folder(base_dir, _MODEL),
        "adapters": [_folder(path, _MODEL) for path in adapters if os.path.isdir(path)],
        "versions": versions(),
        "machine": {**describe_machine(), **(machine or {})},
    }


def versions() -> dict[str, str]:
    """Versions of Python, luthier and the packages that the numbers depend on; nothing is imported."""
    found = {"python": platform.python_version(), "luthier": __version__}
    installed = {d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]}
    return found | {name: metadata.version(name) for name in PACKAGES if name in installed}


def describe_machine() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def check(manifest: Mapping[str, Any], template_text: str | None = None) -> tuple[list[str], list[str]]:
    """Hold a manifest against what is on the disk now: (what differs, what may change the last digits)."""
    differences = []
    for entry in manifest.get("data", ()):
        differences += _differs(entry["path"], entry["sha256"])
    folders = [manifest.get("tokenizer"), manifest.get("base"), *manifest.get("adapters", ())]
    for folder in filter(None, folders):
        for name, digest in folder["files"].items():
            differences += _differs(os.path.join(folder["path"], name), digest)
    if template_text is not None and hashing.sha256_text(template_text) != manifest.get("template"):
        differences.append("template.jinja is not the template that the run was made with")
    then, today = manifest.get("versions", {}), versions()
    notes = [
        f"{name}: {then[name]} then, {today.get(name, 'not installed')} now"
        for name in then
        if then[name] != today.get(name)
    ]
    return list(dict.fromkeys(differences)), notes


def _differs(path: str, digest: str) -> list[str]:
    if not os.path.isfile(path):
        return [f"{path} is missing"]
    return [] if hashing.cached(path) == digest else [f"{path} has changed"]


def _file(path: Folder) -> dict[str, Any]:
    full = os.path.abspath(path)
    return {"path": full, "bytes": os.path.getsize(full), "sha256": hashing.cached(full)}


def _folder(path: Folder | None, patterns: Iterable[str]) -> dict[str, Any] | None:
    if path is None:
        return None
    top = Path(os.path.abspath(path))
    files = sorted({f for pattern in patterns for f in top.glob(pattern) if f.is_file()})
    return {"path": str(top), "files": {f.name: hashing.cached(f) for f in files}}
