"""Experiments as values: one file per experiment, each with `get_config(arg) -> ConfigDict` and its lab record.

A recipe for training from scratch is named by the size of its towers and the clips that a run sees: `base_1b` has ViT-B
towers and sees 1.3 billion clips. `common` holds what the configs share.
"""
