"""The mathematics of a rectified flow: its path, its loss, its solvers, and edits along it; nothing about networks."""
