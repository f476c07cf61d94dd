"""The loop, and all that acts around and between its steps."""
