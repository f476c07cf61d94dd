"""One step: its objective, the state that it changes, and its compiled program."""
