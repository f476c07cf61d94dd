"""Text-conditioned pooling: a text chooses the frames of a clip that it is compared with (X-Pool)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from ..layers.dense import Dense
from ..layers.draws import RowKeys, dropout, fold
from ..layers.norm import LayerNorm, unit_rows
from .sides import Clips, Texts

_HIDDEN = -1e30  # score of a frame that is not real
_FIELD = "config.model.heads.text_pooling"


class XPool(nnx.Module):
    """Cross-attention of a text to the frames of a clip (X-Pool, Gorti et al. 2022, arXiv:2203.15086, section 4.2).

    With the text's embedding t and the clip's frames C, both in the joint space,

        r = LN(softmax(q(LN(t)) k(LN(C))^T / sqrt(d)) v(LN(C)) W_o),   z = LN(FC(r) + r),

    and the pair's score is the cosine of t and z. Queries, keys, values, W_o and FC are maps `[E] -> [E]` with biases
    that start as the identity, as in the paper's code. So training starts near a softmax over the frames by their
    cosines with the text.

    Attributes:
      sees_words: False: of a text it takes the embedding alone.
    """

    sees_words: ClassVar[bool] = False

    def __init__(self, *, embed_dim: int, heads: int = 1, dropout: float = 0.0, block: int = 64, rngs: nnx.Rngs):
        """Build the head.

        Args:
          embed_dim: E.
          heads: attention heads K; they divide E.
          dropout: rate on FC(r); the paper's code has 0.3.
          block: clips that meet all texts at a time, see `scores`. Changes memory, not the scores.
          rngs: source of the initial values.

        Raises:
          UserError: sizes that do not divide, or a value out of its range.
        """
        if heads < 1 or embed_dim % heads:
            raise UserError(f"config.model.embed_dim={embed_dim} must divide by {_FIELD}.heads={heads}; change one")
        if not 0 <= dropout < 1 or block < 1:
            raise UserError(f"{_FIELD}: dropout={dropout} must be at least 0 and below 1, and block={block} 1 or more")
        self.heads, self.dropout, self.block = heads, dropout, block
        self.norm_in, self.norm_pooled, self.norm_out = (
            LayerNorm(embed_dim, dtype=jnp.float32, rngs=rngs) for _ in range(3)
        )
        maps = [_identity(embed_dim, rngs=rngs) for _ in range(5)]
        self.query, self.key, self.value, self.out, self.mix = maps

    def __call__(self, texts: Texts, *, clips: Clips, keys: RowKeys | None = None) -> Float[Array, "P"]:
        """Score pair p of text p and clip p: cosines, float32; `keys`, one for each pair, turns dropout on."""
        k, v = self._context(clips.frames)  # [P,T,K,d]
        q = self._query(texts.embedding)  # [P,K,d]
        weights = _weights(jnp.einsum("pkd,ptkd->pkt", q, k), mask=_real(clips)[:, None, :], size=q.shape[-1])
        z = self._pooled(jnp.einsum("pkt,ptkd->pkd", weights, v), keys=keys)  # [P,E]
        return jnp.sum(unit_rows(texts.embedding) * z, axis=-1)

    def scores(self, texts: Texts, *, clips: Clips, keys: RowKeys | None = None) -> Float[Array, "n m"]:
        """Score all pairs of n texts and m clips: cosines, float32.

        `block` clips at a time meet all texts, so memory grows with `n * block * E`; the backward pass computes each
        block again.

        Args:
          texts: n texts.
          clips: m clips.
          keys: one for each text; turns dropout on.
        """
        q, (k, v) = self._query(texts.embedding), self._context(clips.frames)
        text, total = unit_rows(texts.embedding), k.shape[0]
        size = min(self.block, total)
        count = -(-total // size)
        filled = [jnp.pad(x, ((0, count * size - total), *((0, 0),) * (x.ndim - 1))) for x in (k, v, _real(clips))]
        parts = [_everywhere(x).reshape(count, size, *x.shape[1:]) for x in filled]

        def block(at: tuple[Array, ...]) -> Float[Array, "n block"]:
            number, k, v, mask = at
            scores = jnp.einsum("nkd,mtkd->nmkt", q, k)
            weights = _weights(scores, mask=mask[None, :, None, :], size=q.shape[-1])
            z = self._pooled(jnp.einsum("nmkt,mtkd->nmkd", weights, v), keys=fold(keys, number))
            return jnp.einsum("ne,nme->nm", text, z, precision="highest")  # as the cosines of two embeddings are

        found = jax.lax.map(jax.checkpoint(block, prevent_cse=False), (jnp.arange(count), *parts))  # [count,n,block]
        return rearrange(found, "c n m -> n (c m)")[:, :total]

    def _query(self, embedding: Float[Array, "n E"]) -> Float[Array, "n K d"]:
        return rearrange(self.query(self.norm_in(embedding)), "n (k d) -> n k d", k=self.heads)

    def _context(self, frames: Float[Array, "m T E"]) -> tuple[Float[Array, "m T K d"], Float[Array, "m T K d"]]:
        x = self.norm_in(frames)
        k, v = (rearrange(made(x), "m t (k d) -> m t k d", k=self.heads) for made in (self.key, self.value))
        return k, v

    def _pooled(self, attended: Float[Array, "*pairs K d"], *, keys: RowKeys | None) -> Float[Array, "*pairs E"]:
        """Return the embedding of a clip for a text, of unit length."""
        r = self.norm_pooled(self.out(rearrange(attended, "... k d -> ... (k d)")))
        return unit_rows(self.norm_out(r + dropout(self.mix(r), rate=self.dropout, keys=keys)))


def _identity(width: int, *, rngs: nnx.Rngs) -> Dense:
    """Build a map that starts as the identity."""

    def eye(key: Array, shape: tuple[int, ...], dtype: jnp.dtype, **placing: object) -> Array:
        del key, placing
        return jnp.eye(*shape, dtype=dtype)

    return Dense(width, width, kernel_init=eye, dtype=jnp.float32, param_dtype=jnp.float32, rngs=rngs)


def _weights(scores: Float[Array, "... K T"], *, mask: Bool[Array, "... 1 T"], size: int) -> Float[Array, "... K T"]:
    """Return the softmax over real frames of products of queries and keys with `size` channels."""
    return jax.nn.softmax(jnp.where(mask, scores * jnp.float32(size**-0.5), jnp.float32(_HIDDEN)), axis=-1)


def _real(clips: Clips) -> Bool[Array, "m T"]:
    return jnp.ones(clips.frames.shape[:2], bool) if clips.mask is None else clips.mask


def _everywhere(x: Array) -> Array:
    """Give each device of the context's mesh all clips; it keeps its share of the texts."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, PartitionSpec())
