"""Heads along time: the time tokens of a video tower, with a text as query or without, and the model around a head."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from ..layers.blocks import Blocks, Context
from ..layers.dense import linear
from ..layers.draws import RowKeys, dropout, fold
from ..layers.norm import LayerNorm
from ..layers.options import BlockOptions
from ..layers.pooling import masked_mean
from ..layers.positions import sinusoids
from ..layers.recurrent import CELLS, RecurrentStack
from ..shapes import FrameFeatures, Text, TextMask, Video

ENCODERS = ("transformer", *CELLS)
"""Layers over time."""


class Timeline(nnx.Module):
    """Time tokens `[B,T,D_video]` to `[B,T,D]`, each aware of the others and of the query.

    Tokens and query are projected to one width. The product of each token with the mean token of the query is added to
    it (Hadamard fusion, 2D-TAN, Zhang et al. 2020); the transformer's blocks also attend to the query's tokens.
    """

    def __init__(
        self,
        *,
        video_width: int,
        text_width: int | None,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        encoder: str = "transformer",
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """Build the layers.

        Args:
          video_width: of the time tokens.
          text_width: of the query's tokens; None = there is no query.
          width: D, even.
          depth: layers over time.
          heads: attention heads; divides `width`.
          encoder: one of `ENCODERS`; "lstm" and "gru" go both ways and see the query through the product only.
          dropout: rate on the tokens and on the residual branches.
          rngs: source of the initial values.

        Raises:
          UserError: an unknown encoder, or sizes that do not divide.
        """
        if encoder not in ENCODERS:
            raise unknown("config.task.encoder:", encoder, ENCODERS)
        if width % 2 or width % heads:
            raise UserError(f"config.task.width={width} must be even and a multiple of config.task.heads={heads}")
        self.width, self.dropout = width, dropout
        make = {"dtype": jnp.float32, "rngs": rngs}
        self.norm_video, self.project = LayerNorm(video_width, **make), linear(video_width, width, **make)
        has_text = text_width is not None
        self.norm_text = LayerNorm(text_width, **make) if has_text else None
        self.project_text = linear(text_width, width, **make) if has_text else None
        self.fuse = linear(width, width, **make) if has_text else None
        cross = width if has_text else None
        options = BlockOptions(width=width, heads=heads, dropout=dropout, cross_width=cross, tower="head")
        sizes = {"cell": encoder, "depth": depth, "bidirectional": True, "field": "config.task"}
        self.blocks = Blocks(options, depth=depth, rngs=rngs) if encoder == "transformer" else None
        self.recurrent = None if self.blocks else RecurrentStack(width, width, **sizes, rngs=rngs)
        self.norm = None if self.blocks else LayerNorm(width, **make)

    def __call__(
        self,
        tokens: FrameFeatures,
        *,
        query: Float[Array, "B L C"] | None = None,
        query_mask: TextMask | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B T D"]:
        """Encode; without `keys` dropout is off.

        Args:
          tokens: of the video tower.
          query: tokens of the text; needed if there was a `text_width`.
          query_mask: True where one is real.
          keys: one for each row.
        """
        x = self.project(self.norm_video(tokens.astype(jnp.float32)))
        x = x + jnp.asarray(sinusoids(x.shape[1], width=self.width), jnp.float32)[None]
        context = None
        if self.project_text is not None and self.norm_text is not None and self.fuse is not None:
            assert query is not None
            words = self.project_text(self.norm_text(query.astype(jnp.float32)))  # [B,L,D]
            mean = masked_mean(words, mask=query_mask)
            x, context = x + self.fuse(x * mean[:, None]), Context(words, query_mask)
        x = dropout(x, rate=self.dropout, keys=fold(keys, 0))
        if self.blocks is not None:
            return self.blocks(x, context=context, keys=fold(keys, 1))
        assert self.recurrent is not None and self.norm is not None
        return self.norm(x + self.recurrent(x, mask=jnp.ones(x.shape[:2], bool)))


class TimelineModel(nnx.Module):
    """A video tower, a text tower if there are queries, and a head along time."""

    def __init__(self, *, video: Any, text: Any = None, head: Any):
        """Join towers and head.

        Args:
          video: a tower of `models/towers`; its `features` give `[B,T,D]` for clips.
          text: a tower whose `tokens` give `[B,L,D]` for token ids; None without queries.
          head: of `models/heads`; takes tokens, query, query_mask and keys.
        """
        self.video, self.text, self.head = video, text, head

    def __call__(
        self,
        video: Video,
        *,
        query: Text | None = None,
        query_mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
        frozen: bool = False,
    ) -> Any:
        """Apply towers and head to clips, uint8 `[B,T,H,W,3]`; for the other arguments see `score`."""
        own = None if frozen else fold(keys, 0)
        tokens = self.video.features(video, keys=own, drop_patches=False)  # [B,T,D]
        tokens = jax.lax.stop_gradient(tokens) if frozen else tokens
        return self.score(tokens, query=query, query_mask=query_mask, keys=keys, frozen=frozen)

    def score(
        self,
        tokens: FrameFeatures,
        *,
        query: Text | None = None,
        query_mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
        frozen: bool = False,
    ) -> Any:
        """Apply the head to the video tower's time tokens, such as those of a frozen tower computed before.

        Args:
          tokens: `[B,T,D]`.
          query: token ids `[B,L]`; None for a head without queries.
          query_mask: True where a token is real.
          keys: one for each row; turns dropout on.
          frozen: the towers are not trained: no gradient flows into that of texts and its dropout stays off. It does
            flow into `tokens`, which layers of several tasks may have made.

        Returns:
          What the head gives.
        """
        words = None
        if self.text is not None:
            assert query is not None
            words = self.text.tokens(query, mask=query_mask, keys=None if frozen else fold(keys, 2))
            words = jax.lax.stop_gradient(words) if frozen else words
        return self.head(tokens, query=words, query_mask=query_mask, keys=fold(keys, 1))


def new_scores(width: int, count: int, *, prior: float, rngs: nnx.Rngs) -> nnx.Linear:
    """Build a last layer whose scores all start near log(prior / (1 - prior)) (Lin et al. 2017, section 4.1)."""
    start = nnx.initializers.constant(float(np.log(prior / (1 - prior))))
    small = nnx.initializers.normal(0.01)
    return nnx.Linear(width, count, kernel_init=small, bias_init=start, param_dtype=jnp.float32, rngs=rngs)
