"""Downstream tasks on a pretrained checkpoint."""
