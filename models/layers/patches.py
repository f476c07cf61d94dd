"""From pixels to tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, UInt8

from ...base.errors import UserError
from ..shapes import Video
from .activations import ACTIVATIONS, GATED, check_activation
from .dense import linear
from .norm import LayerNorm
from .oriented_gradients import frames_last, mean_colours, oriented_gradients


class PatchLayout(NamedTuple):
    """What the patches of a video tower are that can encode some of them without the others.

    Attributes:
      patch: side P, pixels.
      tubelet: frames of a patch.
      width: of the tokens that the tower makes of them.
    """

    patch: int
    tubelet: int
    width: int

    @property
    def pixels(self) -> int:
        """Numbers F of a patch: its pixels in all frames and colours."""
        return self.tubelet * self.patch**2 * 3

    def cut(self, video: Video) -> UInt8[Array, "B T N F"]:
        """Cut clips into patches, row by row of the frames; `tubelet` divides T and `patch` the sides."""
        cut = "b (t u) (h p) (w q) c -> b t (h w) (u p q c)"
        return rearrange(video, cut, u=self.tubelet, p=self.patch, q=self.patch)


class PatchEmbedding(nnx.Module):
    """Embed tubelets of `tubelet` frames x `patch` x `patch` pixels (ViT, Dosovitskiy et al. 2021; ViViT).

    With `stem`, each tubelet is first cut into cells of `stem` x `stem` pixels, which one shared non-linear map embeds
    before the tubelet's own linear map. Such features do not depend on where in the patch an edge lies; small towers
    learn much faster with them (early convolutions, Xiao et al. 2021, here without overlap).
    """

    def __init__(
        self,
        *,
        patch: int,
        tubelet: int,
        stem: int,
        width: int,
        activation: str,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
        gradients: int = 0,
        bias: bool = True,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the layer.

        Args:
          patch: patch side P, pixels.
          tubelet: frames per token.
          stem: side of the cells, pixels, a divisor of `patch`; 0 = none.
          width: D.
          activation: after the stem; of a gated MLP's name, the function of its gate.
          pixel_mean: subtracted from each channel of pixels scaled to 0..1.
          pixel_std: divides each channel; by default pixels become -1..1.
          gradients: orientations of the histograms of each cell of `stem` pixels, see `oriented_gradients`; 0 = none.
          bias: the last linear map has a bias.
          dtype: compute dtype.
          rngs: source of the initial values.

        Raises:
          UserError: sizes that do not divide, or a mean or deviation that normalises nothing.
        """
        if stem and patch % stem:
            raise UserError(f"config.model.video.patch={patch} must be a multiple of stem={stem} (stem=0: none)")
        if gradients < 0 or (gradients and not stem):
            raise UserError(
                f"config.model.video.gradients={gradients} is the number of orientations in each cell of stem={stem} "
                "pixels; set it to 0 or more, and stem to the side of a cell, such as 4"
            )
        check_activation(activation)
        self.pixel_mean, self.pixel_std = pixel_statistics(mean=pixel_mean, std=pixel_std)
        self.patch, self.tubelet, self.dtype = patch, tubelet, dtype
        self.activation = GATED.get(activation, activation)
        self.cell = stem or patch
        self.gradients, learned = gradients, stem > 0 and not gradients
        pixels, described = tubelet * self.cell**2 * 3, tubelet * (3 + gradients)
        self.stem = linear(pixels, width // 2, dtype=dtype, rngs=rngs) if learned else None
        self.norm = LayerNorm(width // 2, dtype=dtype, rngs=rngs) if learned else None
        of_cell = width // 2 if learned else described if gradients else pixels
        self.out = linear((patch // self.cell) ** 2 * of_cell, width, bias=bias, dtype=dtype, rngs=rngs)

    def __call__(self, video: Video) -> Float[Array, "B T N D"]:
        """Embed uint8 RGB 0..255; T is the number of tubelets in time."""
        if self.gradients:
            return self.out(self._described(video).astype(self.dtype))
        x = rearrange(
            video,
            "b (t u) (h i p) (w j q) c -> b t (h w) (i j) (u p q c)",
            u=self.tubelet,
            i=self.patch // self.cell,
            j=self.patch // self.cell,
            p=self.cell,
            q=self.cell,
        )
        x = normalise_pixels(x, mean=self.pixel_mean, std=self.pixel_std).astype(self.dtype)
        if self.stem is not None and self.norm is not None:
            x = ACTIVATIONS[self.activation](self.norm(self.stem(x)))  # [B,T,N,cells,D/2]
        return self.out(rearrange(x, "b t n k d -> b t n (k d)"))

    def _described(self, video: Video) -> Float[Array, "B T N F"]:
        """Describe the cells of each tubelet: mean colour, normalised, and oriented gradients; float32."""
        planes = frames_last(video)
        colours = jnp.moveaxis(mean_colours(planes, cell=self.cell), 2, -1)
        colours = jnp.moveaxis(normalise_pixels(colours, mean=self.pixel_mean, std=self.pixel_std), -1, 2)
        contours = oriented_gradients(planes, cell=self.cell, orientations=self.gradients)
        cells = jax.lax.optimization_barrier(jnp.concatenate([colours, contours], axis=2))  # [h,w,F,M]
        side, cut = self.patch // self.cell, "(h i) (w j) f (b t u) -> b t (h w) (i j u f)"
        return rearrange(cells, cut, i=side, j=side, u=self.tubelet, b=video.shape[0])


def normalise_pixels(
    pixels: UInt8[Array, "*B C"] | Float[Array, "*B C"], *, mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "*B C"]:
    """Scale pixels to 0..1, subtract the mean and divide by the deviation, in float32.

    The compute dtype has no place in it: in bfloat16 pixels above 127 would lose a bit before anything is subtracted.
    The mean is subtracted first, where the difference of two numbers of one size is exact, so that greys near the mean
    keep their relative precision.

    Args:
      pixels: uint8 or float32 0..255; the last axis holds channels in turn, once (RGB) or several times (RGBRGB...).
      mean: of each channel, 0..1.
      std: of each channel.

    Returns:
      float32 of the same shape.
    """
    times = pixels.shape[-1] // len(mean)
    middle = np.tile(255 * np.asarray(mean, np.float64), times).astype(np.float32)
    factor = np.tile(1 / (255 * np.asarray(std, np.float64)), times).astype(np.float32)
    ones = (1,) * (pixels.ndim - 1)
    return (pixels.astype(jnp.float32) - middle.reshape(*ones, -1)) * factor.reshape(*ones, -1)


def pixel_statistics(*, mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of R, G and B, scale 0..1.

    Raises:
      UserError: other than three finite numbers, or a deviation that is not above 0.
    """
    found = _three(mean, field="pixel_mean"), _three(std, field="pixel_std")
    if min(found[1]) <= 0:
        raise UserError(f"pixel_std must be above 0 in each channel, got {found[1]}")
    return found


def _three(values: Sequence[float], *, field: str) -> tuple[float, ...]:
    """Return one finite number for each of R, G and B, or raise UserError."""
    found = tuple(float(value) for value in values)
    if len(found) != 3 or not np.isfinite(found).all():
        raise UserError(f"{field} must be three finite numbers (red, green, blue; scale 0..1), got {list(values)}")
    return found
