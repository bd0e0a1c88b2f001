"""Several log files at once."""

import heapq
from itertools import islice

from .reading import open_text, records


def merge(paths, opener=open_text):
    """The records of all files, in order of time."""
    sources = [records(path, opener) for path in paths]
    return heapq.merge(*sources, key=lambda record: record.time)


def between(paths, start, end, opener=open_text):
    """The records from *start* on that are earlier than *end*."""
    for record in merge(paths, opener):
        if record.time >= end:
            break
        if record.time >= start:
            yield record


def first(paths, count, opener=open_text):
    """The first *count* records."""
    return list(islice(merge(paths, opener), count))
