"""Helpers that tests share. docs/testing.md says which one to use for what."""
