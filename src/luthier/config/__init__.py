"""Configuration: every key once, read from files and the command line, checked, and fitted to the machine."""

from luthier.config.check import check, load
from luthier.config.machine import Machine
from luthier.config.read import Loaded, read
from luthier.config.resolve import resolve
from luthier.config.schema import KEYS, Config, Key

__all__ = ["KEYS", "Config", "Key", "Loaded", "Machine", "check", "load", "read", "resolve"]
