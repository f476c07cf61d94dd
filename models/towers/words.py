"""The text tower of word vectors: the mean or the maximum of the vectors of a text's words."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import unknown
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.pooling import masked_mean
from ..layers.recurrent import masked_max
from ..shapes import Text, TextMask

WORD_POOLS = ("mean", "max")
"""How the vectors of words become one."""


class WordsTower(nnx.Module):
    """A table of word vectors and a pool, in float32; for vectors of Word2Vec or GloVe see `zoo.convert.word_vectors`.

    Words that are not known are no tokens (`data.text.words.WordTokenizer`); a text without any gives zeros.

    Args:
      vocab_size: V.
      context_length: tokens L to which texts are padded.
      width: D, numbers of a word vector.
      pool: "mean" or "max" over the words of a text.
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
        remat: str = "none",
        unroll: int = 1,
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        if pool not in WORD_POOLS:
            raise unknown("config.model.text.pool", pool, WORD_POOLS)
        self.context_length, self.width, self.dtype, self.pool = context_length, width, jnp.float32, pool
        self.embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (vocab_size, width), jnp.float32))

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embedding",)

    def tokens(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B L D"]:
        """Return the vector of each word of `[B,L]`, zeros on padding; nothing is random."""
        del keys
        x = jnp.where(mask[..., None], jnp.take(self.embedding[...], text, axis=0), jnp.float32(0))
        return named(x, "activation/text/tokens")

    def __call__(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B D"]:
        """Encode texts, float32; a text without known words gives zeros."""
        x = self.tokens(text, mask=mask, keys=keys)
        return masked_mean(x, mask=mask) if self.pool == "mean" else masked_max(x, mask=mask)
