"""What becomes of a gradient: optimizers, schedules, and the rates of single parameters."""
