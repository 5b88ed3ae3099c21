"""Configuration: every key once, read from files and the command line, checked, and fitted to the machine."""

from luthier.config.machine import Machine
from luthier.config.schema import KEYS, Config, Key

__all__ = ["KEYS", "Config", "Key", "Machine"]
