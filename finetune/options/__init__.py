"""`config.task` of tasks with many options."""
