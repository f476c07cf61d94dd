"""What a model is: its spec, the one place where it is built, and bundles on disk."""
