"""FastViT (Vasu et al. 2023), the image tower of MobileCLIP: convolutions, and attention in the last stages.

The towers are published in their training form, whose parallel branches add up to one convolution (structural
reparameterisation, Ding et al. 2021). Here are the sums, to which the conversion of the weights adds them up.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError, unknown
from ..layers.activations import ACTIVATIONS
from ..layers.attention import Attention
from ..layers.conv import ConvNorm, FrozenBatchNorm
from ..layers.dense import along, compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.norm import LayerNorm
from ..layers.options import BlockOptions
from ..layers.patches import normalise_pixels, pixel_statistics
from .vit import Images, ImageTokens, check_pictures

NORMS = ("batch", "layer")
"""Norm before the attention of a block: BatchNorm with fixed statistics, or LayerNorm over the channels."""
_HEAD_WIDTH = 32
_LAYER_SCALE = 1e-5  # at the start
_GELU = ACTIVATIONS["gelu_exact"]

Maps = Float[Array, "B H W C"]
"""Feature maps."""


class FastViTTower(nnx.Module):
    """FastViT on pictures of any size; the mean over the last feature maps, and a linear map. MCi0 by default.

    BatchNorm keeps the statistics of the pretrained network, see `layers.conv.FrozenBatchNorm`: the tower is made to
    start from public weights.

    Args:
      widths: channels of each stage; the first one keeps a quarter of the side, each other one halves it.
      depths: blocks of each stage.
      mlp_ratios: hidden width of the MLPs of each stage / its channels.
      attention: whether the blocks of each stage mix places by attention instead of a convolution.
      squeeze: whether the convolution at the beginning of each stage has a squeeze-and-excitation (Hu et al. 2018).
      norm: a name of `NORMS`.
      projection: width E of a linear map with a bias after the mean; None = there is none.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them.
      remat: has no effect.
      unroll: has no effect.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: not one value for each stage, a width that does not divide, or an unknown name.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 6, 10, 2),
        mlp_ratios: Sequence[float] = (3, 3, 3, 3),
        attention: Sequence[bool] = (False, False, False, True),
        squeeze: Sequence[bool] = (False, False, True, True),
        norm: str = "batch",
        projection: int | None = None,
        pixel_mean: Sequence[float] = (0.0, 0.0, 0.0),
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        _check(widths, depths=depths, mlp_ratios=mlp_ratios, attention=attention, squeeze=squeeze, norm=norm)
        self.pixel_mean, self.pixel_std = pixel_statistics(mean=pixel_mean, std=pixel_std)
        self.dtype, self.tokens_width = compute_dtype(dtype), 2 * widths[-1]
        given = {"dtype": self.dtype, "rngs": rngs}
        plain = {"bias": True, "norm": False, "activation": _GELU, **given}
        first = widths[0]
        self.stem = nnx.List(
            [
                ConvNorm(3, first, kernel=(3, 3), stride=2, **plain),
                ConvNorm(first, first, kernel=(3, 3), stride=2, groups=first, **plain),
                ConvNorm(first, first, kernel=(1, 1), **plain),
            ]
        )
        stages = []
        for stage, (before, width) in enumerate(itertools.pairwise([first, *widths])):
            own = {"depth": depths[stage], "mlp_ratio": mlp_ratios[stage], "attention": bool(attention[stage])}
            own |= {"shrinks": stage > 0, "squeeze": bool(squeeze[stage]), "norm": norm}
            stages.append(FastViTStage(before, width, **own, **given))
        self.stages = nnx.List(stages)
        last = widths[-1]
        self.final = SqueezedConv(last, self.tokens_width, kernel=3, stride=1, middle=self.tokens_width // 16, **given)
        self.projection = linear(self.tokens_width, projection, dtype=jnp.float32, rngs=rngs) if projection else None
        self.width = projection or self.tokens_width

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        stages: list[str] = []
        for number, stage in enumerate(self.stages):
            blocks = [f"stages/{number}/blocks/{block}" for block in range(len(stage.blocks))]
            stages += [*(f"stages/{number}/{part}" for part in ("down", "mix", "position")), *blocks]
        return ("stem", *stages, "final", "projection")

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
        for layer in self.stem:
            x = layer(x)
        for stage in self.stages:
            x = named(stage(x), "activation/video/tokens")
        x = self.final(x)
        leading = jnp.zeros((x.shape[0], 0, self.tokens_width), x.dtype)
        return ImageTokens(patches=rearrange(x, "b h w d -> b (h w) d"), leading=leading, kept=None)

    def pooled(self, tokens: ImageTokens) -> Float[Array, "B D"]:
        """Return the vector of each picture from its places, float32."""
        x = jnp.mean(tokens.patches.astype(jnp.float32), axis=1)
        return x if self.projection is None else self.projection(x)

    def __call__(
        self, images: Images, *, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> Float[Array, "B D"]:
        """Encode pictures, uint8 RGB 0..255, into float32 vectors."""
        return self.pooled(self.tokens(images, keys=keys, drop_patches=drop_patches))


class FastViTStage(nnx.Module):
    """Convolutions that halve the side, a convolution that stands for positions, and blocks."""

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        depth: int,
        mlp_ratio: float,
        attention: bool,
        shrinks: bool,
        squeeze: bool,
        norm: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the stage; the parts that its options turn off are None."""
        given = {"dtype": dtype, "rngs": rngs}
        plain = {"bias": True, "norm": False, **given}
        middle = max(8, int(width / 4 + 4) // 8 * 8) if squeeze else None  # a quarter, the nearest multiple of 8
        self.down = SqueezedConv(width_in, width, kernel=7, stride=2, middle=middle, **given) if shrinks else None
        self.mix = ConvNorm(width, width, kernel=(1, 1), activation=_GELU, **plain) if shrinks else None
        place = {"kernel": (7, 7), "groups": width, "activation": None, **plain}
        self.position = ConvNorm(width, width, **place) if attention else None
        own = {"mlp_ratio": mlp_ratio, "norm": norm if attention else None, **given}
        self.blocks = nnx.List([FastViTBlock(width, **own) for _ in range(depth)])

    def __call__(self, x: Maps) -> Maps:
        """Apply the stage."""
        if self.down is not None and self.mix is not None:
            x = self.mix(self.down(x))
        if self.position is not None:
            x = self.position(x)
        for block in self.blocks:
            x = block(x)
        return x


class SqueezedConv(nnx.Module):
    """A convolution channel by channel, squeeze-and-excitation (Hu et al. 2018) if `middle` is not None, and GELU."""

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        kernel: int,
        stride: int,
        middle: int | None,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the layer; `middle` is the width between the two linear maps of the excitation."""
        given = {"dtype": dtype, "rngs": rngs}
        plain = {"bias": True, "norm": False, "activation": None, "groups": width_in, **given}
        self.conv = ConvNorm(width_in, width, kernel=(kernel, kernel), stride=stride, **plain)
        self.narrow = linear(width, middle, **given) if middle else None
        self.widen = linear(middle, width, **given) if middle else None

    def __call__(self, x: Maps) -> Maps:
        """Apply the layer."""
        x = self.conv(x)
        if self.narrow is not None and self.widen is not None:
            means = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True).astype(x.dtype)
            x = x * jax.nn.sigmoid(self.widen(jax.nn.relu(self.narrow(means))))
        return _GELU(x)


class FastViTBlock(nnx.Module):
    """Places are mixed by a 3 x 3 convolution (RepMixer) or by attention; then a convolution and an MLP."""

    def __init__(self, width: int, *, mlp_ratio: float, norm: str | None, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the block; `norm` before the attention, None = RepMixer, which needs none."""
        given = {"dtype": dtype, "rngs": rngs}
        alone = {"groups": width, "activation": None, **given}  # channel by channel
        self.mixer = ConvNorm(width, width, kernel=(3, 3), bias=True, norm=False, **alone) if norm is None else None
        own = {"width": width, "heads": max(1, width // _HEAD_WIDTH), "qkv_bias": False}
        options = BlockOptions(**own, tower="video", dtype=dtype)
        self.attention = Attention(options, rngs=rngs) if norm else None
        self.norm = _norm(norm, width=width, dtype=dtype, rngs=rngs) if norm else None
        self.scale1 = _scale(width) if norm else None
        self.conv = ConvNorm(width, width, kernel=(7, 7), **alone)
        self.up = linear(width, int(width * mlp_ratio), **given)
        self.down = linear(int(width * mlp_ratio), width, **given)
        self.scale2 = _scale(width)

    def __call__(self, x: Maps) -> Maps:
        """Apply the block."""
        if self.mixer is not None:
            x = self.mixer(x)
        elif self.attention is not None and self.norm is not None and self.scale1 is not None:
            y = self.attention(rearrange(self.norm(x), "b h w d -> b (h w) d"))
            x = x + _scaled(self.scale1, y).reshape(x.shape)
        return x + _scaled(self.scale2, self.down(_GELU(self.up(self.conv(x)))))


def _norm(name: str, *, width: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> FrozenBatchNorm | LayerNorm:
    return FrozenBatchNorm(width, dtype=dtype) if name == "batch" else LayerNorm(width, dtype=dtype, rngs=rngs)


def _scale(width: int) -> nnx.Param:
    return nnx.Param(jnp.full((width,), _LAYER_SCALE, jnp.float32))


def _scaled(scale: nnx.Param, x: Array) -> Array:
    return (x.astype(jnp.float32) * along(scale[...], x)).astype(x.dtype)


def _check(widths: Sequence[int], *, norm: str, attention: Sequence[bool], **stages: Sequence[float]) -> None:
    if norm not in NORMS:
        raise unknown("config.model.video.image.norm", norm, NORMS)
    for name, values in {"attention": attention, **stages}.items():
        if len(values) != len(widths) or not widths:
            raise UserError(
                f"config.model.video.image.{name}={list(values)} must be one value for each stage, as "
                f"widths={list(widths)} are"
            )
    for width, attends in zip(widths, attention, strict=True):
        if attends and width % _HEAD_WIDTH:
            raise UserError(
                f"config.model.video.image.widths: {width} must be a multiple of {_HEAD_WIDTH}, the width of a head, "
                "in a stage with attention"
            )
