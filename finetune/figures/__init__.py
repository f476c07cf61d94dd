"""Figures of a task on a split, beside baselines."""
