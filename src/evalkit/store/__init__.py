"""The run directory: what was asked, and every result, on disk."""
