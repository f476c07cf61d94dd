"""The verbs `encode` and `features`."""
