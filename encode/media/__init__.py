"""Media files to the rows of batches, whole or in windows."""
