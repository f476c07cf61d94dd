"""Heads on top of towers."""
