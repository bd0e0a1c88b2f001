"""From sums to statistics."""

import math


def mean_of(count, total):
    """The mean of *count* readings with the sum *total*."""
    return total / count if count else None


def variance_of(count, total, squares):
    """The variance of *count* readings with the sum *total* and the sum of the squares *squares*."""
    if count < 2:
        return 0.0
    return (squares - total * total / count) / (count - 1)


def stdev_of(variance):
    """The standard deviation for a variance."""
    return math.sqrt(variance)
