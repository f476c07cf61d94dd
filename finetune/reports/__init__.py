"""Report pages and tables on the terminal."""
