"""The prices of a shop."""

import time

from .cache import Cache


class PriceBook:
    """Reads prices from a store, which is slow, and remembers them for a while.

    The store has `read(name)`, `read_many(names)` (a dictionary) and `write(name, price)`.
    """

    def __init__(self, store, ttl, clock=time.monotonic):
        self._store = store
        self._cache = Cache(ttl, clock)

    def price(self, name):
        """The price of one thing."""
        return self._cache.get(name, lambda: self._store.read(name))

    def prices(self, names):
        """The prices of several things, by name."""
        return self._cache.get_many(names, self._store.read_many)

    def update(self, name, price):
        """Change a price."""
        self._cache.invalidate(name)
        self._store.write(name, price)

    def reload(self, prefix=""):
        """Read all prices of names with this prefix anew when they are asked for."""
        self._cache.invalidate_where(lambda name: name.startswith(prefix))
