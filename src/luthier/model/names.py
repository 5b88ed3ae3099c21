"""What to say when the model has no module of the name that the user wrote."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def not_found(key: str, name: str, known: Collection[str]) -> str:
    """One sentence: which name of which key the model lacks, the nearest one, and all there are."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else "."
    return f'{key}: the model has no module "{name}"{hint} It has: {", ".join(sorted(known))}'
