"""One command per file; the only place that wires parts together."""
