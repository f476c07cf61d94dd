"""An embedding of patches by three convolutions without overlap (MobileCLIP-B, Vasu et al. 2024)."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..shapes import Video
from .activations import ACTIVATIONS
from .conv import ConvNorm
from .patches import normalise_pixels, pixel_statistics

_CELL, _PATCH = 4, 16


class ConvPatchEmbedding(nnx.Module):
    """Patches of 4 x 4 pixels, 2 x 2 of those, and 2 x 2 of those again.

    BatchNorm and exact GELU follow the first two convolutions.
    """

    def __init__(
        self,
        stem: Sequence[int],
        *,
        patch: int,
        width: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        bias: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the layer.

        Args:
          stem: channels of the first two convolutions.
          patch: 16.
          width: D.
          pixel_mean: subtracted from each channel of pixels scaled to 0..1.
          pixel_std: divides each channel.
          bias: the last convolution has a bias.
          dtype: compute dtype.
          rngs: source of the initial values.

        Raises:
          UserError: another patch, or another number of widths.
        """
        if patch != _PATCH or len(stem) != 2:
            raise UserError(
                f"config.model.video.image.patch_stem={list(stem)} must be two widths, with patch={_PATCH}; got "
                f"patch={patch}"
            )
        self.pixel_mean, self.pixel_std = pixel_statistics(mean=pixel_mean, std=pixel_std)
        self.dtype = dtype
        cells = partial(ConvNorm, padding=(0, 0), activation=ACTIVATIONS["gelu_exact"], dtype=dtype, rngs=rngs)
        self.first = cells(3, stem[0], kernel=(_CELL, _CELL), stride=_CELL)
        self.second = cells(stem[0], stem[1], kernel=(2, 2), stride=2)
        last = {"kernel": (2, 2), "stride": 2, "padding": (0, 0), "norm": False, "activation": None}
        self.out = ConvNorm(stem[1], width, **last, bias=bias, dtype=dtype, rngs=rngs)

    def __call__(self, video: Video) -> Float[Array, "B T N D"]:
        """Embed uint8 RGB 0..255, whose sides 16 divides."""
        times = video.shape[1]
        x = normalise_pixels(rearrange(video, "b t h w c -> (b t) h w c"), mean=self.pixel_mean, std=self.pixel_std)
        x = self.out(self.second(self.first(x.astype(self.dtype))))
        return rearrange(x, "(b t) h w d -> b t (h w) d", t=times)
