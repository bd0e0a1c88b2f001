"""Limits for many accounts."""

import time

from .bucket import Bucket

ANY = "*"
IDLE = 60  # seconds after which a bucket is not worth keeping


class Limiter:
    """Limits by operation, for each account on its own."""

    def __init__(self, limits, clock=time.time):
        self._limits = dict(limits)
        self._clock = clock
        self._buckets = {}
        self._last_used = {}

    def __len__(self):
        return len(self._buckets)

    def allow(self, account, operation, cost=1):
        """Whether *account* may do *operation* now; if so, it counts."""
        return all(bucket.take(cost) for bucket in self._concerned(account, operation))

    def retry_after(self, account, operation, cost=1):
        """The seconds until *account* may do *operation*."""
        return max((bucket.wait(cost) for bucket in self._concerned(account, operation)), default=0.0)

    def purge(self):
        """Forget buckets that are not used any more; how many."""
        now = self._clock()
        idle = [key for key, used in self._last_used.items() if now - used >= IDLE]
        for key in idle:
            del self._buckets[key], self._last_used[key]
        return len(idle)

    def _concerned(self, account, operation):
        """The buckets that an operation of an account takes from."""
        for name in dict.fromkeys((ANY, operation)):
            if name not in self._limits:
                continue
            key = (account, name)
            if key not in self._buckets:
                rate, burst = self._limits[name]
                self._buckets[key] = Bucket(rate, burst, self._clock)
            self._last_used[key] = self._clock()
            yield self._buckets[key]
