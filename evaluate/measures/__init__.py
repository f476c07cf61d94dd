"""Measures: pure NumPy functions from scores, predictions and truth to figures. No model, no file, no device."""
