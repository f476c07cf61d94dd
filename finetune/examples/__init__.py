"""The clips of a task with their labels, targets, queries and annotations."""
