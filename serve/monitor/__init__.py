"""Has the data moved away from what a model was checked on? Drift of embeddings and queries, and canary recall."""
