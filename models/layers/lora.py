"""Low-rank updates of the matrices of a pretrained model: LoRA, and DoRA, which also learns their magnitudes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .draws import drawn, dropout

Multiply = Callable[[Array, Array, Array | None], Array]
"""(x, kernel, bias or None) -> x @ kernel + bias, by the form of product that suits the device."""


class Lora(nnx.Module):
    """The update of one matrix W `[D,E]`, or of those of stacked layers `[depth,D,E]`.

    LoRA (Hu et al. 2021, arXiv:2106.09685): `y = x W + s (x A) B` with `s = alpha / rank`. B starts at zero, so that
    the model starts as it was; A starts uniform in +-1/sqrt(D), as in the authors' code.

    DoRA (Liu et al. 2024, arXiv:2402.09353): `y = x V m / |V|` with `V = W + s A B`. |V| are the norms of V's columns,
    through which no gradient flows (section 4.3); m starts as the norms of W's columns.

    Attributes:
      a: `[*depth,D,rank]`.
      b: `[*depth,rank,E]`.
      magnitude: m `[*depth,E]`, or None without it (LoRA).
    """

    def __init__(
        self,
        kernel: Float[Array, "*depth D E"],
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        magnitude: bool = False,
        number: int = 0,
        rngs: nnx.Rngs,
    ):
        """Build the update of `kernel`.

        Args:
          kernel: the matrices.
          rank: inner width of the update.
          alpha: the update is multiplied by `alpha / rank`.
          dropout: rate on the input of the update, in training.
          magnitude: learn m, too (DoRA).
          number: tells the draws of the layers of one block apart.
          rngs: source of the initial values.
        """
        *depth, width_in, width_out = kernel.shape
        self.scale, self.dropout, self.number = alpha / rank, dropout, number
        limit = width_in**-0.5
        self.a = nnx.Param(jax.random.uniform(rngs.params(), (*depth, width_in, rank), jnp.float32, -limit, limit))
        self.b = nnx.Param(jnp.zeros((*depth, rank, width_out), jnp.float32))
        self.magnitude = nnx.Param(column_norms(kernel)) if magnitude else None

    def __call__(
        self,
        x: Float[Array, "*B D"],
        *,
        kernel: Float[Array, "D E"],
        bias: Float[Array, "E"] | None,
        multiply: Multiply,
    ) -> Float[Array, "*B E"]:
        """Apply the updated layer to the last axis of `x`, in its dtype.

        Args:
          x: the input; in training its rows are those for which `draws.drawing` holds keys, or parts of them.
          kernel: W, float32.
          bias: added at the end, or None.
          multiply: how to multiply.
        """
        own = dropout(x, rate=self.dropout, keys=drawn(x.shape[0], number=self.number)) if self.dropout else x
        update = multiply(multiply(own, self.a[...], None), self.b[...], None)
        update = jnp.asarray(self.scale, x.dtype) * update
        if self.magnitude is None:
            return multiply(x, kernel, bias) + update
        y = (multiply(x, kernel, None) + update).astype(jnp.float32)
        factor = self.magnitude[...] / jax.lax.stop_gradient(column_norms(self._direction(kernel)))
        y = y * factor.reshape(*(1,) * (y.ndim - 1), -1)
        return (y if bias is None else y + bias.reshape(*(1,) * (y.ndim - 1), -1)).astype(x.dtype)

    def weight(self, kernel: Float[Array, "*depth D E"]) -> Float[Array, "*depth D E"]:
        """Return the matrix that stands for the updated layer: `W + s A B`, of DoRA with its columns of norm m."""
        made = self._direction(kernel)
        if self.magnitude is None:
            return made
        return made * (self.magnitude[...] / jax.lax.stop_gradient(column_norms(made)))[..., None, :]

    def _direction(self, kernel: Float[Array, "*depth D E"]) -> Float[Array, "*depth D E"]:
        return kernel + jnp.float32(self.scale) * jnp.matmul(self.a[...], self.b[...])


def column_norms(kernel: Float[Array, "*depth D E"]) -> Float[Array, "*depth E"]:
    """Return the Euclidean norm of each column, float32."""
    return jnp.sqrt(jnp.sum(jnp.square(kernel.astype(jnp.float32)), axis=-2))
