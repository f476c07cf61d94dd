"""Early convolutions: a few strided ones, which overlap, in place of the patch embedding."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..shapes import Video
from .activations import ACTIVATIONS, GATED, check_activation
from .dense import linear
from .norm import LayerNorm
from .patches import normalise_pixels, pixel_statistics


class ConvStem(nnx.Module):
    """Embed tubelets by a stack of convolutions (Xiao et al. 2021, "Early convolutions help transformers see better").

    Neighbouring cells share pixels and all places share weights, so that a small tower learns what a shape looks like
    wherever it lies; a patch embedding learns it for each place in the patch. A convolution is computed as one matrix
    product of its taps, which on a CPU is the fast form, also in bfloat16. A norm and the activation stand between two
    convolutions; padding is mid-grey around the frame and zero after that.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[int]],
        *,
        tubelet: int,
        width: int,
        activation: str,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the layer.

        Args:
          layers: (kernel, stride, channels) of each convolution; kernels and strides in pixels, then in cells.
          tubelet: frames per token.
          width: D, the channels of the last convolution.
          activation: between convolutions; of a gated MLP's name, the function of its gate.
          pixel_mean: subtracted from each channel of pixels scaled to 0..1.
          pixel_std: divides each channel; by default pixels become -1..1.
          dtype: compute dtype.
          rngs: source of the initial values.

        Raises:
          UserError: layers that are no such triples, leave pixels out, or end in another width.
        """
        self.convolutions = check_layers(layers, width=width)
        check_activation(activation)
        self.pixel_mean, self.pixel_std = pixel_statistics(mean=pixel_mean, std=pixel_std)
        self.tubelet, self.dtype, self.activation = tubelet, dtype, GATED.get(activation, activation)
        given = {"dtype": dtype, "rngs": rngs}
        channels = [3 * tubelet, *(out for _, _, out in self.convolutions)]
        self.layers = nnx.List(
            [linear(k * k * c, out, **given) for (k, _, out), c in zip(self.convolutions, channels, strict=False)]
        )
        self.norms = nnx.List([LayerNorm(out, **given) for _, _, out in self.convolutions[:-1]])

    def __call__(self, video: Video) -> Float[Array, "B T N D"]:
        """Embed uint8 RGB 0..255; T is the number of tubelets in time, N the cells of the last convolution."""
        x = rearrange(video, "b (t u) h w c -> (b t) h w (u c)", u=self.tubelet)
        for number, (kernel, stride, _) in enumerate(self.convolutions):
            x = taps(x, kernel=kernel, stride=stride, padding=0 if number else 128)
            if number == 0:
                x = normalise_pixels(x, mean=self.pixel_mean, std=self.pixel_std).astype(self.dtype)
            x = self.layers[number](x)
            if number < len(self.norms):
                x = ACTIVATIONS[self.activation](self.norms[number](x))
        return rearrange(x, "(b t) h w d -> b t (h w) d", b=video.shape[0])


def check_layers(layers: Sequence[Sequence[int]], *, width: int) -> tuple[tuple[int, int, int], ...]:
    """Return `config.model.video.conv` as triples.

    Raises:
      UserError: as `ConvStem`.
    """
    field, made = "config.model.video.conv", []
    for layer in layers:
        if len(layer) != 3 or not all(isinstance(number, int) and number > 0 for number in layer):
            raise UserError(f"{field} holds triples (kernel, stride, channels) of whole numbers above 0, got {layer!r}")
        kernel, stride, channels = layer
        if kernel < stride:
            raise UserError(f"{field}: a kernel of {kernel} at stride {stride} leaves out what lies between")
        made.append((kernel, stride, channels))
    if not made or made[-1][2] != width:
        raise UserError(f"{field}={layers!r} must end in width={width} channels, those of a token")
    return tuple(made)


def stride_of(layers: Sequence[Sequence[int]]) -> int:
    """Return the side of a cell of the last convolution in pixels."""
    return math.prod(stride for _, stride, _ in layers)


def taps(x: Float[Array, "B H W C"], *, kernel: int, stride: int, padding: int = 0) -> Float[Array, "B h w taps"]:
    """Return what the kernel sees at each place, row by row: `[B, H/stride, W/stride, kernel * kernel * C]`.

    Args:
      x: H and W are multiples of `stride`.
      kernel: side of the kernel.
      stride: step from place to place.
      padding: value around the picture, of which half of `kernel - stride` (rounded down) lies before it.
    """
    before = (kernel - stride) // 2
    edges = (before, kernel - stride - before)
    height, width = x.shape[1] // stride, x.shape[2] // stride
    x = jnp.pad(x, ((0, 0), edges, edges, (0, 0)), constant_values=padding)
    seen = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(kernel)
        for j in range(kernel)
    ]
    return jnp.concatenate(seen, axis=-1)
