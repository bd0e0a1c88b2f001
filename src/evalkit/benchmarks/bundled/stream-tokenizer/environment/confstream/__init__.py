"""Settings that are read while they arrive."""

from .errors import SettingsError
from .reader import load
from .tokenizer import Token, Tokenizer

__all__ = ["SettingsError", "Token", "Tokenizer", "load"]
