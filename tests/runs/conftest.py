"""Tests here have runs to compare."""

from history import history

__all__ = ["history"]
