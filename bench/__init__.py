"""Benchmarks of every part, and comparisons with other libraries."""
