"""Names of labels."""

from __future__ import annotations

from collections.abc import Mapping

from luthier.errors import UsageError
from luthier.prepare.span import whole
from luthier.prepare.steps import Outcome, outcome


def label_names(text: str, renames: str | Mapping[str, str] = "") -> Outcome:
    """Replaces a text that is, to the letter, a key of `renames` by its value: {"Sports": "体育"}.

    `luthier data check` writes the command with the renames that it suggests; the roles should be those of
    the answers (label_names.roles=assistant).

    Pitfall: merging labels that only look alike. "C" and "C++" differ in punctuation, "体育" and "教育" in
    one character. So nothing is guessed here: what is renamed stands in the command, where a person can read
    and change it, and every other text stays. Raises UsageError for a new name that is empty.
    """
    if isinstance(renames, str):
        if renames:
            raise UsageError(f'label_names: {renames!r} is no table -> renames={{"Sports": "体育"}}')
        return Outcome(text)
    for key, value in renames.items():
        if not (isinstance(key, str) and isinstance(value, str) and value.strip()):
            raise UsageError(f'label_names: {key!r} has no new name -> {{"{key}": "LABEL"}}, or leave it out')
    new = renames.get(text, text)
    return outcome(new, (new, whole("label", text, new)))
