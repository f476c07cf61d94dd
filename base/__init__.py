"""Foundations without jax or tensorflow: errors, config sections, the command-line parser, config loading."""
