"""Plain text for pre-training: one column, read as it is."""

from __future__ import annotations

from luthier.data.formats.fields import Fields, text_example
from luthier.types import Example


def convert(fields: Fields) -> Example:
    """The text of the prompt column."""
    name = str(fields.name("prompt"))
    return text_example(fields.text(fields.need("prompt"), name), name, fields.source)
