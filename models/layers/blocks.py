"""Transformer blocks: one block's code, a stack of blocks as one block with stacked parameters under `lax.scan`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from .attention import Attention
from .basics import ACTIVATIONS, LayerNorm, linear
from .draws import RowKeys, dropout, fold
from .names import named
from .remat import check_remat, rematerialised


class Block(nnx.Module):
    """A pre-norm transformer block: attention and MLP, each with dropout on its residual branch."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        mlp_ratio: float,
        activation: str,
        dropout: float,
        tower: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        self.activation, self.dropout, self.tower = activation, dropout, tower
        self.norm1 = LayerNorm(width, dtype=dtype, rngs=rngs)
        self.attention = Attention(width, heads=heads, tower=tower, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(width, dtype=dtype, rngs=rngs)
        hidden = int(width * mlp_ratio)
        self.up = linear(width, hidden, dtype=dtype, rngs=rngs)
        self.down = linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply the block; without `keys` dropout is off."""
        x = x + dropout(self.attention(self.norm1(x), mask=mask), rate=self.dropout, keys=fold(keys, 0))
        hidden = named(self.up(self.norm2(x)), f"activation/{self.tower}/hidden")  # [B,L,mlp_ratio*D]
        x = x + dropout(self.down(ACTIVATIONS[self.activation](hidden)), rate=self.dropout, keys=fold(keys, 1))
        return named(x, f"activation/{self.tower}/tokens")


class Blocks(nnx.Module):
    """A stack of `depth` blocks and a final LayerNorm.

    `layers` is one `Block` whose parameters have a leading axis of length `depth`; `lax.scan` runs over it, so that a
    deep tower is traced and compiled as fast as a shallow one. With `depth=0` there are no layers.
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int,
        heads: int,
        mlp_ratio: float,
        activation: str,
        dropout: float,
        tower: str,
        remat: str = "none",
        unroll: int = 1,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the stack.

        Args:
          width: D.
          depth: how many blocks.
          heads: attention heads K.
          mlp_ratio: hidden width of the MLPs / D.
          activation: a name of `layers.ACTIVATIONS`.
          dropout: rate on the residual branches.
          tower: what the activations are called: `activation/<tower>/qkv` and so on.
          remat: what the backward pass computes again, see `models.layers.remat`.
          unroll: how many layers one turn of the loop holds; 0 = all, no loop. Changes speed, not parameters.
          dtype: compute dtype.
          rngs: where the initial values come from.

        Raises:
          UserError: a policy or activation function that is not known, or a value out of its range.
        """
        check_remat(remat)
        if unroll < 0:
            raise UserError(f"config.model.unroll must be a number of layers, or 0 for all of them, got {unroll}")
        if not 0 <= dropout < 1:
            raise UserError(f"config.model.{tower}.dropout must be at least 0 and below 1, got {dropout}")
        self.depth, self.remat, self.unroll = depth, remat, unroll
        block = {"heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout, "tower": tower}
        self.layers = stacked(lambda r: Block(width, **block, dtype=dtype, rngs=r), depth=depth, rngs=rngs)
        self.norm = LayerNorm(width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply all blocks and the final norm; without `keys` dropout is off."""
        if self.layers is None:
            return self.norm(x)
        graph, params = nnx.split(self.layers)

        def layer(x: Array, at: tuple[Any, Array]) -> tuple[Array, None]:
            params, number = at
            return nnx.merge(graph, params)(x, mask=mask, keys=fold(keys, number)), None

        unroll = min(self.unroll or self.depth, self.depth)
        body = rematerialised(layer, policy=self.remat, looped=unroll < self.depth)
        x, _ = jax.lax.scan(body, x, (params, jnp.arange(self.depth)), unroll=unroll)
        return self.norm(x)


def stacked(make: Callable[[nnx.Rngs], nnx.Module], *, depth: int, rngs: nnx.Rngs) -> Any:
    """Build `depth` modules as one, each parameter with a leading axis of that length; None if `depth` is 0.

    Args:
      make: builds one module; each call gets random streams of its own.
      depth: how many.
      rngs: where the initial values come from.
    """
    if depth == 0:
        return None
    keys = jax.random.split(rngs.params(), depth)
    graph = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]
    params = jax.vmap(lambda key: nnx.state(make(nnx.Rngs(key))))(keys)
    return nnx.merge(graph, params)
