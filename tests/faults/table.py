"""The experiments: name -> where it is, how many trials the short and the long form ask for."""

from __future__ import annotations

EXPERIMENTS: dict[str, tuple[str, int, int]] = {
    "bit flips": ("faults.flips:flips", 4, 64),
    "resume changes": ("faults.changes:changes", 7, 26),
    "yaml attacks": ("faults.yamls:attacks", 15, 40),
    "kills": ("faults.kills:kills", 30, 1000),
    "signals": ("faults.signals:signals", 6, 40),
    "archives": ("faults.archives:archives", 12, 30),
}
