"""What other libraries say about themselves while they work, and no user can act on, is not printed."""

from __future__ import annotations

import functools
import logging
import sys


@functools.cache
def libraries() -> None:
    """Switch off transformers' bars (a local file is read in an instant) and bitsandbytes' advertisements.

    Bars of downloads stay where somebody can see them move; errors and the other warnings stay everywhere.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers

    downloads = not are_progress_bars_disabled() and sys.stderr.isatty()
    transformers.disable_progress_bar()  # type: ignore[no-untyped-call]
    if downloads:
        enable_progress_bars()
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
