"""Many log files as one stream."""

from .reading import LogError, Record, open_text, records
from .streams import between, first, merge

__all__ = ["LogError", "Record", "between", "first", "merge", "open_text", "records"]
