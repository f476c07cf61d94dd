"""The batches of a task: from records, from features of a frozen tower, or window by window."""
