"""Preprocessing declared as a string."""
