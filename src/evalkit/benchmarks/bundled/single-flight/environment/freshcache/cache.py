"""The cache."""

import threading
import time
from typing import Any, NamedTuple

from .flight import Flight


class Entry(NamedTuple):
    """A value and until when it is good."""

    value: Any
    good_until: float


class Cache:
    """Keeps values for *ttl* seconds, and has each loaded by one thread at a time."""

    def __init__(self, ttl, clock=time.monotonic):
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._entries = {}
        self._flights = {}

    def get(self, key, load):
        """The value of *key*; it is got by calling *load* if there is none."""
        now = self._clock()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and now < entry.good_until:
                return entry.value
            flight = self._flights.get(key)
            others = flight is not None
            if not others:
                flight = self._flights[key] = Flight()
        if others:
            return flight.wait()
        value = load()
        with self._lock:
            self._entries[key] = Entry(value, now + self._ttl)
            del self._flights[key]
        flight.land(value)
        return value

    def get_many(self, keys, load_many):
        """The values of *keys*; *load_many* is called with those that are not there."""
        keys = list(dict.fromkeys(keys))
        now = self._clock()
        with self._lock:
            entries = {key: self._entries[key] for key in keys if key in self._entries}
        found = {key: entry.value for key, entry in entries.items() if now < entry.good_until}
        missing = [key for key in keys if key not in found]
        if missing:
            loaded = load_many(missing)
            with self._lock:
                for key in missing:
                    found[key] = loaded[key]
                    self._entries[key] = Entry(loaded[key], now + self._ttl)
        return {key: found[key] for key in keys}

    def put(self, key, value):
        """Keep a value that is known."""
        with self._lock:
            self._entries[key] = Entry(value, self._clock() + self._ttl)

    def invalidate(self, key):
        """Forget the value of *key*."""
        with self._lock:
            self._entries.pop(key, None)

    def invalidate_where(self, predicate):
        """Forget the values of all keys for which *predicate* is true."""
        with self._lock:
            for key in [key for key in self._entries if predicate(key)]:
                del self._entries[key]

    def clear(self):
        """Forget everything."""
        with self._lock:
            self._entries.clear()
