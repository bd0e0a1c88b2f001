"""Settings in layers: defaults, files, command line, each over the one before."""

from .defaults import DEFAULTS
from .settings import Settings

__all__ = ["DEFAULTS", "Settings"]
