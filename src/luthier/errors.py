"""Exceptions that a user may see. Each says what is wrong, where, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterable

from luthier.redact import redact
from luthier.types import Problem


class LuthierError(Exception):
    """Base of every error meant for the user; the command line prints it without a traceback.

    `exit_code` is the process status: 2 for a bad request, 1 for a failure while working.
    """

    exit_code = 1

    def __str__(self) -> str:
        """The message without secrets, which other libraries' messages may have brought in."""
        return redact(super().__str__())


class UsageError(LuthierError):
    """The request itself is wrong (unknown verb, unknown key, missing argument)."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more problems of a configuration, all of them at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class DataError(LuthierError):
    """A data file, data set or row cannot be used."""


class TemplateError(LuthierError):
    """A chat template is unknown, broken, or cannot express the conversation."""


class ModelError(LuthierError):
    """A model, adapter or tokenizer cannot be loaded, attached, merged or saved."""


class RunError(LuthierError):
    """A run directory is in use, damaged, of another run, or cannot be written."""


class TrainError(LuthierError):
    """Training stopped: a non-finite loss or gradient, or an example that does not fit."""


class ExportError(LuthierError):
    """What was written differs from what was trained."""


class MissingPackage(LuthierError):
    """An optional dependency is not installed; the message names its `pip install`."""

    def __init__(self, package: str, why: str, extra: str) -> None:
        super().__init__(f'{why} needs the package "{package}": pip install "luthier[{extra}]"')
        self.package, self.extra = package, extra
