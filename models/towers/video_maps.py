"""What towers of 3-D convolutions share: from feature maps over time and space to tokens and vectors."""

from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ..layers.draws import RowKeys
from ..shapes import FrameFeatures, Video
from .outputs import VideoOutputs

Maps = Float[Array, "B T H W C"]
"""Feature maps over time and space."""


class VideoMapsTower(nnx.Module):
    """A tower whose vector of a clip is the mean of its last feature maps over time and space; nothing is random."""

    mean_of_features = True
    """The vector of a clip is the mean of its `features`."""

    def tokens(
        self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> tuple[Float[Array, "B T N D"], None]:
        """Encode clips; for the arguments see `__call__`.

        Returns:
          The places of the last feature maps, row by row, for each of their T/8 steps in time; and None.
        """
        patches = self.outputs(video, keys=keys, drop_patches=drop_patches).patches
        assert patches is not None
        return patches, None

    def features(self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True) -> FrameFeatures:
        """Return the mean over space for each of T/8 steps in time, float32."""
        return self.outputs(video, keys=keys, drop_patches=drop_patches).steps

    def outputs(self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True) -> VideoOutputs:
        """Return `__call__`, `features` and the tokens of `tokens` in one pass; for the arguments see `__call__`."""
        del keys, drop_patches
        maps = self._maps(video)
        steps = jnp.mean(maps.astype(jnp.float32), axis=(2, 3))
        return VideoOutputs(jnp.mean(steps, axis=1), steps, rearrange(maps, "b t h w d -> b t (h w) d"))

    def __call__(self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True) -> Float[Array, "B D"]:
        """Encode clips into float32 vectors.

        Args:
          video: clips, uint8 RGB 0..255.
          keys: not used.
          drop_patches: not used.

        Raises:
          UserError: clips of another shape or dtype, or sizes that do not divide.
        """
        return self.outputs(video, keys=keys, drop_patches=drop_patches).vector

    def _maps(self, video: Video) -> Any:
        """Return the last feature maps `[B,T,H,W,D]`; a subclass has them."""
        raise NotImplementedError
