"""Does an adapter belong to a base? Asked before it is put on: a wrong pair often loads, and talks nonsense.

Three tests, the strictest that the files allow: the shapes of the tensors, the sha256 of the base's weights
that the run recorded, and the base's name in adapter_config.json (which only warns: directories move).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import ModelError
from luthier.model import files, locate
from luthier.runs import hashing

if TYPE_CHECKING:
    import torch

    from luthier.config import Config

log = logging.getLogger(__name__)

PREFIX = "base_model.model."


def check(model: torch.nn.Module, adapter: Path, config: Config) -> None:
    """Raise ModelError, naming both, when the adapter in this directory was made for another base."""
    recorded = _recorded_base(adapter)
    given = str(config.model_name_or_path)
    wrong = _wrong_shapes(model, adapter)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(
            f"adapter_name_or_path: {adapter} was made for {recorded}, not for {given}: "
            f"{'; '.join(wrong[:3])}{more}. Write model_name_or_path: {recorded}"
        )
    changed = _changed_files(adapter, given)
    if changed:
        message = (
            f"adapter_name_or_path: {adapter} was trained on {recorded}, and {given} has other weights "
            f"({', '.join(changed[:3])}; by sha256). Give the base that it was trained on"
        )
        if not config.confirm_changes:
            raise ModelError(f"{message}, or write confirm_changes: true")
        log.warning(message)
    elif changed is None and recorded and recorded != given:
        log.warning("the adapter %s names %s as its base; the base given is %s", adapter, recorded, given)


def _recorded_base(adapter: Path) -> str | None:
    name = files.read_json(adapter / locate.ADAPTER_CONFIG).get("base_model_name_or_path")
    return str(name) if name else None


def _wrong_shapes(model: torch.nn.Module, adapter: Path) -> list[str]:
    """What does not fit, in words. Only file headers are read."""
    modules = dict(model.named_modules())
    wrong = []
    for key, shape in files.header(adapter / locate.ADAPTER_WEIGHTS)[1].items():
        found = _expected(key, modules)
        if found is None:
            continue
        axis, size = found
        name = key.removeprefix(PREFIX)
        if size is None:
            wrong.append(f"the base has no {name.partition('.lora_')[0]}")
        elif len(shape) <= axis or shape[axis] != size:
            wrong.append(
                f"{name} is {'x'.join(map(str, shape))} where the base wants {size} in dimension {axis}"
            )
    return wrong


def _expected(key: str, modules: dict[str, Any]) -> tuple[int, int | None] | None:
    """(dimension of the adapter's tensor, size that the base asks of it); size None: the module is missing.

    None for tensors that are not a linear layer's lora_A or lora_B: PEFT checks those itself.
    """
    for part, axis, attribute in ((".lora_A.", 1, "in_features"), (".lora_B.", 0, "out_features")):
        if part not in key:
            continue
        module = modules.get(key.removeprefix(PREFIX).partition(part)[0])
        if module is None:
            return axis, None
        size = getattr(module, attribute, None)
        return (axis, int(size)) if size is not None else None
    return None


def _changed_files(adapter: Path, given: str) -> list[str] | None:
    """Weight files of the given base that differ from those of the training; None when not recorded."""
    folder = Path(given)
    for home in (adapter, adapter.parent):  # a checkpoint lies in its run
        if not (home / "manifest.json").is_file():
            continue
        base = files.read_json(home / "manifest.json").get("base")
        if not base or not folder.is_dir():
            continue
        recorded = {name: digest for name, digest in base["files"].items() if name.endswith(".safetensors")}
        return [
            name
            for name, digest in recorded.items()
            if not (folder / name).is_file() or hashing.cached(folder / name) != digest
        ]
    return None
