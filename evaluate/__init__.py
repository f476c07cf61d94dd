"""Zero-shot retrieval: metrics, protocols, reports."""
