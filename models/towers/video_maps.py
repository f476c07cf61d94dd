"""What towers of 3-D convolutions share: from feature maps over time and space to tokens and vectors."""

from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ..layers.draws import RowKeys
from ..shapes import FrameFeatures, Video

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
        del keys, drop_patches
        return rearrange(self._maps(video), "b t h w d -> b t (h w) d"), None

    def features(self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True) -> FrameFeatures:
        """Return the mean over space for each of T/8 steps in time, float32."""
        del keys, drop_patches
        return jnp.mean(self._maps(video).astype(jnp.float32), axis=(2, 3))

    def __call__(self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True) -> Float[Array, "B D"]:
        """Encode clips into float32 vectors.

        Args:
          video: clips, uint8 RGB 0..255.
          keys: not used.
          drop_patches: not used.

        Raises:
          UserError: clips of another shape or dtype, or sizes that do not divide.
        """
        return jnp.mean(self.features(video, keys=keys, drop_patches=drop_patches), axis=1)

    def _maps(self, video: Video) -> Any:
        """Return the last feature maps `[B,T,H,W,D]`; a subclass has them."""
        raise NotImplementedError
