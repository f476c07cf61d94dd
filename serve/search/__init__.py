"""Queries over an index, and what becomes of the moments that they find."""
