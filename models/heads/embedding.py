"""A head that embeds clips for comparison by cosine, and the model around it: who is it, or is it the same one?"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError, unknown
from ..layers.dense import linear
from ..layers.draws import RowKeys, dropout, fold
from ..layers.norm import LayerNorm, unit_rows
from ..layers.options import BlockOptions
from ..layers.pooling import AttentionPool, masked_mean
from ..shapes import Embedding, Video

POOLS = ("mean", "attentive")
"""How time tokens become one vector: their mean, or a learned query that attends to them."""


class EmbeddingHead(nnx.Module):
    """Pooled tokens, LayerNorm, dropout and a dense layer to unit length; and a vector for each class of training.

    The embedding layer of ArcFace (Deng et al. 2019, arXiv:1801.07698, section 3.2). The classes are there for the loss
    alone: others than those of training are told apart by their embeddings.
    """

    def __init__(
        self,
        *,
        width: int,
        num_classes: int,
        embed_dim: int = 128,
        pool: str = "attentive",
        heads: int = 4,
        positions: bool = False,
        hidden: int = 0,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """Build the head.

        Args:
          width: D of the tokens; with "attentive" a multiple of `heads`.
          num_classes: classes of training.
          embed_dim: E.
          pool: one of `POOLS`.
          heads: attention heads of the pooling.
          positions: the pooling knows the place of each token; `width` is even.
          hidden: width of a layer with GELU before the embedding; 0 = none.
          dropout: rate on the pooled vector.
          rngs: source of the initial values.

        Raises:
          UserError: an unknown pooling, or sizes that do not divide.
        """
        if pool not in POOLS:
            raise unknown("config.task.pool:", pool, POOLS)
        if pool == "attentive" and width % heads:
            raise UserError(
                f"the tower's width={width} must be a multiple of heads={heads}; set config.task.heads to a divisor"
            )
        make = {"dtype": jnp.float32, "rngs": rngs}
        layers = {"norm_tokens": True, "positions": positions, "mlp": True, "rngs": rngs}
        options = BlockOptions(width=width, heads=heads if pool == "attentive" else 1, tower="head")
        self.dropout = dropout
        self.pool = AttentionPool(options, **layers) if pool == "attentive" else None
        self.norm = LayerNorm(width, **make)
        self.hidden = linear(width, hidden, **make) if hidden else None
        self.out = linear(hidden or width, embed_dim, **make)
        self.classes = nnx.Param(jax.random.normal(rngs.params(), (num_classes, embed_dim), jnp.float32))

    def __call__(self, tokens: Float[Array, "B L D"], *, keys: RowKeys | None = None) -> Embedding:
        """Embed clips, float32 rows of unit length; without `keys` dropout is off."""
        pooled = masked_mean(tokens) if self.pool is None else self.pool(tokens)[:, 0]  # [B,D]
        x = dropout(self.norm(pooled.astype(jnp.float32)), rate=self.dropout, keys=keys)
        return unit_rows(self.out(x if self.hidden is None else jax.nn.gelu(self.hidden(x))))

    def cosines(self, embedding: Embedding) -> Float[Array, "B classes"]:
        """Return the cosines of embeddings with the vectors of the classes, float32."""
        return jnp.einsum("be,ke->bk", embedding, unit_rows(self.classes[...]), precision=jax.lax.Precision.HIGHEST)


class EmbeddingModel(nnx.Module):
    """A video tower and a head that embeds its time tokens."""

    def __init__(self, *, video: Any, head: EmbeddingHead):
        """Join them; the tower's `features` give `[B,T,D]` for clips."""
        self.video, self.head = video, head

    def __call__(self, video: Video, *, keys: RowKeys | None = None, frozen: bool = False) -> Embedding:
        """Embed clips.

        Args:
          video: uint8 `[B,T,H,W,3]`.
          keys: one for each row; turns dropout on, never patch dropout.
          frozen: the tower is not trained: no gradient flows into it and its dropout stays off.

        Returns:
          float32 `[B,E]`, rows of unit length.
        """
        own = None if frozen else fold(keys, 0)
        tokens = self.video.features(video, keys=own, drop_patches=False)  # [B,T,D]
        return self.score(jax.lax.stop_gradient(tokens) if frozen else tokens, keys=keys)

    def score(self, tokens: Float[Array, "B T D"], *, keys: RowKeys | None = None) -> Embedding:
        """Embed the tower's time tokens, such as those of a frozen tower that were computed before."""
        return self.head(tokens, keys=fold(keys, 1))


EMBEDDING_HEADS: dict[str, type[EmbeddingHead]] = {"embedding": EmbeddingHead}
"""`kind` of a head in a spec -> class."""
