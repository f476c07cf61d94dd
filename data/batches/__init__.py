"""Records to batches: the order, the draws, the tf.data graph."""
