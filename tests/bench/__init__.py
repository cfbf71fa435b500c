"""Measures the running program beside the physical limit and its peers: ``python -m tests.bench --help``."""
