"""Files to batches: manifests, decoding, records, order, preprocessing, tokenizers (never jax)."""
