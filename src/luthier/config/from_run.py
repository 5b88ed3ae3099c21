"""What a run directory already knows: base, adapter, template, system message.

Read without the model libraries, so that a run can be used without importing the rooms above.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from luthier.config import plain
from luthier.config.read import MARKER, Loaded, read
from luthier.config.schema import KEYS

_ALWAYS = ("model_revision", "hub", "cache_dir", "resize_vocab", "add_tokens", "add_special_tokens")
_TEXT = ("enable_thinking", "history", "default_system", "cutoff_len")
_BASE = (
    "quantization_bit",
    "quantization_method",
    "quantization_type",
    "double_quantization",
    "finetuning_type",
    "stage",
)
# Said once, about that one time: going on must not delete what there is.
_ONCE = ("overwrite_output_dir", "resume_from_checkpoint", "confirm_changes", "format")
_HELD_OUT = ("dataset", "eval_dataset", "val_size", "seed", "data_seed", "max_samples", "mix_strategy")


def fill(loaded: Loaded, verb: str) -> Path | None:
    """Give every key that the request leaves open the value of the run it names; the run, or None.

    The run is a directory given by itself, or the one that adapter_name_or_path, model_name_or_path or (when
    not training) output_dir point to; or the one that holds the checkpoint that they point to.
    """
    weights = _named(loaded, verb)
    run = weights and _run_of(weights)
    if run is None or weights is None:
        _plain_adapter(loaded)
        folder = loaded.values.get("output_dir")
        if folder and verb != "train" and not loaded.values.get("adapter_name_or_path"):
            where = loaded.where.get("output_dir", "output_dir")
            loaded.notes.append(f"{where}: no trained run in {folder}; the base is used")
        return None
    resolved, marker = _json(run / "config.resolved.json", loaded), _json(run / MARKER, loaded)
    where = str(run / MARKER)
    _model(loaded, weights, where, marker.get("base") or resolved.get("model_name_or_path"))
    _template(loaded, run, resolved, marker, verb)
    inherited: tuple[str, ...] = _ALWAYS if verb == "train" else (*_ALWAYS, *_TEXT, *_BASE, "dataset_dir")
    if verb == "predict" and not {"dataset", "eval_dataset"} & set(loaded.values):
        inherited += (*_HELD_OUT, "interleave_probs")
    for key in inherited:
        if key in resolved and resolved[key] != _plain(KEYS[key].default):
            loaded.set(key, resolved[key], where)
    system = marker.get("system") or resolved.get("default_system")
    if system and verb != "train":
        loaded.set("system", system, where)
    return run


def _named(loaded: Loaded, verb: str) -> Path | None:
    if loaded.run is not None:
        return loaded.run
    keys = ["adapter_name_or_path", "model_name_or_path"]
    if verb != "train" and not loaded.values.get("adapter_name_or_path"):
        keys.append("output_dir")
    for key in keys:
        value = loaded.values.get(key)
        several = key == "adapter_name_or_path" and not isinstance(value, list)
        names = str(value or "").split(",") if several else value if isinstance(value, list) else [value]
        for name in reversed(names):
            path = Path(str(name or ""))
            if name and _has_weights(path) and _run_of(path) is not None:
                return path
    return None


def _run_of(path: Path) -> Path | None:
    """The run that a directory is, or of which it is a checkpoint."""
    if (path / MARKER).is_file():
        return path
    inside = path.name.startswith("checkpoint-") and (path.parent / MARKER).is_file()
    return path.parent if inside else None


def _has_weights(run: Path) -> bool:
    return (run / "adapter_config.json").is_file() or (run / "config.json").is_file()


def _model(loaded: Loaded, weights: Path, where: str, base: Any) -> None:
    """The adapter in `weights` on its base, or `weights` itself where it holds a whole model."""
    if isinstance(base, dict):
        base = base.get("path") or base.get("name")
    if (weights / "adapter_config.json").is_file():
        loaded.set("adapter_name_or_path", [_name(weights)], where)
        if Path(str(loaded.values.get("model_name_or_path", ""))) == weights:
            _replace(loaded, "model_name_or_path", base, where)
        elif base:
            loaded.set("model_name_or_path", base, where)
    elif not _has_weights(weights):
        loaded.add(
            str(weights), "holds no trained weights yet", "a run that is complete, or one of its checkpoints"
        )
    elif str(loaded.values.get("model_name_or_path", base)) == str(base):
        _replace(loaded, "model_name_or_path", _name(weights), where)


def _name(path: Path) -> str:
    """A path as text that means nothing else: `./None`, not `None`."""
    return str(path) if path.is_absolute() or len(path.parts) > 1 else os.path.join(".", path)


def _template(loaded: Loaded, run: Path, resolved: dict[str, Any], marker: dict[str, Any], verb: str) -> None:
    """The text that the run was trained with, whatever is asked for, unless the change is confirmed."""
    text, name = run / "template.jinja", resolved.get("template") or marker.get("template")
    kept = str(text) if text.is_file() else name
    asked = loaded.values.get("template")
    if not kept or asked in (kept, None):
        if kept:
            loaded.set("template", kept, str(run / MARKER))
        return
    confirmed = str(loaded.values.get("confirm_changes", "")).lower() == "true"
    where = loaded.where.get("template", "template")
    if asked != name and (confirmed or verb == "train"):
        loaded.notes.append(
            f"{where}: {run} was trained with the template {name or kept}; {asked} is used, as asked"
        )
        return
    if asked != name:
        loaded.notes.append(
            f"{where}: {run} was trained with the template {name or kept}, so that one is used, not {asked} "
            "(confirm_changes: true uses yours)"
        )
    _replace(loaded, "template", kept, str(run / MARKER))


def _replace(loaded: Loaded, key: str, value: Any, where: str) -> None:
    """What the run knows wins over what was written."""
    loaded.values[key], loaded.where[key] = value, where
    loaded.raw.pop(key, None)


def repeat(loaded: Loaded, run: Path) -> None:
    """`train RUN` does it again, or goes on: the keys of RUN/config.yaml, written into RUN."""
    again = read([str(run / "config.yaml")], {})
    loaded.problems += again.problems
    for key, value in again.values.items():
        if key in (*_ONCE, "output_dir") or (key == "trust_remote_code" and _untrusted(loaded, run)):
            continue
        if key not in loaded.values and key in again.raw:
            loaded.raw[key] = again.raw[key]
        loaded.set(key, value, again.where.get(key, str(run / "config.yaml")))
    loaded.set("output_dir", _name(run), str(run / MARKER))
    loaded.run = None


def _untrusted(loaded: Loaded, run: Path) -> bool:
    """Whether code may run is said by the user each time, never by a folder that may be somebody else's."""
    if "trust_remote_code" not in loaded.values:
        loaded.notes.append(
            f"{run / 'config.yaml'}: trust_remote_code is not taken over from a run; write it again if you "
            "trust the code that comes with the model"
        )
    return True


def _plain_adapter(loaded: Loaded) -> None:
    """An adapter that another program wrote knows its base, too."""
    value = loaded.values.get("adapter_name_or_path")
    if not value or loaded.values.get("model_name_or_path"):
        return
    first = value[0] if isinstance(value, list) else str(value).split(",")[0]
    file = Path(first) / "adapter_config.json"
    if file.is_file() and (base := _json(file, loaded).get("base_model_name_or_path")):
        loaded.set("model_name_or_path", base, str(file))
        loaded.notes.append(f"{file}: names {base} as its base, so that is loaded")


def _json(file: Path, loaded: Loaded) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = plain.from_json(plain.read_text(file, plain.LONGEST_JSON)).value
    except plain.Unreadable as error:
        loaded.add(str(file), f"cannot be read: {error.what}", "a run directory that is whole")
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
