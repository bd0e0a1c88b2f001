"""The parts and decisions of a run, without I/O. It imports nothing of evalkit from outside this package."""
