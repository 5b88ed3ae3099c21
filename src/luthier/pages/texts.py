"""Texts of strangers as pages show them: what nobody can see as escapes, secrets masked."""

from __future__ import annotations

import re

from luthier.redact import redact

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e007f]"
)
"""What nobody can see, or what a terminal or page would obey: control and formatting characters (those that
turn the direction of writing among them), halves of surrogate pairs; but no tabs, line feeds and joiners."""


def printable(text: str) -> str:
    """`text` with hidden characters as their escapes (\\u202e) and … in place of secrets."""
    return redact(HIDDEN.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text))
