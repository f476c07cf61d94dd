"""Clips to records on disk: `prepare` and what stands around it."""
