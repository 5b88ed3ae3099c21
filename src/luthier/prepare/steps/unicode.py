"""Unicode normalisation and the repair of wrongly decoded text."""

from __future__ import annotations

from luthier.prepare import mojibake, normal
from luthier.prepare.steps import Outcome, outcome


def unicode_normalization(text: str, **switches: bool) -> Outcome:
    """One form for characters that look the same: NFC and the classes of `luthier.prepare.normal`.

    Pitfall: the wrong form. NFKC turns Chinese commas into ASCII ones and x² into x2; NFD takes é apart,
    which tokenizers have not seen. So the form is NFC, and what goes further is switched on class by class
    (`width=False`, `compatibility=True`, …).
    """
    return outcome(text, normal.normalise(text, **switches))


def encoding_repair(text: str, drop_lost: bool = False) -> Outcome:
    """Repairs text that was decoded wrongly, where that is certain.

    Pitfall: "repairing" what was right. Only bytes that decode strictly into another encoding are changed,
    and quotation marks and widths are left alone. What is lost (U+FFFD, 锟斤拷) cannot be repaired: it is
    suggested to the reader, or, with `drop_lost`, the text goes.
    """
    lost = tuple(found for found in mojibake.find(text) if found.kind == "lost")
    if lost and drop_lost:
        return Outcome(None, reason=f"lost characters x {len(lost)}")
    made = outcome(text, mojibake.repair(text))
    return Outcome(made.text, made.changes, made.reason, lost)
