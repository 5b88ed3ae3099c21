"""The process in which llama.cpp lives: `python -m luthier.infer.llama_child`, settings as JSON on stdin.

llama.cpp ends its whole process on some errors, so it never shares ours. The address is written to stdout;
the process ends when its stdin is closed, which also happens when whoever started it is killed.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> int:
    """Serve the file until stdin is closed."""
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    import xllamacpp

    server = xllamacpp.Server(_parameters(xllamacpp, settings))
    print(server.listening_address, flush=True)
    sys.stdin.read()
    return 0


def _parameters(library: Any, settings: dict[str, Any]) -> Any:
    found = library.CommonParams()
    found.model.path = settings["path"]
    found.hostnames, found.port = ["127.0.0.1"], 0
    found.api_keys = [settings["key"]]
    found.ui = False
    found.warmup = False
    found.verbosity = 1
    found.n_parallel = settings["slots"]
    found.n_ctx = settings["context"] * settings["slots"]
    found.n_gpu_layers = settings["gpu_layers"]
    found.cpuparams.n_threads = found.cpuparams_batch.n_threads = settings["threads"]
    found.use_jinja = True
    if settings["lora"]:
        found.lora_adapters = [library.CommonAdapterLoraInfo(settings["lora"], 1.0)]
    if settings["exact"]:
        found.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        found.cache_type_k = found.cache_type_v = library.ggml_type.GGML_TYPE_F32
    return found


if __name__ == "__main__":
    sys.exit(main())
