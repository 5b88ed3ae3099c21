"""The experiments: name -> where it is, how many trials the short and the long form ask for."""

from __future__ import annotations

EXPERIMENTS: dict[str, tuple[str, int, int]] = {
    "resume changes": ("faults.changes:changes", 6, 24),
}
