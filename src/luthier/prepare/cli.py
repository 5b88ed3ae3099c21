"""`luthier data VERB …`: which module does what. No logic and no heavy import lives here."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence

from luthier.errors import UsageError

VERBS = {
    "show": "luthier.prepare.show:main",
    "check": "luthier.prepare.check:main",
    "clean": "luthier.prepare.clean:main",
    "split": "luthier.prepare.divide:main",
    "convert": "luthier.prepare.convert:main",
}
"""Verb -> "module:function" of a function(words) -> exit status; the module's USAGE is the verb's help."""

USAGE = """usage: luthier data VERB FILE|DATASET ...

  show     what the model would read, token by token: trained, masked, cut
  check    what is wrong with the data, how bad it is, and the command that mends it
  clean    a cleaned copy, and a ledger of every row removed or changed
  split    train and evaluation parts without leakage between them
  convert  another format: alpaca, sharegpt, OpenAI messages, CSV, XLSX

`luthier data VERB --help` explains one. No verb changes the file that it reads."""


def main(args: Sequence[str]) -> int:
    """Run `luthier data ARGS`; returns the exit code. Raises UsageError for a verb that is not there."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if args else 2
    verb, words = args[0], list(args[1:])
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1, 0.4)
        hint = f"luthier data {near[0]} FILE" if near else f"one of {', '.join(VERBS)}"
        raise UsageError(f"there is no `data {verb}` -> {hint}")
    module, function = VERBS[verb].split(":")
    handler = importlib.import_module(module)
    if "--help" in words or "-h" in words:
        print(handler.USAGE)
        return 0
    return int(getattr(handler, function)(words))
