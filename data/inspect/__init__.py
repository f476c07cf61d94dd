"""What is in a prepared folder: figures, a page, and whether its records are whole."""
