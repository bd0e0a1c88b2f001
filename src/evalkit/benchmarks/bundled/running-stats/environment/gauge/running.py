"""Statistics of all readings so far."""

from .moments import mean_of, stdev_of, variance_of


class RunningStats:
    """Takes readings one by one and keeps none of them."""

    def __init__(self):
        self.count = 0
        self._total = 0.0
        self._squares = 0.0

    def add(self, value):
        """Take one reading."""
        self.count += 1
        self._total += value
        self._squares += value * value

    def extend(self, values):
        """Take several readings."""
        for value in values:
            self.add(value)

    @property
    def mean(self):
        return mean_of(self.count, self._total)

    @property
    def variance(self):
        return variance_of(self.count, self._total, self._squares)

    @property
    def stdev(self):
        return stdev_of(self.variance)

    def merge(self, other):
        """The statistics of the readings of both."""
        merged = RunningStats()
        merged.count = self.count + other.count
        merged._total = self._total + other._total
        merged._squares = self._squares + other._squares
        return merged

    def to_dict(self):
        """A snapshot for `from_dict`."""
        return {
            "count": self.count,
            "total": self._total,
            "squares": self._squares,
        }

    @classmethod
    def from_dict(cls, data):
        """What a snapshot was taken of."""
        stats = cls()
        stats.count = data["count"]
        stats._total = data["total"]
        stats._squares = data["squares"]
        return stats
