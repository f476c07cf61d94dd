"""Video-text matching: a transformer reads a text while it sees a clip, and tells whether they belong together."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.blocks import Blocks, Context
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.options import block_options
from .sides import Clips, Texts

TOWER = "heads.matching"
"""Its place in `config.model`, and in the names of its activations."""


class CrossEncoder(nnx.Module):
    """Video-text matching (ALBEF, Li et al. 2021, section 3.2; BLIP, Li et al. 2022, section 3.2).

    A learned token and the tokens of the text tower pass `depth` blocks of self-attention, cross-attention to the
    clip's time tokens, and an MLP. The learned token's last state gives the log-odds that text and clip belong together
    (ALBEF's two logits, as their difference).

    Attributes:
      sees_words: True: it takes the tokens of a text.
    """

    sees_words: ClassVar[bool] = True

    def __init__(
        self,
        *,
        text_width: int,
        video_width: int,
        width: int | None = None,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Build the head.

        Args:
          text_width: of the text tower's tokens.
          video_width: of the video tower's time tokens.
          width: D of the blocks; None = `text_width`.
          depth: blocks; ALBEF has 6, BLIP 12.
          heads: attention heads K; they divide D.
          dropout: rate on the residual branches.
          block: further fields of `layers.options.BlockOptions`.
          remat: what the backward pass recomputes, a policy of `layers.remat`.
          unroll: layers in one iteration of the loop over them; 0 = all.
          dtype: compute dtype, float32 or bfloat16.
          rngs: source of the initial values.

        Raises:
          UserError: sizes that do not divide, a value out of its range, or an unknown name.
        """
        if depth < 1 or heads < 1:
            raise UserError(f"config.model.{TOWER}: depth={depth} and heads={heads} must be at least 1")
        width = width or text_width
        own = {"width": width, "heads": heads, "dropout": dropout, "remat": remat, "unroll": unroll, "causal": False}
        own |= {"dtype": compute_dtype(dtype), "cross_width": video_width, "final_norm": True}
        options = block_options(block, tower=TOWER, **own)
        self.dtype = options.dtype
        self.match = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, width), jnp.float32))
        self.words = linear(text_width, width, dtype=options.dtype, rngs=rngs)
        self.norm_video = options.make_norm(width=video_width, rngs=rngs)
        self.blocks = Blocks(options, depth=depth, rngs=rngs)
        self.out = linear(width, 1, dtype=jnp.float32, rngs=rngs)

    def __call__(self, texts: Texts, *, clips: Clips, keys: RowKeys | None = None) -> Float[Array, "P"]:
        """Score pair p of text p and clip p: log-odds of a match, float32; `keys`, one a pair, turns dropout on."""
        assert texts.tokens is not None and texts.mask is not None
        words = self.words(texts.tokens.astype(self.dtype))  # [P,L,D]
        first = jnp.broadcast_to(self.match[...].astype(words.dtype)[None], (words.shape[0], 1, words.shape[2]))
        mask = jnp.pad(texts.mask, ((0, 0), (1, 0)), constant_values=True)
        seen = Context(self.norm_video(clips.tokens), clips.mask)
        x = self.blocks(jnp.concatenate([first, words], axis=1), mask=mask, context=seen, keys=keys)
        return self.out(x[:, 0].astype(jnp.float32))[:, 0]
