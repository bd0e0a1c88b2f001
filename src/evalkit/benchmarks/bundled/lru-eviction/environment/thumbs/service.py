"""What the web pages ask for thumbnails."""

from .lru import WeightedLRU


class Thumbnails:
    """Renders thumbnails with *render* and keeps them while there is room."""

    def __init__(self, render, capacity=64 * 1024 * 1024):
        self._render = render
        self._cache = WeightedLRU(capacity)

    def thumbnail(self, name, size):
        """The bytes of the picture *name* scaled to *size*, a (width, height) pair."""
        key = (name, size)
        if key not in self._cache:
            self._cache.put(key, self._render(name, size))
        return self._cache.get(key)
