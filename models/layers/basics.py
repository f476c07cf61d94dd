"""Small layers shared by all towers: dense, norm, positions, pooling, activation functions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from .dense import Dense, along, rows_of, sum_of_rows
from .devices import on_gpu

_EPSILON = 1e-5  # of LayerNorm


def _in_float32(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Compute an activation function in float32 whatever it is given, keeping its input alone for the backward pass."""

    def computed(x: jax.Array) -> jax.Array:
        return function(x.astype(jnp.float32)).astype(x.dtype)

    return jax.checkpoint(computed, prevent_cse=False)


ACTIVATIONS = {
    "gelu": _in_float32(lambda x: nnx.gelu(x, approximate=True)),
    "quick_gelu": _in_float32(lambda x: x * nnx.sigmoid(1.702 * x)),
    "relu": nnx.relu,
    "squared_relu": lambda x: jnp.square(nnx.relu(x)),
}
"""gelu (tanh form; Hendrycks & Gimpel 2016), quick_gelu (CLIP), relu, squared_relu (So et al. 2021).

The first two compute in float32: in bfloat16 each of their many operations would round, and on a CPU convert.
"""

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Compute types; parameters are float32 always."""


def compute_dtype(name: str) -> jnp.dtype:
    """Return the compute dtype that a config names.

    Raises:
      UserError: the name is not in `DTYPES`.
    """
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return DTYPES[name]


def linear(width_in: int, width_out: int, *, dtype: jnp.dtype, rngs: nnx.Rngs, bias: bool = True) -> Dense:
    """Build a dense layer with float32 parameters, LeCun-normal kernel and zero bias."""
    return Dense(width_in, width_out, use_bias=bias, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)


class LayerNorm(nnx.LayerNorm):
    """LayerNorm (Ba et al. 2016) that computes in float32 whatever it is given, and gives back the compute dtype.

    The backward pass keeps the input in the compute dtype, and of each row its mean and scale: left to itself, it would
    keep the normalised rows in float32.

    On a GPU it works on one axis of rows. On two, the compiler laid out the whole residual stream of an unrolled
    ViT-L/14 with the width in the middle, and moved 3.3 GB more in each layer to turn it for each product.
    """

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        super().__init__(width, epsilon=_EPSILON, dtype=jnp.float32, param_dtype=jnp.float32, rngs=rngs)
        self.compute_dtype = dtype

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise the last axis."""
        assert self.scale is not None and self.bias is not None
        rows = rows_of(x) if on_gpu() else x
        return _normalised(rows.astype(self.compute_dtype), self.scale[...], self.bias[...]).reshape(x.shape)


@jax.custom_vjp
def _normalised(x: Float[Array, "*B D"], scale: Float[Array, "D"], bias: Float[Array, "D"]) -> Float[Array, "*B D"]:
    return _normalise(x, scale, bias)[0]


def _normalise(x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    rows = x.astype(jnp.float32)
    mean = jnp.mean(rows, axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.mean(jnp.square(rows), axis=-1, keepdims=True) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(variance + _EPSILON)
    y = (rows - mean) * (inverse * along(scale, x)) + along(bias, x)
    return y.astype(x.dtype), (x, scale, mean, inverse)


def _normalise_backward(saved: tuple[Array, ...], dy: Array) -> tuple[Array, Array, Array]:
    x, scale, mean, inverse = saved
    dy, normal = dy.astype(jnp.float32), (x.astype(jnp.float32) - mean) * inverse
    to_normal = dy * along(scale, x)
    shared = jnp.mean(to_normal * normal, axis=-1, keepdims=True)
    to_x = inverse * (to_normal - jnp.mean(to_normal, axis=-1, keepdims=True) - normal * shared)
    return to_x.astype(x.dtype), sum_of_rows(dy * normal), sum_of_rows(dy)


_normalised.defvjp(_normalise, _normalise_backward)


def position_embedding(*axes: int, width: int) -> nnx.Param:
    """Build learned positions that start as sinusoids (Vaswani et al. 2017, section 3.5; 2-D: He et al. 2022, MAE).

    Started as small noise they are lost beside the tokens, and a tower must first learn where and when things are
    before it can learn what moves where; as sinusoids near positions look alike from the first step on.

    Args:
      *axes: length of each axis; the width is shared evenly among them.
      width: D, a multiple of twice the number of axes.

    Returns:
      float32 `[prod(axes), width]`.
    """
    share = width // len(axes)
    if share % 2 or share * len(axes) != width:
        raise UserError(f"width={width} must be a multiple of {2 * len(axes)} for positions along {len(axes)} axes")
    rates = 10_000.0 ** (-np.arange(share // 2) / max(share // 2, 1))
    grids = np.meshgrid(*[np.arange(n) for n in axes], indexing="ij")
    angles = [grid.reshape(-1, 1) * rates for grid in grids]
    table = np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)
    return nnx.Param(jnp.asarray(table, jnp.float32))


def masked_mean(x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """Average axis L over the real tokens (rows without any give zeros)."""
    weight = mask.astype(x.dtype)[:, :, None]  # [B,L,1]
    return jnp.sum(x * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), jnp.ones((), x.dtype))


def unit_rows(x: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """L2-normalise rows in float32; a zero row stays zero instead of becoming NaN."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-12))
