"""Evaluate coding agents on containerised benchmarks."""

__version__ = "0.1.0"
