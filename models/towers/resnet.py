"""Residual networks on single pictures (He et al. 2016), image towers for `frames.FramesTower`."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError, unknown
from ..layers.conv import ConvNorm, max_pool
from ..layers.dense import compute_dtype
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.patches import normalise_pixels, pixel_statistics
from .vit import Images, ImageTokens, check_pictures

BLOCKS = ("bottleneck", "basic")
"""Forms of a residual block: 1 x 1, 3 x 3 and 1 x 1 convolutions, or two of 3 x 3."""
_NARROWER = 4  # the middle of a bottleneck has a quarter of its channels

Maps = Float[Array, "B H W C"]
"""Feature maps."""


class ResNetTower(nnx.Module):
    """ResNet on pictures of any size; the mean over the last feature maps. ResNet-50 by default.

    BatchNorm keeps the statistics of the pretrained network, see `layers.conv.FrozenBatchNorm`: the tower is made to
    start from public weights.

    Args:
      stem: channels of the first convolution.
      widths: channels of each stage.
      depths: blocks of each stage.
      kind: a name of `BLOCKS`.
      stride_first: the first convolution of a bottleneck has its stride (He et al.) instead of the 3 x 3 one (ResNet
        1.5, torchvision).
      first_stage_stride: stride of the first stage; those of the others are 2.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them.
      remat: has no effect.
      unroll: has no effect.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: not as many depths as widths, a width that does not divide, or an unknown name.
    """

    def __init__(
        self,
        *,
        stem: int = 64,
        widths: Sequence[int] = (256, 512, 1024, 2048),
        depths: Sequence[int] = (3, 4, 6, 3),
        kind: str = "bottleneck",
        stride_first: bool = False,
        first_stage_stride: int = 1,
        pixel_mean: Sequence[float] = (0.485, 0.456, 0.406),
        pixel_std: Sequence[float] = (0.229, 0.224, 0.225),
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        _check(widths, depths=depths, kind=kind)
        self.pixel_mean, self.pixel_std = pixel_statistics(mean=pixel_mean, std=pixel_std)
        self.dtype, self.width = compute_dtype(dtype), widths[-1]
        given = {"dtype": self.dtype, "rngs": rngs}
        self.stem = ConvNorm(3, stem, kernel=(7, 7), stride=2, **given)
        own = {"kind": kind, "stride_first": stride_first, **given}
        stages = []
        for stage, (width_in, width) in enumerate(itertools.pairwise([stem, *widths])):
            blocks = [ResNetBlock(width_in, width, stride=2 if stage else first_stage_stride, **own)]
            blocks += [ResNetBlock(width, width, stride=1, **own) for _ in range(depths[stage] - 1)]
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return (
            "stem",
            *(f"stages/{stage}/{n}" for stage, blocks in enumerate(self.stages) for n in range(len(blocks))),
        )

    def tokens(self, images: Images, *, keys: RowKeys | None = None, drop_patches: bool = True) -> ImageTokens:
        """Return the places of the last feature maps, row by row; nothing is random.

        Args:
          images: pictures, uint8 RGB 0..255.
          keys: not used.
          drop_patches: not used.

        Raises:
          UserError: pictures of another dtype.
        """
        del keys, drop_patches
        check_pictures(images)
        x = normalise_pixels(images, mean=self.pixel_mean, std=self.pixel_std).astype(self.dtype)
        x = named(self.stem(x), "activation/video/tokens")
        x = max_pool(x, kernel=(3, 3), stride=(2, 2), padding=(1, 1))
        for blocks in self.stages:
            for block in blocks:
                x = named(block(x), "activation/video/tokens")
        leading = jnp.zeros((x.shape[0], 0, self.width), x.dtype)
        return ImageTokens(patches=rearrange(x, "b h w d -> b (h w) d"), leading=leading, kept=None)

    def pooled(self, tokens: ImageTokens) -> Float[Array, "B D"]:
        """Return the mean of each picture's places, float32."""
        return jnp.mean(tokens.patches.astype(jnp.float32), axis=1)

    def __call__(
        self, images: Images, *, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> Float[Array, "B D"]:
        """Encode pictures, uint8 RGB 0..255, into float32 vectors."""
        return self.pooled(self.tokens(images, keys=keys, drop_patches=drop_patches))


class ResNetBlock(nnx.Module):
    """Convolutions on a residual branch, then ReLU (He et al. 2016)."""

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        stride: int,
        kind: str,
        stride_first: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the block; a stride or another width gives the residual a convolution, too."""
        given = {"dtype": dtype, "rngs": rngs}
        if kind == "basic":
            layers = [
                ConvNorm(width_in, width, kernel=(3, 3), stride=stride, **given),
                ConvNorm(width, width, kernel=(3, 3), activation=None, **given),
            ]
        else:
            middle, (first, second) = width // _NARROWER, (stride, 1) if stride_first else (1, stride)
            layers = [
                ConvNorm(width_in, middle, kernel=(1, 1), stride=first, **given),
                ConvNorm(middle, middle, kernel=(3, 3), stride=second, **given),
                ConvNorm(middle, width, kernel=(1, 1), activation=None, **given),
            ]
        self.layers = nnx.List(layers)
        changes = stride > 1 or width_in != width
        shortcut = {"kernel": (1, 1), "stride": stride, "activation": None}
        self.shortcut = ConvNorm(width_in, width, **shortcut, **given) if changes else None

    def __call__(self, x: Maps) -> Maps:
        """Apply the block."""
        y = x
        for layer in self.layers:
            y = layer(y)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _check(widths: Sequence[int], *, depths: Sequence[int], kind: str) -> None:
    if kind not in BLOCKS:
        raise unknown("config.model.video.image.kind", kind, BLOCKS)
    if not widths or len(widths) != len(depths) or min(depths) < 1:
        raise UserError(
            "config.model.video.image: widths and depths must be one number of at least 1 for each stage, got "
            f"widths={list(widths)}, depths={list(depths)}"
        )
    if kind == "bottleneck" and any(width % _NARROWER for width in widths):
        raise UserError(f"config.model.video.image.widths={list(widths)} must be multiples of {_NARROWER}")
