"""Results as a page, a table, pictures."""
