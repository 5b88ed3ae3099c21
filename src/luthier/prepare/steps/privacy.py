"""Anonymisation of personal data."""

from __future__ import annotations

from collections.abc import Collection

from luthier.errors import UsageError
from luthier.prepare import pii
from luthier.prepare.steps import Outcome, outcome


def pii_anonymization(
    text: str,
    mode: str = "mask",
    key: str = "",
    kinds: Collection[str] = pii.KINDS,
    also: pii.Finder | None = None,
) -> Outcome:
    """Masks personal data and secrets ([EMAIL]), or with mode="fake" puts consistent fake values in their
    place.

    Pitfall: too much, too little, new bias. Too much: every kind needs its checksum, prefix or name, so order
    numbers and versions stay. Too little: names need a model, which `also` may bring; look at a sample. New
    bias: a model trained on masks writes masks, so answers that people will read are better with "fake",
    which keeps the shape of the text. `key` makes fakes consistent within a data set; it is a secret, because
    whoever has it can turn them back. Raises UsageError for an unknown mode, and for fakes without a key.
    """
    if mode == "mask":
        return outcome(text, pii.mask(text, kinds, also))
    if mode != "fake":
        raise UsageError(f"pii_anonymization: no mode {mode!r} -> mask or fake")
    if not key:
        raise UsageError("pii_anonymization: fake values need a key -> key=<a long secret word>")
    return outcome(text, pii.pseudonymise(text, key, kinds, also))
