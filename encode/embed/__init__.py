"""Dual towers applied to files, strings and arrays."""
