"""A cache with a limited weight that forgets what was used longest ago."""

from collections import OrderedDict


class WeightedLRU:
    """A mapping that keeps the sum of the weights of its values within *capacity*."""

    def __init__(self, capacity, weigh=len, on_evict=None):
        self.capacity = capacity
        self.weight = 0
        self._weigh = weigh
        self._on_evict = on_evict
        self._entries = OrderedDict()  # the least recently used first

    def __len__(self):
        return len(self._entries)

    def __contains__(self, key):
        return key in self._entries

    def keys(self):
        """All keys, the least recently used first."""
        return list(self._entries)

    def get(self, key, default=None):
        """The value of *key*, which counts as a use of it."""
        return self._entries.get(key, default)

    def put(self, key, value):
        """Keep *value*, at the expense of what was used longest ago."""
        weight = self._weigh(value)
        while self._entries and self.weight + weight > self.capacity:
            self._evict()
        self._entries[key] = value
        self.weight += weight

    def discard(self, key):
        """Forget *key* if it is there."""
        if key in self._entries:
            self.weight -= self._weigh(self._entries.pop(key))

    def _evict(self):
        key, value = self._entries.popitem(last=False)
        self.weight -= self._weigh(value)
        if self._on_evict is not None:
            self._on_evict(key, value)
