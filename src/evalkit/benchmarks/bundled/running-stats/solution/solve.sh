#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

cat >gauge/moments.py <<'END'
"""Means and variances without cancellation.

Deviations from the mean are summed up rather than squares of the readings: the difference of two large,
nearly equal sums has no digits left.
"""

import math


def mean_of(readings):
    """The mean of a sequence of readings."""
    return math.fsum(readings) / len(readings) if readings else None


def deviations_of(readings):
    """The sum of the squared deviations of a sequence of readings from their mean."""
    mean = mean_of(readings)
    return math.fsum((reading - mean) ** 2 for reading in readings)


def variance_of(count, deviations):
    """The variance of *count* readings with that sum of squared deviations."""
    return deviations / (count - 1) if count > 1 else 0.0
END

replace gauge/running.py 58 59 <<'END'
        stats._mean = data["mean"]
        stats._deviations = data["deviations"]
END

replace gauge/running.py 49 50 <<'END'
            "mean": self._mean,
            "deviations": self._deviations,
END

replace gauge/running.py 41 42 <<'END'
        if merged.count:
            apart = other._mean - self._mean
            if self.count >= other.count:
                merged._mean = self._mean + apart * other.count / merged.count
            else:
                merged._mean = other._mean - apart * self.count / merged.count
            merged._deviations = (
                self._deviations + other._deviations + apart * apart * self.count / merged.count * other.count
            )
END

replace gauge/running.py 35 35 <<'END'
        return math.sqrt(self.variance)
END

replace gauge/running.py 31 31 <<'END'
        return variance_of(self.count, self._deviations)
END

replace gauge/running.py 27 27 <<'END'
        return self._mean if self.count else None
END

replace gauge/running.py 17 18 <<'END'
        before = value - self._mean
        self._mean += before / self.count
        self._deviations += before * (value - self._mean)
END

replace gauge/running.py 11 12 <<'END'
        self._mean = 0.0
        self._deviations = 0.0  # the sum of the squared deviations from the mean
END

replace gauge/running.py 3 3 <<'END'
import math

from .moments import variance_of
END

cat >gauge/window.py <<'END'
"""Statistics of the last readings."""

import math
from collections import deque

from .moments import deviations_of, mean_of, variance_of


class SlidingWindow:
    """Takes readings one by one and forgets all but the last *size*.

    Everything is computed from the readings in the window when it is asked for: what is added up and
    subtracted again leaves traces.
    """

    def __init__(self, size):
        if size < 1:
            raise ValueError("a window needs room for one reading")
        self._readings = deque(maxlen=size)

    def add(self, value):
        """Take one reading."""
        self._readings.append(value)

    def extend(self, values):
        """Take several readings."""
        self._readings.extend(values)

    @property
    def count(self):
        return len(self._readings)

    @property
    def mean(self):
        return mean_of(self._readings)

    @property
    def variance(self):
        return variance_of(self.count, deviations_of(self._readings)) if self.count else 0.0

    @property
    def stdev(self):
        return math.sqrt(self.variance)
END
