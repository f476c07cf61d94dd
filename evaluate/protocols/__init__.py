"""What is measured, and how: retrieval, order twins, minimal pairs."""
