"""The index folder: what is in it, and how it is made."""
