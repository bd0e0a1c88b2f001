"""Patches between JSON documents."""

from .delta import diff
from .errors import PatchError, PointerError
from .patch import apply
from .pointer import get

__all__ = ["PatchError", "PointerError", "apply", "diff", "get"]
