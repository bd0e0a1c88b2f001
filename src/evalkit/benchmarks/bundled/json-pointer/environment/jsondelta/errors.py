class PointerError(LookupError):
    """A pointer that leads nowhere, or that is none."""


class PatchError(ValueError):
    """An operation that cannot be done."""
