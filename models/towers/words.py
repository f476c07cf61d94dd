"""The text tower of word vectors: the mean or the maximum of the vectors of a text's words, or of a layer on them."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import unknown
from ..layers.dense import linear
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.pooling import masked_mean
from ..layers.recurrent import masked_max
from ..shapes import Text, TextMask

WORD_POOLS = ("mean", "max")
"""How the vectors of words become one."""


class WordsTower(nnx.Module):
    """A table of word vectors and a pool, in float32; for vectors of Word2Vec or GloVe see `zoo.convert.word_vectors`.

    Words that are not known are no tokens (`data.text.words.WordTokenizer`); a text without any gives zeros, unless
    padding is seen.

    Args:
      vocab_size: V.
      context_length: tokens L to which texts are padded.
      width: D, numbers of a word vector.
      pool: "mean" or "max" over the words of a text.
      hidden: width of a dense layer with ReLU on each word before the pool, then the tower's width; None = no layer.
      padding_seen: padding is pooled like words, as MIL-NCE was trained (Miech et al. 2020). Texts must then be padded
        to `context_length`.
      remat: has no effect.
      unroll: has no effect.
      rngs: source of the initial values.

    Raises:
      UserError: an unknown pool.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        width: int = 300,
        pool: str = "mean",
        hidden: int | None = None,
        padding_seen: bool = False,
        remat: str = "none",
        unroll: int = 1,
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        if pool not in WORD_POOLS:
            raise unknown("config.model.text.pool", pool, WORD_POOLS)
        self.context_length, self.width, self.dtype, self.pool = context_length, hidden or width, jnp.float32, pool
        self.padding_seen = padding_seen
        self.embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (vocab_size, width), jnp.float32))
        self.hidden = linear(width, hidden, dtype=jnp.float32, rngs=rngs) if hidden else None

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embedding", "hidden")

    def tokens(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B L D"]:
        """Return the vector of each word of `[B,L]`, zeros on padding that is not seen; nothing is random."""
        del keys
        x = jnp.take(self.embedding[...], text, axis=0)
        if self.hidden is not None:
            x = jax.nn.relu(self.hidden(x))
        x = x if self.padding_seen else jnp.where(mask[..., None], x, jnp.float32(0))
        return named(x, "activation/text/tokens")

    def __call__(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B D"]:
        """Encode texts, float32; a text without known words gives zeros."""
        x = self.tokens(text, mask=mask, keys=keys)
        mask = jnp.ones_like(mask) if self.padding_seen else mask
        return masked_mean(x, mask=mask) if self.pool == "mean" else masked_max(x, mask=mask)
