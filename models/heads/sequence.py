"""A head that tells from the clips of a session which one comes next, and the model around it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from ..layers.blocks import Blocks
from ..layers.dense import linear
from ..layers.draws import RowKeys, dropout, fold
from ..layers.norm import LayerNorm, unit_rows
from ..layers.options import BlockOptions
from ..layers.recurrent import RecurrentStack
from ..shapes import Embedding, Video

SESSIONS = ("mean", "gru", "attention")
"""How a history becomes one vector: the mean of its items, a GRU (Hidasi et al. 2016), or causal self-attention."""


class SequenceHead(nnx.Module):
    """Items to vectors by their content, and histories to vectors in the same space; the cosine of both is the score.

    "gru" is the session model of GRU4Rec (Hidasi et al. 2016, arXiv:1511.06939), "attention" that of SASRec (Kang &
    McAuley 2018, arXiv:1808.09781), with items that are embedded from their content and not by their number: an item
    that no session has is scored like any other.
    """

    def __init__(
        self,
        *,
        width: int,
        times: int = 1,
        embed_dim: int = 128,
        session: str = "attention",
        depth: int = 2,
        heads: int = 4,
        max_length: int = 50,
        dropout: float = 0.1,
        initial_scale: float = 10.0,
        rngs: nnx.Rngs,
    ):
        """Build the layers.

        Args:
          width: D of the time tokens.
          times: T of the time tokens that make an item's vector, side by side; 1 = their mean.
          embed_dim: E; of "attention" a multiple of `heads`.
          session: one of `SESSIONS`.
          depth: layers of the session model.
          heads: attention heads.
          max_length: items of a history at most.
          dropout: rate on the items of a history and in the session model.
          initial_scale: factor on cosines in the loss at the start; it is learned.
          rngs: source of the initial values.

        Raises:
          UserError: an unknown session model, or sizes that do not divide.
        """
        if session not in SESSIONS:
            raise unknown("config.task.session:", session, SESSIONS)
        if session == "attention" and embed_dim % heads:
            raise UserError(f"config.task.embed_dim={embed_dim} must be a multiple of config.task.heads={heads}")
        make = {"dtype": jnp.float32, "rngs": rngs}
        self.dropout, self.times = dropout, times
        self.norm, self.hidden = LayerNorm(width * times, **make), linear(width * times, 2 * embed_dim, **make)
        self.item = linear(2 * embed_dim, embed_dim, **make)
        one_head = heads if session == "attention" else 1
        options = BlockOptions(width=embed_dim, heads=one_head, dropout=dropout, causal=True, tower="head")
        self.blocks = Blocks(options, depth=depth, rngs=rngs) if session == "attention" else None
        sizes = {"cell": "gru", "depth": depth, "bidirectional": False, "field": "config.task"}
        self.recurrent = RecurrentStack(embed_dim, embed_dim, **sizes, rngs=rngs) if session == "gru" else None
        start = 0.02 * jax.random.normal(rngs.params(), (max_length, embed_dim), jnp.float32)
        self.position = nnx.Param(start) if session == "attention" else None
        self.log_scale = nnx.Param(jnp.asarray(math.log(initial_scale), jnp.float32))

    @property
    def scale(self) -> Float[Array, ""]:
        """The factor on cosines in the loss, at most 100."""
        return jnp.minimum(jnp.exp(self.log_scale[...]), jnp.float32(100))

    def vectors(self, tokens: Float[Array, "N T D"]) -> Float[Array, "N C"]:
        """Return an item's vector from its time tokens: their mean, or all side by side; float32."""
        tokens = tokens.astype(jnp.float32)
        return jnp.mean(tokens, axis=1) if self.times == 1 else tokens.reshape(tokens.shape[0], -1)

    def items(self, vectors: Float[Array, "N C"]) -> Embedding:
        """Embed items by their content: float32 rows of unit length."""
        hidden = jax.nn.gelu(self.hidden(self.norm(vectors.astype(jnp.float32))))
        return unit_rows(self.item(hidden))

    def histories(
        self, items: Float[Array, "B L E"], *, mask: Bool[Array, "B L"], keys: RowKeys | None = None
    ) -> Float[Array, "B L E"]:
        """Embed the beginnings of sessions, the last item of each included: float32, of unit length.

        Args:
          items: of `items`, in order of time, from the first place on.
          mask: True where there is an item.
          keys: one for each row; turns dropout on.
        """
        length, size = items.shape[1], jnp.float32(math.sqrt(items.shape[2]))
        x = dropout(jnp.where(mask[..., None], items, jnp.float32(0)), rate=self.dropout, keys=fold(keys, 0))
        if self.blocks is not None and self.position is not None:
            return unit_rows(self.blocks(x * size + self.position[...][None, :length], mask=mask, keys=fold(keys, 1)))
        if self.recurrent is not None:
            return unit_rows(self.recurrent(x * size, mask=mask))
        return unit_rows(jnp.cumsum(x, axis=1))  # of unit length, hence the mean


class SessionModel(nnx.Module):
    """A video tower and a head on its time tokens."""

    def __init__(self, *, video: Any, head: SequenceHead):
        """Join them; the tower's `features` give `[B,T,D]` for clips."""
        self.video, self.head = video, head

    def __call__(self, video: Video) -> Float[Array, "B C"]:
        """Return the vector of each clip, which the head takes, float32."""
        return self.score(self.video.features(video, drop_patches=False))

    def score(self, tokens: Float[Array, "B T D"]) -> Float[Array, "B C"]:
        """Return the vectors of time tokens that were computed before, float32."""
        return self.head.vectors(tokens)


SEQUENCE_HEADS: dict[str, type[SequenceHead]] = {"sequence": SequenceHead}
"""`kind` of a head in a spec -> class."""
