"""Decoding of media files to frames, time stamps and sound (PyAV), in separate processes."""
