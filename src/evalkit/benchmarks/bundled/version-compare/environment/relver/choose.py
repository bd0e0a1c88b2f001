"""Which of the published versions to offer."""

from .version import Version


def newest(texts, allow_prerelease=False):
    """The newest of the versions in *texts*, or None."""
    best = None
    for text in texts:
        version = Version(text)
        if best is None or version >= best:
            best = version
    return str(best) if best else None
