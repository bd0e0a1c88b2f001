"""SWE-bench and the benchmarks built on its rows."""
