"""S3D-G, a separable 3-D convolutional network with gates (Xie et al. 2018), in the form of MIL-NCE."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from ...base.errors import UserError
from ..layers.conv import ConvNorm, max_pool
from ..layers.dense import compute_dtype, linear
from ..layers.names import named
from ..layers.patches import normalise_pixels, pixel_statistics
from ..shapes import Video
from .clip_positions import frame_sequence
from .video_maps import Maps, VideoMapsTower

BLOCKS = (
    *((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),  # 3b, 3c
    *((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64)),  # 4b, 4c, 4d
    *((112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),  # 4e, 4f
    *((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),  # 5b, 5c
)
"""Widths of the branches of each Inception block (Szegedy et al. 2015): 1x1; 1x1, 3x3; 1x1, 3x3; 1x1 after a pool."""
_POOLS = {0: ((1, 3, 3), (1, 2, 2)), 2: ((3, 3, 3), (2, 2, 2)), 7: ((2, 2, 2), (2, 2, 2))}
"""Number of a block -> window and stride of the pool before it."""


class S3DTower(VideoMapsTower):
    """S3D with feature gating on clips of any number of frames and any size; the mean over time and space.

    It begins with a space-to-depth of 2 x 2 x 2 pixels (Miech et al. 2020, MIL-NCE), so frames and sides are even; a
    single frame is repeated. Time is divided by 8, sides by 32, both rounded up. BatchNorm keeps the statistics of the
    pretrained network, see `layers.conv.FrozenBatchNorm`: the tower is made to start from public weights.

    Args:
      stem: channels of the first two layers, and of the third.
      blocks: widths of the six convolutions of each of the nine Inception blocks.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them.
      remat: has no effect.
      unroll: has no effect.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: another number of blocks or widths, or an unknown name.
    """

    def __init__(
        self,
        *,
        stem: Sequence[int] = (64, 64, 192),
        blocks: Sequence[Sequence[int]] = BLOCKS,
        pixel_mean: Sequence[float] = (0.0, 0.0, 0.0),
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        _check(stem, blocks=blocks)
        self.pixel_mean, self.pixel_std = pixel_statistics(mean=pixel_mean, std=pixel_std)
        self.dtype = compute_dtype(dtype)
        given = {"dtype": self.dtype, "rngs": rngs}
        # The padding of 2, 4 x 4 without the first plane, row and column of the result, which the public code cuts off.
        padding = [(0, 1), (1, 2), (1, 2)]
        self.conv1 = ConvNorm(24, stem[0], kernel=(2, 4, 4), padding=padding, **given)
        self.conv_2b = ConvNorm(stem[0], stem[1], kernel=(1, 1, 1), **given)
        self.conv_2c = SeparableConv(stem[1], stem[2], **given)
        self.gate = SelfGate(stem[2], **given)
        width, mixed = stem[2], []
        for widths in blocks:
            mixed.append(InceptionBlock(width, widths, **given))
            width = widths[0] + widths[2] + widths[4] + widths[5]
        self.mixed, self.width = nnx.List(mixed), width

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("conv1", "conv_2b", "conv_2c", "gate", *(f"mixed/{number}" for number in range(len(self.mixed))))

    def _maps(self, video: Video) -> Maps:
        video = frame_sequence(video, patch=2, tubelet=2)
        x = normalise_pixels(video, mean=self.pixel_mean, std=self.pixel_std).astype(self.dtype)
        x = rearrange(x, "b (t u) (h p) (w q) c -> b t h w (u p q c)", u=2, p=2, q=2)
        x = named(self.conv1(x), "activation/video/tokens")
        x = same_pool(x, kernel=(1, 3, 3), stride=(1, 2, 2))
        x = self.gate(self.conv_2c(self.conv_2b(x)))
        for number, block in enumerate(self.mixed):
            if number in _POOLS:
                kernel, stride = _POOLS[number]
                x = same_pool(x, kernel=kernel, stride=stride)
            x = named(block(x), "activation/video/tokens")
        return x


class SeparableConv(nnx.Module):
    """A 3 x 3 convolution over space, then one of 3 over time, each with BatchNorm and ReLU."""

    def __init__(self, width_in: int, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the layer."""
        self.space = ConvNorm(width_in, width, kernel=(1, 3, 3), dtype=dtype, rngs=rngs)
        self.time = ConvNorm(width, width, kernel=(3, 1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, x: Maps) -> Maps:
        """Apply the layer."""
        return self.time(self.space(x))


class SelfGate(nnx.Module):
    """Feature gating (Xie et al. 2018): each channel times a sigmoid of the means of all channels."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the layer."""
        self.out = linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Maps) -> Maps:
        """Apply the layer."""
        means = jnp.mean(x.astype(jnp.float32), axis=(1, 2, 3), keepdims=True)
        return x * jax.nn.sigmoid(self.out(means.astype(x.dtype)))


class InceptionBlock(nnx.Module):
    """Four branches side by side, each with a gate (Szegedy et al. 2015; Xie et al. 2018)."""

    def __init__(self, width_in: int, widths: Sequence[int], *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the block; `widths` are those of `b0`, `b1_a`, `b1_b`, `b2_a`, `b2_b` and `b3`."""
        given, one = {"dtype": dtype, "rngs": rngs}, {"kernel": (1, 1, 1)}
        self.b0 = ConvNorm(width_in, widths[0], **one, **given)
        self.b1_a = ConvNorm(width_in, widths[1], **one, **given)
        self.b1_b = SeparableConv(widths[1], widths[2], **given)
        self.b2_a = ConvNorm(width_in, widths[3], **one, **given)
        self.b2_b = SeparableConv(widths[3], widths[4], **given)
        self.b3 = ConvNorm(width_in, widths[5], **one, **given)
        self.gates = nnx.List([SelfGate(widths[number], **given) for number in (0, 2, 4, 5)])

    def __call__(self, x: Maps) -> Maps:
        """Apply the block."""
        pooled = max_pool(x, kernel=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1))
        branches = [self.b0(x), self.b1_b(self.b1_a(x)), self.b2_b(self.b2_a(x)), self.b3(pooled)]
        return jnp.concatenate([gate(branch) for gate, branch in zip(self.gates, branches, strict=True)], axis=-1)


def same_pool(x: Maps, *, kernel: Sequence[int], stride: Sequence[int]) -> Maps:
    """Return the largest value of each window, with zeros around as the public code has them.

    Each axis gets `kernel - stride` zeros, the smaller half in front; a last window may go beyond them.

    Args:
      x: values of at least 0.
      kernel: size of the window along each axis.
      stride: steps along each axis.
    """
    padding = []
    for length, size, step in zip(x.shape[1:4], kernel, stride, strict=True):
        whole = length + size - step
        windows = -(-(whole - size) // step) + 1
        front = (size - step) // 2
        padding.append((front, size - step - front + max(0, (windows - 1) * step + size - whole)))
    return max_pool(x, kernel=kernel, stride=stride, padding=padding)


def _check(stem: Sequence[int], *, blocks: Sequence[Sequence[int]]) -> None:
    if len(stem) != 3:
        raise UserError(f"config.model.video.stem must be three widths, such as (64, 64, 192), got {list(stem)}")
    if len(blocks) != len(BLOCKS) or any(len(widths) != 6 for widths in blocks):
        found = [len(widths) for widths in blocks]
        raise UserError(f"config.model.video.blocks must be nine times six widths, got numbers of widths {found}")
