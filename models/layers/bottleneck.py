"""Adapters: small bottleneck MLPs behind the branches of a frozen transformer block."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .activations import activate
from .dense import Dense


class Bottleneck(nnx.Module):
    """`x + expand(activation(reduce(x)))` with an inner width below D (Houlsby et al. 2019, arXiv:1902.00751).

    `expand` starts at zero, so that the model starts as it was (the paper: near zero).
    """

    def __init__(self, *, width: int, inner: int, activation: str, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the layers.

        Args:
          width: D of the tokens.
          inner: width of the bottleneck.
          activation: a name of `activations.ACTIVATIONS`.
          dtype: compute dtype.
          rngs: source of the initial values.
        """
        self.activation = activation
        given = {"dtype": dtype, "param_dtype": jnp.float32, "rngs": rngs}
        self.reduce = Dense(width, inner, **given)
        self.expand = Dense(inner, width, kernel_init=nnx.initializers.zeros_init(), **given)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Apply the adapter to the last axis."""
        return x + self.expand(activate(self.reduce(x), name=self.activation)).astype(x.dtype)
