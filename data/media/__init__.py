"""Media files to frames, times and sound (PyAV), in processes of their own."""
