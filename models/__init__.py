"""Towers, heads and their layers in Flax NNX (never data, never tensorflow)."""
