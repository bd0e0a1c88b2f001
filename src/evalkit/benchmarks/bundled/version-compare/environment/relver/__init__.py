"""Semantic versions and which one to offer."""

from .choose import newest
from .version import Version

__all__ = ["Version", "newest"]
