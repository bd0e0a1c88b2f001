"""Token buckets."""

import math
import time


class Bucket:
    """Holds up to *burst* tokens, into which *rate* tokens per second flow."""

    def __init__(self, rate, burst, clock=time.time):
        if rate <= 0 or burst <= 0:
            raise ValueError("rate and burst must be positive")
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._tokens = burst
        self._updated = clock()

    @property
    def level(self):
        """The tokens at the moment."""
        self._refill()
        return self._tokens

    def take(self, cost=1):
        """Take *cost* tokens if they are there."""
        self._refill()
        if cost > self._tokens:
            return False
        self._tokens -= cost
        return True

    def wait(self, cost=1):
        """The seconds until *cost* tokens are there."""
        if cost > self.burst:
            return math.inf
        return max(0.0, math.ceil(cost - self._tokens) / self.rate)

    def _refill(self):
        now = self._clock()
        earned = int((now - self._updated) * self.rate)
        self._tokens = min(self.burst, self._tokens + earned)
        self._updated = now
