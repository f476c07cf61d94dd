"""Encode files and strings with a checkpoint."""
