"""The benchmarks: they load instances, and collect and grade answers."""
