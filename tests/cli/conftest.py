"""Tests here type at the desk."""

from desk import desk, luthier, shop

__all__ = ["desk", "luthier", "shop"]
