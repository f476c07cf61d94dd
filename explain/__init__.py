"""Explanations: which frames, patches, sounds and words carry a similarity or a prediction, and how far that holds."""
