"""Rows of inputs on the devices of a mesh."""
