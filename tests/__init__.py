"""The tests of evalkit. They mirror its source; what they share is in `tests.support`."""
