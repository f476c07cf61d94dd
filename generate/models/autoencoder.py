"""A variational autoencoder over single frames.

Sources: Kingma & Welling 2014 (arXiv:1312.6114); its use below a generator of latents, Rombach et al. 2022
(arXiv:2112.10752). Residual blocks of convolutions with RMSNorm over the channels of each place.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Key, UInt8

from ...base.errors import UserError
from ...models.layers.dense import compute_dtype
from ...models.layers.norm import RMSNorm

_LOGVAR = (-12.0, 6.0)  # bounds of the logarithm of the variance: beyond them its gradient would overflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderOptions:
    """`config.autoencoder`: sizes of `FrameAutoencoder`.

    Attributes:
      channels: C of a latent.
      stem: side of the patches, in pixels, that the first convolution turns into places, and the last one back.
      widths: channels of the stages; each stage after the first halves the grid.
      blocks: residual blocks of a stage, of the encoder and of the decoder each.
      dtype: compute dtype, float32 or bfloat16; latents and pixels are float32.
    """

    channels: int = 8
    stem: int = 4
    widths: tuple[int, ...] = (64, 128)
    blocks: int = 1
    dtype: str = "float32"

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))
        for field in ("channels", "stem", "blocks"):
            if getattr(self, field) < 1:
                raise UserError(f"config.autoencoder.{field} must be at least 1, got {getattr(self, field)}")
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"config.autoencoder.widths must be channels of at least one stage, got {self.widths}")
        compute_dtype(self.dtype)

    @property
    def factor(self) -> int:
        """Pixels of a frame's side that fall on one place of the latent grid."""
        return self.stem * 2 ** (len(self.widths) - 1)

    def grid(self, size: int) -> int:
        """Return the side of the latent grid of frames of `size` pixels.

        Raises:
          UserError: the size does not divide.
        """
        if size % self.factor:
            raise UserError(
                f"frames of {size} pixels do not divide by the {self.factor} pixels of a latent place "
                f"(config.autoencoder.stem={self.stem}, {len(self.widths)} widths); change one of them, or the size in "
                "config.data.eval_video"
            )
        return size // self.factor


class FrameAutoencoder(nnx.Module):
    """Frames to latents `[B,h,w,C]` and back; each frame by itself."""

    def __init__(self, options: AutoencoderOptions, *, rngs: nnx.Rngs):
        """Build encoder and decoder."""
        self.options, dtype = options, compute_dtype(options.dtype)
        widths, given = options.widths, {"dtype": dtype, "rngs": rngs}
        side, outputs = options.stem, 2 * options.channels
        self.stem = conv(3, widths[0], side=side, stride=side, **given)
        self.down = nnx.List([conv(a, b, side=3, stride=2, **given) for a, b in itertools.pairwise(widths)])
        self.encoder = nnx.List([_stage(width, options=options, rngs=rngs) for width in widths])
        self.encoded = _Out(widths[-1], outputs, side=1, **given)
        self.start = conv(options.channels, widths[-1], side=3, **given)
        self.decoder = nnx.List([_stage(width, options=options, rngs=rngs) for width in reversed(widths)])
        self.up = nnx.List([conv(b, 4 * a, side=1, **given) for a, b in reversed([*itertools.pairwise(widths)])])
        self.pixels = _Out(widths[0], 3 * side**2, side=3, **given)

    def encode(self, frames: UInt8[Array, "B H W 3"]) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
        """Return mean and logarithm of the variance of the latents of frames, RGB 0..255."""
        x = self.stem(signed(frames))
        for i, stage in enumerate(self.encoder):
            x = stage(x if i == 0 else self.down[i - 1](x))
        mean, logvar = jnp.split(self.encoded(x).astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(logvar, *_LOGVAR)

    def decode(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return frames, float32, -1..1 (not clipped)."""
        x = self.start(latents)
        for i, stage in enumerate(self.decoder):
            x = stage(x if i == 0 else _shuffled(self.up[i - 1](x), side=2))
        return _shuffled(self.pixels(x).astype(jnp.float32), side=self.options.stem)


class _Residual(nnx.Module):
    """Two convolutions on a residual branch, which starts as zero."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (RMSNorm(width, dtype=dtype, rngs=rngs) for _ in range(2))
        self.conv1 = conv(width, width, side=3, dtype=dtype, rngs=rngs)
        self.conv2 = conv(width, width, side=3, dtype=dtype, rngs=rngs, zero=True)

    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        return x + self.conv2(jax.nn.silu(self.norm2(y)))


class _Out(nnx.Module):
    """Norm, activation and the last convolution."""

    def __init__(self, width_in: int, width_out: int, *, side: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm = RMSNorm(width_in, dtype=dtype, rngs=rngs)
        self.conv = conv(width_in, width_out, side=side, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w E"]:
        return self.conv(jax.nn.silu(self.norm(x)))


def _stage(width: int, *, options: AutoencoderOptions, rngs: nnx.Rngs) -> nnx.Sequential:
    dtype = compute_dtype(options.dtype)
    return nnx.Sequential(*[_Residual(width, dtype=dtype, rngs=rngs) for _ in range(options.blocks)])


def conv(
    width_in: int, width: int, *, side: int, stride: int = 1, zero: bool = False, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Conv:
    """Build a convolution of square kernels that keeps the grid, or divides its side by `stride`.

    Args:
      width_in: channels of the input.
      width: channels of the output.
      side: of the kernel.
      stride: step.
      zero: the kernel starts as zero.
      dtype: compute dtype.
      rngs: source of the initial values.
    """
    start: dict[str, Any] = {"kernel_init": nnx.initializers.zeros_init()} if zero else {}
    return nnx.Conv(
        width_in, width, kernel_size=(side, side), strides=stride, dtype=dtype, param_dtype=jnp.float32, rngs=rngs,
        **start,
    )  # fmt: skip


def _shuffled(x: Float[Array, "B h w D"], *, side: int) -> Float[Array, "B H W E"]:
    """Spread channels over `side` x `side` places (Shi et al. 2016, sub-pixel convolution)."""
    return rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=side, q=side)


def signed(frames: UInt8[Array, "*B"]) -> Float[Array, "*B"]:
    """Return RGB 0..255 as float32 -1..1."""
    return frames.astype(jnp.float32) / jnp.float32(127.5) - jnp.float32(1)


def rgb(frames: Float[Array, "*B"]) -> UInt8[Array, "*B"]:
    """Return frames -1..1 as RGB 0..255, clipped and rounded: the inverse of `signed`."""
    return jnp.round(jnp.clip((frames + 1) * 127.5, 0, 255)).astype(jnp.uint8)


def drawn_latents(
    mean: Float[Array, "*B C"], logvar: Float[Array, "*B C"], *, key: Key[Array, ""]
) -> Float[Array, "*B C"]:
    """Draw latents from the posterior, differentiably (the reparameterisation of Kingma & Welling 2014)."""
    return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape, jnp.float32)


def kl_to_normal(mean: Float[Array, "*B"], logvar: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Return of each latent value the divergence KL(N(mean, exp(logvar)) || N(0, 1)), in nats."""
    return 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
