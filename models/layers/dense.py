"""Dense layers, and how their matrix products are put to a CPU."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from .devices import on_one_cpu


class Dense(nnx.Linear):
    """A dense layer with float32 parameters; `nnx.Linear` but for its bias, and for its matrix products on a CPU.

    In bfloat16 the gradient of the bias is summed over the rows in float32: left to the compiler the sum may be rounded
    on its way, and came out 13 to 46 % off on a CPU.

    The CPU compiler gives a product to its fast library (in bfloat16 to the matrix unit, where there is one) only if
    both operands lie row by row and the result is float32; it computes any other bfloat16 product in float32, at a
    quarter of the rate, and rounds. So there the products of both passes are written in that form.
    Other backends, several CPU devices and float32 (for which it costs a sixth of a step and brings nothing) keep jax's
    own products.
    """

    def __call__(self, inputs: Float[Array, "*B D"], **placing) -> Float[Array, "*B E"]:
        """Apply the layer to the last axis; `placing` is what `nnx.Linear` takes besides."""
        if placing or self.dtype == jnp.float32:
            return super().__call__(inputs, **placing)
        x, kernel = inputs.astype(self.dtype), self.kernel[...]
        if not on_one_cpu():
            y = jnp.matmul(x, kernel.astype(x.dtype))
            return y if self.bias is None else _add_bias(y, self.bias[...])
        bias = jnp.zeros((self.out_features,), jnp.float32) if self.bias is None else self.bias[...]
        return _row_major_dense(x, kernel, bias)


@jax.custom_vjp
def _add_bias(y: Float[Array, "*B E"], bias: Float[Array, "E"]) -> Float[Array, "*B E"]:
    return y + along(bias.astype(y.dtype), y)


def along(vector: Float[Array, "E"], x: Float[Array, "*B E"]) -> Float[Array, "*B E"]:
    """Give `vector` the rank of `x`, to be joined with its last axis."""
    return vector.reshape(*(1,) * (x.ndim - 1), -1)


def sum_of_rows(dy: Float[Array, "*B E"]) -> Float[Array, "E"]:
    """Sum over all axes but the last, in float32: the gradient of a vector that was added `along` them."""
    return jnp.sum(dy, axis=tuple(range(dy.ndim - 1)), dtype=jnp.float32)


_add_bias.defvjp(lambda y, bias: (_add_bias(y, bias), None), lambda _, dy: (dy, sum_of_rows(dy)))


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
    """Contract the last axis of `a` with axis `contract` of `b`, to float32.

    Both operands are brought into rows first, so that the compiler folds no transpose of theirs into the product.
    """
    a, b = (with_layout_constraint(side, Layout((0, 1))) for side in (a, b))
    return jax.lax.dot_general(a, b, (((1,), (contract,)), ((), ())), preferred_element_type=jnp.float32)


def rows_of(x: Float[Array, "*B D"]) -> Float[Array, "M D"]:
    """Lay out all axes but the last as one."""
    return rearrange(x, "... d -> (...) d")
