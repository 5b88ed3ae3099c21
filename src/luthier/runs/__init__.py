"""The run directory: written whole or not at all, described by itself, reproducible."""

from luthier.runs.run import Run

__all__ = ["Run"]
