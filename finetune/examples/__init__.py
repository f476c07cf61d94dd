"""Which clips a task works with, and what it is told about them: labels, targets, queries, annotators."""
