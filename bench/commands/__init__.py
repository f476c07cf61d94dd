"""The verbs `bench ...`."""
