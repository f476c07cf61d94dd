"""The text tower: a bidirectional transformer over subword tokens."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.basics import compute_dtype, masked_mean
from ..layers.blocks import Blocks
from ..layers.draws import RowKeys
from ..layers.names import named
from ..shapes import Text, TextMask


class TextTower(nnx.Module):
    """Transformer text encoder; the sentence is the mean of its real tokens' outputs."""

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        width: int = 512,
        depth: int = 12,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        dropout: float = 0.0,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Build the tower.

        Args:
          vocab_size: V.
          context_length: the most tokens L of a text; shorter ones are padded.
          width: D.
          depth: blocks.
          heads: attention heads K.
          mlp_ratio: hidden width of the MLPs / D.
          activation: a name of `layers.ACTIVATIONS`.
          dropout: rate on the residual branches.
          remat: a policy of `models.layers.remat`.
          unroll: layers in one turn of the loop over them; 0 = all.
          dtype: compute dtype, float32 or bfloat16.
          rngs: where the initial values come from.
        """
        self.context_length, self.width, self.dtype = context_length, width, compute_dtype(dtype)
        self.embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (vocab_size, width), jnp.float32))
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (context_length, width), jnp.float32))
        self.blocks = Blocks(
            width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            activation=activation,
            dropout=dropout,
            tower="text",
            remat=remat,
            unroll=unroll,
            dtype=self.dtype,
            rngs=rngs,
        )

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embedding", "position", "blocks/layers", "blocks/norm")

    def __call__(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B D"]:
        """Encode token ids `[B,L]`, L at most `context_length`; `keys` turns dropout on.

        Padding is neither seen nor averaged.
        """
        length = text.shape[1]
        if length > self.context_length:
            raise UserError(
                f"text of {length} tokens, the tower has positions for {self.context_length}; "
                "set config.data.context_length to that or less"
            )
        x = jnp.take(self.embedding[...], text, axis=0) + self.position[...][None, :length]  # [B,L,D]
        x = named(x.astype(self.dtype), "activation/text/tokens")
        return masked_mean(self.blocks(x, mask=mask, keys=keys), mask=mask)
