"""The recurrent text tower: LSTM or GRU over learned embeddings of tokens."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..layers.draws import RowKeys, dropout, fold
from ..layers.names import named
from ..layers.recurrent import RecurrentStack, check_recurrent_pool, pool_recurrent
from ..shapes import Text, TextMask


class RecurrentTextTower(nnx.Module):
    """LSTM or GRU text encoder (as in VSE++, Faghri et al. 2018, and W2VV++, Li et al. 2019); computes in float32.

    Padding has no part in it, and a text may be of any length.

    Args:
      vocab_size: V.
      context_length: tokens L to which texts are padded.
      width: D; each of two directions has half of it.
      depth: recurrent layers.
      cell: "lstm" or "gru".
      bidirectional: go in both directions.
      embedding_width: channels of the embeddings; None = D.
      pool: "mean" or "max" over the real tokens, or "last", the state after the last step of each direction.
      dropout: rate on the embeddings.
      remat: has no effect.
      unroll: has no effect.
      rngs: source of the initial values.

    Raises:
      UserError: a value out of its range, or an unknown name.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        width: int = 512,
        depth: int = 1,
        cell: str = "lstm",
        bidirectional: bool = True,
        embedding_width: int | None = None,
        pool: str = "mean",
        dropout: float = 0.0,
        remat: str = "none",
        unroll: int = 1,
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        check_recurrent_pool(pool, field="config.model.text.pool")
        self.context_length, self.width, self.dtype = context_length, width, jnp.float32
        self.pool, self.bidirectional, self.dropout = pool, bidirectional, dropout
        inside = embedding_width or width
        self.embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (vocab_size, inside), jnp.float32))
        kind = {"cell": cell, "depth": depth, "bidirectional": bidirectional, "field": "config.model.text"}
        self.layers = RecurrentStack(inside, width, **kind, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embedding", "layers")

    def tokens(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B L D"]:
        """Encode token ids `[B,L]`, one vector per token, zeros on padding; `keys` turns dropout on."""
        x = jnp.take(self.embedding[...], text, axis=0)  # [B,L,C]
        x = dropout(x, rate=self.dropout, keys=fold(keys, 0))
        return self.layers(named(x, "activation/text/tokens"), mask=mask)

    def __call__(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B D"]:
        """Encode texts, float32; a text without tokens gives zeros."""
        x = self.tokens(text, mask=mask, keys=keys)
        return pool_recurrent(x, mask=mask, pool=self.pool, bidirectional=self.bidirectional)
