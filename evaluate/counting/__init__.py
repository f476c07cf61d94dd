"""Counting of the candidates above a right one, in blocks of scores that are never held as a whole."""
