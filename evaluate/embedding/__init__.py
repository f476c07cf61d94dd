"""Clips and texts of a split become embeddings, which keep what a report says of them."""
