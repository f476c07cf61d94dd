"""LayerNorm, RMSNorm and rows of unit length, all computed in float32.

Sources: LayerNorm, Ba et al. 2016; RMSNorm, Zhang & Sennrich 2019. Some public models store `scale` as an offset from 1
(Praxis, VideoPrism): `plus_one` reads it so.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import unknown
from .dense import along, rows_of, sum_of_rows
from .devices import on_gpu


class LayerNorm(nnx.LayerNorm):
    """LayerNorm (Ba et al. 2016) that computes in float32 for any input and returns the compute dtype.

    Its backward pass keeps the input in the compute dtype and, for each row, the mean and the scale. Automatic
    differentiation would keep the normalised rows in float32.

    On a GPU it merges all axes but the last. With two of them, the compiler laid out the residual stream of an unrolled
    ViT-L/14 with the width in the middle, and moved 3.3 GB more in each layer to transpose it for each product.
    """

    def __init__(
        self,
        width: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        epsilon: float = 1e-5,
        plus_one: bool = False,
        bias: bool = True,
    ):
        """Build the layer.

        Args:
          width: D of the last axis.
          dtype: compute dtype, of the result.
          rngs: source of the initial values.
          epsilon: added to the variance.
          plus_one: multiply by `scale + 1`; the parameter then starts at 0.
          bias: add a learned bias.
        """
        start = nnx.initializers.zeros_init() if plus_one else nnx.initializers.ones_init()
        super().__init__(width, epsilon=epsilon, use_bias=bias, scale_init=start, param_dtype=jnp.float32, rngs=rngs)
        self.compute_dtype, self.plus_one = dtype, plus_one

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise the last axis."""
        assert self.scale is not None
        rows = (rows_of(x) if on_gpu() else x).astype(self.compute_dtype)
        bias = None if self.bias is None else self.bias[...]
        return _layer_norm(rows, _effective(self.scale[...], self.plus_one), bias, self.epsilon).reshape(x.shape)


class RMSNorm(nnx.Module):
    """RMSNorm (Zhang & Sennrich 2019): no mean is subtracted, no bias is added; otherwise as `LayerNorm`."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs, epsilon: float = 1e-6, plus_one: bool = False):
        """Build the layer; the arguments are those of `LayerNorm`."""
        del rngs  # the initial values are constants
        self.epsilon, self.compute_dtype, self.plus_one = epsilon, dtype, plus_one
        self.scale = nnx.Param(jnp.full((width,), 0.0 if plus_one else 1.0, jnp.float32))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last axis."""
        rows = (rows_of(x) if on_gpu() else x).astype(self.compute_dtype)
        return _rms_norm(rows, _effective(self.scale[...], self.plus_one), self.epsilon).reshape(x.shape)


NORMS = ("layernorm", "rmsnorm")
"""Names of norms that `make_norm` builds."""


def make_norm(
    name: str,
    *,
    width: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    epsilon: float = 1e-5,
    plus_one: bool = False,
    bias: bool = True,
) -> LayerNorm | RMSNorm:
    """Build the norm of that name, one of `NORMS`; the other arguments are those of `LayerNorm`.

    Raises:
      UserError: an unknown name.
    """
    if name == "layernorm":
        return LayerNorm(width, dtype=dtype, rngs=rngs, epsilon=epsilon, plus_one=plus_one, bias=bias)
    if name == "rmsnorm":
        return RMSNorm(width, dtype=dtype, rngs=rngs, epsilon=epsilon, plus_one=plus_one)
    raise unknown("norm", name, NORMS)


def unit_rows(x: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """L2-normalise rows in float32; a zero row stays zero instead of becoming NaN."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-12))


def _effective(scale: Float[Array, "D"], plus_one: bool) -> Float[Array, "D"]:
    return scale + jnp.float32(1) if plus_one else scale


def _layer_norm_forward(
    x: Array, scale: Array, bias: Array | None, epsilon: float
) -> tuple[Array, tuple[Array | None, ...]]:
    rows = x.astype(jnp.float32)
    mean = jnp.mean(rows, axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.mean(jnp.square(rows), axis=-1, keepdims=True) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = (rows - mean) * (inverse * along(scale, x))
    if bias is not None:
        y = y + along(bias, x)
    return y.astype(x.dtype), (x, scale, mean, inverse, bias)


def _layer_norm_backward(epsilon: float, saved: tuple[Array, ...], dy: Array) -> tuple[Array, Array, Array | None]:
    x, scale, mean, inverse, bias = saved
    dy, normal = dy.astype(jnp.float32), (x.astype(jnp.float32) - mean) * inverse
    to_normal = dy * along(scale, x)
    shared = jnp.mean(to_normal * normal, axis=-1, keepdims=True)
    to_x = inverse * (to_normal - jnp.mean(to_normal, axis=-1, keepdims=True) - normal * shared)
    return to_x.astype(x.dtype), sum_of_rows(dy * normal), None if bias is None else sum_of_rows(dy)


_layer_norm = jax.custom_vjp(lambda *args: _layer_norm_forward(*args)[0], nondiff_argnums=(3,))
_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def _rms_norm_forward(x: Array, scale: Array, epsilon: float) -> tuple[Array, tuple[Array, ...]]:
    rows = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(rows), axis=-1, keepdims=True) + epsilon)
    return (rows * (inverse * along(scale, x))).astype(x.dtype), (x, scale, inverse)


def _rms_norm_backward(epsilon: float, saved: tuple[Array, ...], dy: Array) -> tuple[Array, Array]:
    x, scale, inverse = saved
    dy, normal = dy.astype(jnp.float32), x.astype(jnp.float32) * inverse
    to_normal = dy * along(scale, x)
    shared = jnp.mean(to_normal * normal, axis=-1, keepdims=True)
    return (inverse * (to_normal - normal * shared)).astype(x.dtype), sum_of_rows(dy * normal)


_rms_norm = jax.custom_vjp(lambda *args: _rms_norm_forward(*args)[0], nondiff_argnums=(2,))
_rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)
