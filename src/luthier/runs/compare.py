"""What differs between two runs, key by key, and what each difference means for going on with the first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from luthier.config.schema import KEYS
from luthier.errors import RunError

Kind = Literal["harmless", "changes the mathematics", "impossible"]

# The checkpoint's tensors have no place in a model or optimizer that these made differently.
_IMPOSSIBLE = frozenset(
    "stage finetuning_type lora_rank lora_target additional_target use_dora optim train_from_scratch "
    "freeze_trainable_layers freeze_trainable_modules freeze_extra_modules resize_vocab add_tokens "
    "add_special_tokens base adapters".split()
)
# When something is saved or scored, and how the same numbers are computed (equal but for rounding).
_HARMLESS = frozenset(
    "save_steps save_strategy eval_steps eval_strategy eval_delay eval_dataset infer_dtype prefix_sharing "
    "flash_attn gradient_checkpointing disable_gradient_checkpointing hub trust_remote_code "
    "do_train system".split()
)
# Only their product, with the number of ranks, has a meaning: the examples of a step.
_STEP = ("per_device_train_batch_size", "gradient_accumulation_steps")
# Where the run is written: whoever moves a run knows it.
PLACES = frozenset(("output_dir", "logging_dir", "run_name"))
_HARMLESS_SECTIONS = ("generate", "export")
# Names of things whose content the manifest knows: the same content under another name is no change.
_CONTENT = {
    "model_name_or_path": "base", "model_revision": "base", "adapter_name_or_path": "adapters",
    "dataset": "data", "dataset_dir": "data", "template": "template",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """A key that differs. old, new: None where the key is absent."""

    key: str
    old: Any
    new: Any
    kind: Kind

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.old)} -> {shown(self.new)} ({self.kind})"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Every key that differs between two resolved configurations, in the order of `old`, then of `new`."""
    keys = [*old, *(key for key in new if key not in old)]
    differing = [key for key in keys if _canonical(old.get(key)) != _canonical(new.get(key))]
    return [Change(key, old.get(key), new.get(key), kind_of(key)) for key in differing]


def kind_of(key: str) -> Kind:
    """What a change of this key means for a run that is continued. A key that nothing is known of counts."""
    if key in _IMPOSSIBLE:
        return "impossible"
    known = KEYS.get(key)
    if key in _HARMLESS or (known and (known.cosmetic or known.section in _HARMLESS_SECTIONS)):
        return "harmless"
    return "changes the mathematics"


def manifest_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What differs in content: data files, template, tokenizer, weights; and the process and its versions."""
    found = _data(old.get("data") or [], new.get("data") or [])
    for part in ("tokenizer", "base"):
        found += _files(part, _by_name(old.get(part)), _by_name(new.get(part)))
    for before, after in zip_longest(old.get("adapters") or [], new.get("adapters") or []):
        found += _files("adapters", _by_name(before), _by_name(after))
    if old.get("template") != new.get("template"):
        found.append(Change("template", old.get("template"), new.get("template"), kind_of("template")))
    for part in ("versions", "process"):
        then, now = old.get(part, {}), new.get(part, {})
        for name in [*then, *(n for n in now if n not in then)]:
            if then.get(name) != now.get(name):
                found.append(Change(f"{part}.{name}", then.get(name), now.get(name), "harmless"))
    return found


def all_changes(
    old_config: Mapping[str, Any],
    new_config: Mapping[str, Any],
    old_manifest: Mapping[str, Any],
    new_manifest: Mapping[str, Any],
) -> list[Change]:
    """Changes of configuration and content together; a new name for the same content is harmless.

    So is another division of the same examples per step among ranks, devices and accumulation: a step is
    planned as a whole. Versions, threads, devices and ranks change rounding, and more than one rank draws
    its dropout otherwise.
    """
    content = manifest_changes(old_manifest, new_manifest)
    changed = {change.key.split(".")[0] for change in content}
    before, after = _per_step(old_config, old_manifest), _per_step(new_config, new_manifest)
    found = []
    if before != after:
        found.append(Change("examples per step", before, after, "changes the mathematics"))
    for change in changes(old_config, new_config):
        if change.key in _STEP:
            found.append(Change(change.key, change.old, change.new, "harmless"))
            continue
        part = _CONTENT.get(change.key)
        if part is None:
            found.append(change)
            continue
        same = old_manifest.get(part) and new_manifest.get(part) and part not in changed
        found.append(Change(change.key, change.old, change.new, "harmless" if same else kind_of(part)))
    return found + content


def confirm(found: Iterable[Change], confirmed: bool) -> list[str]:
    """Lines to print about going on in spite of the changes.

    Raises RunError that names every change when one is impossible, or when one changes the mathematics and
    the user has not confirmed it.
    """
    grave = [change for change in found if change.kind != "harmless"]
    impossible = [change for change in grave if change.kind == "impossible"]
    if impossible:
        raise RunError(_listed("cannot be continued with", grave, "undo these, or give another output_dir"))
    if grave and not confirmed:
        instead = "undo these, or set confirm_changes: true to go on with them"
        raise RunError(_listed("was begun without", grave, instead))
    return [f"continuing with {change}" for change in found if change.key not in PLACES]


def _per_step(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> int:
    """Examples of one optimizer step over all ranks."""
    size, steps = (int(config.get(key) or 1) for key in _STEP)
    return size * steps * int(manifest.get("process", {}).get("world", 1))


def _listed(what: str, found: Iterable[Change], instead: str) -> str:
    lines = "\n".join(f"  {change}" for change in found)
    return f"the run {what} these changes:\n{lines}\n{instead}"


def _files(part: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    names = [*old, *(name for name in new if name not in old)]
    return [
        Change(f"{part}.{name}", old.get(name), new.get(name), kind_of(part))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _by_name(folder: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return folder["files"] if folder else {}


def _data(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[Change]:
    """Data files count in their order, not by their path: a copy elsewhere is the same data."""
    found = []
    nothing: dict[str, Any] = {}
    for before, after in zip_longest(old, new, fillvalue=nothing):
        if before.get("sha256") != after.get("sha256"):
            name = os.path.basename((before or after)["path"])
            found.append(Change(f"data.{name}", before.get("sha256"), after.get("sha256"), kind_of("data")))
    return found


def _canonical(value: Any) -> str:
    """64.0 is 64: how a number was written is no difference."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, default=str)


def shown(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:12]  # a hash
    return _canonical(value)
