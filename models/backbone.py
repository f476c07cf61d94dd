"""Towers without a joint space: an image, video, text or sound encoder that runs and dual towers begin with."""

from typing import Any

from flax import nnx


class Backbone(nnx.Module):
    """One or several towers side by side, under the names that they have in a `models.dual.DualTower`."""

    def __init__(self, **towers: Any):
        """Hold the towers.

        Args:
          **towers: "video", "text", "audio" -> a tower of `models/towers`.
        """
        for side, tower in towers.items():
            setattr(self, side, tower)
