"""Public weights in: one table per family says which of its tensors become which of our parameters."""
