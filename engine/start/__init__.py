"""Who takes part in a run, and whether all is well before the first step."""
