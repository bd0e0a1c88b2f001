"""Statistics of the last readings."""

from collections import deque

from .moments import mean_of, stdev_of, variance_of


class SlidingWindow:
    """Takes readings one by one and forgets all but the last *size*."""

    def __init__(self, size):
        if size < 1:
            raise ValueError("a window needs room for one reading")
        self._size = size
        self._readings = deque()
        self._total = 0.0
        self._squares = 0.0

    def add(self, value):
        """Take one reading."""
        self._readings.append(value)
        self._total += value
        self._squares += value * value
        if len(self._readings) > self._size:
            oldest = self._readings.popleft()
            self._total -= oldest
            self._squares -= oldest * oldest

    def extend(self, values):
        """Take several readings."""
        for value in values:
            self.add(value)

    @property
    def count(self):
        return len(self._readings)

    @property
    def mean(self):
        return mean_of(self.count, self._total)

    @property
    def variance(self):
        return variance_of(self.count, self._total, self._squares)

    @property
    def stdev(self):
        return stdev_of(self.variance)
