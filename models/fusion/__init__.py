"""Fusion of a clip's modalities into one vector and one sequence of tokens, behind one interface."""
