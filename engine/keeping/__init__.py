"""Checkpoints: writing them, keeping the right ones, and reading them into the same or another model."""
