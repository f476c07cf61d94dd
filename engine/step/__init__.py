"""One step: what it is told (an Objective), what it changes (the state), and its compiled program."""
