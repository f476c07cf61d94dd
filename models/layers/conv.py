"""Convolutions in two and three dimensions with BatchNorm, and the pools of convolutional networks.

Arrays have their channels last: `[B,H,W,C]` or `[B,T,H,W,C]`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .dense import along

Padding = Sequence[int] | Sequence[tuple[int, int]]
"""Places added to each axis: a number for both sides, or a pair (in front, behind)."""


class FrozenBatchNorm(nnx.Module):
    """BatchNorm (Ioffe & Szegedy 2015) with fixed statistics, in float32.

    `mean` and `variance` are the running statistics of a pretrained network. Training leaves them as they are, as is
    usual in fine-tuning, where batches are too small to estimate them; `scale` and `bias` are trained. A network built
    without pretrained weights has a mean of 0 and a variance of 1: it is not normalised, and will hardly train.
    """

    def __init__(self, width: int, *, dtype: jnp.dtype, epsilon: float = 1e-5):
        """Build the layer.

        Args:
          width: channels.
          dtype: compute dtype, of the result.
          epsilon: added to the variance.
        """
        self.epsilon, self.compute_dtype = epsilon, dtype
        zeros, ones = jnp.zeros((width,), jnp.float32), jnp.ones((width,), jnp.float32)
        self.scale, self.bias = nnx.Param(ones), nnx.Param(zeros)
        self.mean, self.variance = nnx.Param(zeros), nnx.Param(ones)

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Normalise the last axis."""
        mean, variance = (jax.lax.stop_gradient(value[...]) for value in (self.mean, self.variance))
        factor = self.scale[...] * jax.lax.rsqrt(variance + self.epsilon)
        y = (x.astype(jnp.float32) - along(mean, x)) * along(factor, x) + along(self.bias[...], x)
        return y.astype(self.compute_dtype)


class ConvNorm(nnx.Module):
    """A convolution, BatchNorm and an activation function."""

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        kernel: Sequence[int],
        stride: Sequence[int] | int = 1,
        padding: Padding | None = None,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        activation: Callable[[Array], Array] | None = jax.nn.relu,
        epsilon: float = 1e-5,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the layer.

        Args:
          width_in: channels of the input.
          width: channels of the output.
          kernel: size along each axis.
          stride: steps along each axis, or along all.
          padding: zeros along each axis; None = half of the kernel, rounded down, on both sides.
          groups: of channels that do not see each other; `width_in` for a depthwise convolution.
          bias: the convolution has a bias.
          norm: BatchNorm follows.
          activation: follows BatchNorm; None = none.
          epsilon: of BatchNorm.
          dtype: compute dtype.
          rngs: source of the initial values.
        """
        pads = [size // 2 for size in kernel] if padding is None else padding
        self.conv = nnx.Conv(
            width_in,
            width,
            kernel_size=tuple(kernel),
            strides=tuple(stride) if isinstance(stride, Sequence) else (stride,) * len(kernel),
            padding=pairs(pads),
            feature_group_count=groups,
            use_bias=bias,
            dtype=dtype,
            param_dtype=jnp.float32,
            rngs=rngs,
        )
        self.norm = FrozenBatchNorm(width, dtype=dtype, epsilon=epsilon) if norm else None
        self.activation = activation

    def __call__(self, x: Float[Array, "B *places C"]) -> Float[Array, "B *new D"]:
        """Apply the layer."""
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)


def max_pool(
    x: Float[Array, "B *places C"], *, kernel: Sequence[int], stride: Sequence[int], padding: Padding
) -> Float[Array, "B *new C"]:
    """Return the largest value of each window; padding is never the largest.

    Args:
      x: of any float dtype.
      kernel: size of the window along each axis.
      stride: steps along each axis.
      padding: places along each axis.
    """
    window, steps = (1, *kernel, 1), (1, *stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, steps, ((0, 0), *pairs(padding), (0, 0)))


def mean_pool(x: Float[Array, "B *places C"], *, side: int) -> Float[Array, "B *new C"]:
    """Return the mean of each window of `side` places along each axis; there is no overlap, and no padding."""
    if side == 1:
        return x
    axes = x.ndim - 2
    window = (1, *(side,) * axes, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "VALID") * (1 / side**axes)


def pairs(padding: Padding) -> tuple[tuple[int, int], ...]:
    """Return (in front, behind) for each axis."""
    return tuple((each, each) if isinstance(each, int) else (each[0], each[1]) for each in padding)
