"""What tasks share: the interface, objectives, and tasks with labels or along time."""
