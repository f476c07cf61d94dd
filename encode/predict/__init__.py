"""Models with heads applied to files; `load` opens any model."""
