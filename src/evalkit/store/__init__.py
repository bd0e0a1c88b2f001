"""Runs on disk: the manifest and every result."""
