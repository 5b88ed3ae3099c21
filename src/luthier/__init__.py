"""Luthier: fine-tune language models on your own data, prove it, ship it.

`luthier.load(words_or_mapping, verb)` gives a checked `Config`; names are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from luthier.config import Config, load
    from luthier.errors import LuthierError
    from luthier.infer.chat import chat
    from luthier.runs import Run

__all__ = ["Config", "LuthierError", "Run", "__version__", "chat", "load"]

_WHERE = {
    "Config": "luthier.config",
    "load": "luthier.config",
    "LuthierError": "luthier.errors",
    "Run": "luthier.runs",
    "chat": "luthier.infer.chat",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'luthier' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
