"""The sides of comparisons, each a program of its own or a bare loop."""
