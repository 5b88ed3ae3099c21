"""The experiments: name -> where it is, how many trials the short and the long form ask for."""

from __future__ import annotations

EXPERIMENTS: dict[str, tuple[str, int, int]] = {
    "non-finite loss, gradient, weight": ("faults.poison:poisoned", 3, 30),
    "out of memory": ("faults.memory:exhausted", 3, 38),
    "bit flips": ("faults.flips:flips", 4, 64),
    "resume changes": ("faults.changes:changes", 7, 26),
    "pickles": ("faults.pickles:pickles", 6, 38),
    "code hooks": ("faults.models:hooks", 8, 54),
    "yaml attacks": ("faults.yamls:attacks", 15, 40),
    "kills": ("faults.kills:kills", 30, 1000),
    "signals": ("faults.signals:signals", 6, 40),
    "two writers": ("faults.races:two_writers", 4, 100),
    "odd names": ("faults.names:names", 4, 40),
    "read-only": ("faults.places:readonly", 4, 36),
    "clock set back": ("faults.places:clock", 2, 20),
    "jinja attacks": ("faults.templates:attacks", 8, 71),
    "jinja bombs": ("faults.templates:bombs", 8, 101),
    "archives": ("faults.archives:archives", 12, 30),
    "secrets": ("faults.leaks:secrets", 8, 32),
    "bit-exact resume": ("faults.resume:resume", 6, 48),
    "bit-exact resume, what else is known": ("faults.resume_more:more", 3, 29),
    "micro-batches": ("faults.cuts:cuts", 4, 24),
    "i/o faults": ("faults.io:saves", 16, 1000),
    "i/o faults elsewhere": ("faults.io:elsewhere", 8, 400),
    "full disk": ("faults.space:full", 5, 20),
}
