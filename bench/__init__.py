"""Benchmarks that anyone can run; see README.rst."""
