"""The table of all bad files: "kind: what is odd about it" -> how it is written and what must come of it."""

from __future__ import annotations

from bad_files import columnar, encodings, infos, jsons, packs, places, rows, sheets, sizes
from bad_files.case import Case

KINDS: dict[str, dict[str, Case]] = {
    "encoding": encodings.CASES,
    "json": jsons.CASES,
    "sheet": sheets.CASES,
    "columns": columnar.CASES,
    "packed": packs.CASES,
    "size": sizes.CASES,
    "place": places.CASES,
    "info": infos.CASES,
    "row": rows.CASES,
}
CASES: dict[str, Case] = {
    f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()
}
