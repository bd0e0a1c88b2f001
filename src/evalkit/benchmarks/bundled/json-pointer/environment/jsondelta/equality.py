"""When two values are the same in JSON."""


def same(a, b):
    """Whether *a* and *b* are the same JSON value."""
    return a == b
