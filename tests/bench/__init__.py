"""Benchmarks against the tools that people use now; see `python -m tests.bench --help`."""
