"""Towers, heads and their layers in Flax NNX; they import neither data nor tensorflow."""
