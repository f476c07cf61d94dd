"""Dense layers with float32 parameters, and the form of their matrix products on a CPU."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from ...base.errors import unknown
from .devices import on_one_cpu
from .lora import Lora

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Compute dtypes by name; parameters are always float32."""


def compute_dtype(name: str) -> jnp.dtype:
    """Return the compute dtype named in a config.

    Raises:
      UserError: the name is not in `DTYPES`.
    """
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return DTYPES[name]


class Dense(nnx.Linear):
    """A dense layer: `nnx.Linear` with another bias gradient, and other matrix products on a CPU.

    In bfloat16 the bias gradient is summed over the rows in float32. Left to the compiler, partial sums may be rounded;
    on a CPU that gradient was 13 to 46 % off.

    The CPU compiler passes a product to its fast library (for bfloat16 to the matrix unit, if there is one) only if
    both operands are row-major and the result is float32. It computes any other bfloat16 product in float32, at a
    quarter of the rate, and rounds. On a single CPU device, both passes therefore write their products in that form.

    In float32 that form would cost a sixth of a step. There, only the backward pass is written out: automatic
    differentiation leaves a gradient by the kernel for which the compiler first transposes the gradient of the output.
    Other backends and several CPU devices keep JAX's own products.

    Attributes:
      lora: a low-rank update of the kernel, or None; `models.adapters` adds it.
    """

    lora: Lora | None = None

    def __call__(self, inputs: Float[Array, "*B D"], **placing) -> Float[Array, "*B E"]:
        """Apply the layer to the last axis; `placing` holds the further arguments of `nnx.Linear`."""
        if self.lora is None and (placing or (self.dtype == jnp.float32 and not on_one_cpu())):
            return super().__call__(inputs, **placing)
        x, bias = inputs.astype(self.dtype), None if self.bias is None else self.bias[...]
        if self.lora is not None:
            return self.lora(x, kernel=self.kernel[...], bias=bias, multiply=multiply)
        return multiply(x, self.kernel[...], bias)

    def weight(self) -> Float[Array, "*depth D E"]:
        """Return the matrix of the layer, with its low-rank update if it has one; float32."""
        return self.kernel[...] if self.lora is None else self.lora.weight(self.kernel[...])


def multiply(
    x: Float[Array, "*B D"], kernel: Float[Array, "D E"], bias: Float[Array, "E"] | None
) -> Float[Array, "*B E"]:
    """Return `x @ kernel + bias` in the dtype of `x`, as `Dense` does."""
    if not on_one_cpu():
        y = jnp.matmul(x, kernel.astype(x.dtype))
        return y if bias is None else _add_bias(y, bias)
    bias = jnp.zeros((kernel.shape[1],), jnp.float32) if bias is None else bias
    return (_dense if x.dtype == jnp.float32 else _row_major_dense)(x, kernel, bias)


def linear(width_in: int, width_out: int, *, dtype: jnp.dtype, rngs: nnx.Rngs, bias: bool = True) -> Dense:
    """Build a dense layer with float32 parameters, a LeCun-normal kernel and a bias that starts at zero."""
    return Dense(width_in, width_out, use_bias=bias, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)


@jax.custom_vjp
def _add_bias(y: Float[Array, "*B E"], bias: Float[Array, "E"]) -> Float[Array, "*B E"]:
    return y + along(bias.astype(y.dtype), y)


def along(vector: Float[Array, "E"], x: Float[Array, "*B E"]) -> Float[Array, "*B E"]:
    """Give `vector` the rank of `x`, for broadcasting along its last axis."""
    return vector.reshape(*(1,) * (x.ndim - 1), -1)


def sum_of_rows(dy: Float[Array, "*B E"]) -> Float[Array, "E"]:
    """Sum over all axes but the last in float32: the gradient of a vector that was broadcast `along` them."""
    return jnp.sum(dy, axis=tuple(range(dy.ndim - 1)), dtype=jnp.float32)


_add_bias.defvjp(lambda y, bias: (_add_bias(y, bias), None), lambda _, dy: (dy, sum_of_rows(dy)))


@jax.custom_vjp
def _dense(x: Float[Array, "*B D"], kernel: Float[Array, "D E"], bias: Float[Array, "E"]) -> Float[Array, "*B E"]:
    return _dense_forward(x, kernel, bias)[0]


def _dense_forward(x: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    rows = _contract(rows_of(x), kernel, axes=(1, 0)) + bias[None]
    return rows.reshape(*x.shape[:-1], kernel.shape[1]), (x, kernel)


def _dense_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array, Array]:
    x, kernel = saved
    dy = rows_of(dy)
    to_x = _contract(dy, kernel, axes=(1, 1)).reshape(x.shape)
    return to_x, _sum_of_products(rows_of(x), dy), sum_of_rows(dy)


def _sum_of_products(x: Float[Array, "M D"], dy: Float[Array, "M E"]) -> Float[Array, "D E"]:
    """Return x^T dy; of very many rows with the narrower one on the left.

    With 4,000 rows, 384 columns of x and 128 of dy, that takes two thirds of the time; with 400 rows of 3,072 and 768
    columns it would take a third more. The barrier keeps the compiler from turning the product round again.
    """
    rows, width = x.shape
    if width <= dy.shape[1] or rows < 8 * width:
        return _contract(x, dy, axes=(0, 0))
    return jax.lax.optimization_barrier(_contract(dy, x, axes=(0, 0))).T


_dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def _row_major_dense(
    x: Float[Array, "*B D"], kernel: Float[Array, "D E"], bias: Float[Array, "E"]
) -> Float[Array, "*B E"]:
    return _forward(x, kernel, bias)[0]


def _forward(x: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    rows = _product(rows_of(x), kernel.astype(x.dtype), contract=0) + bias[None]
    return rows.astype(x.dtype).reshape(*x.shape[:-1], kernel.shape[1]), (x, kernel)


def _backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array, Array]:
    x, kernel = saved
    dy = rows_of(dy)
    to_x = _product(dy, kernel.astype(x.dtype), contract=1).astype(x.dtype).reshape(x.shape)
    return to_x, _product(rows_of(x).T, dy, contract=0), sum_of_rows(dy)


_row_major_dense.defvjp(_forward, _backward)


def _product(a: Array, b: Array, *, contract: int) -> Float[Array, "M E"]:
    """Contract the last axis of `a` with axis `contract` of `b`; the result is float32.

    Both operands are made row-major first, so that the compiler folds none of their transposes into the product.
    """
    return _contract(row_major(a), row_major(b), axes=(1, contract))


def _contract(a: Array, b: Array, *, axes: tuple[int, int]) -> Float[Array, "M E"]:
    """Contract an axis of `a` with one of `b`; the result is float32."""
    return jax.lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), preferred_element_type=jnp.float32)


def row_major(x: Array) -> Array:
    """Have the compiler store an array in the order of its axes, on a single CPU device; elsewhere return it as is.

    The CPU compiler would rather keep a transposed array as it was, and read it with strides in each use.
    """
    return with_layout_constraint(x, Layout(tuple(range(x.ndim)))) if on_one_cpu() else x


def rows_of(x: Float[Array, "*B D"]) -> Float[Array, "M D"]:
    """Merge all axes but the last."""
    return rearrange(x, "... d -> (...) d")
