"""Layers shared by the towers."""
