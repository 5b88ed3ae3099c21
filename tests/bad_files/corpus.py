"""The table of all bad files: name -> how it is written and what must come of it."""

from __future__ import annotations

from bad_files import encodings, jsons
from bad_files.case import Case

CASES: dict[str, Case] = {}
for _module in (encodings, jsons):
    _double = CASES.keys() & _module.CASES.keys()
    if _double:
        raise ValueError(f"cases named twice: {sorted(_double)}")
    CASES |= _module.CASES
