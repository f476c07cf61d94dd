"""Masked language modelling: hidden tokens of a text are found from the others and from the clip."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ...base.errors import UserError
from ..layers.blocks import Blocks, Context
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.options import block_options
from ..shapes import TextMask
from .sides import Clips

TOWER = "heads.masked_language"
"""Its place in `config.model`, and in the names of its activations."""


class MaskedLanguageHead(nnx.Module):
    """Masked language modelling with a clip (BERT, Devlin et al. 2019; ALBEF, Li et al. 2021; VIOLET, Fu et al. 2021).

    The tokens that the text tower makes of a text with hidden tokens pass `depth` blocks of self-attention,
    cross-attention to the clip's time tokens, and an MLP. BERT's dense layer with GELU and LayerNorm follows at the
    places of the hidden tokens. Logits are products with the text tower's own embeddings (Press and Wolf 2017) plus a
    bias for each token.

    Attributes:
      sees_words: True: it takes the tokens of a text.
      token: `[1,text_width]`, stands in place of the embedding of a hidden token, as BERT's [MASK] does.
    """

    sees_words: ClassVar[bool] = True

    def __init__(
        self,
        *,
        vocab_size: int,
        text_width: int,
        video_width: int,
        width: int | None = None,
        depth: int = 1,
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
          vocab_size: V, of the text tower.
          text_width: of the text tower's tokens and embeddings.
          video_width: of the video tower's time tokens.
          width: D of the blocks; None = `text_width`.
          depth: blocks; ALBEF has 6.
          heads: attention heads K; they divide D.
          dropout: rate on the residual branches.
          block: further fields of `layers.options.BlockOptions`.
          remat: what the backward pass recomputes, a policy of `layers.remat`.
          unroll: layers in one iteration of the loop over them; 0 = all.
          dtype: compute dtype, float32 or bfloat16; logits are float32.
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
        self.vocab_size, self.dtype = vocab_size, options.dtype
        self.token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, text_width), jnp.float32))
        self.words = linear(text_width, width, dtype=options.dtype, rngs=rngs)
        self.norm_video = options.make_norm(width=video_width, rngs=rngs)
        self.blocks = Blocks(options, depth=depth, rngs=rngs)
        self.out = linear(width, text_width, dtype=options.dtype, rngs=rngs)
        self.norm = options.make_norm(width=text_width, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros((vocab_size,), jnp.float32))

    def __call__(
        self,
        words: Float[Array, "P L D"],
        *,
        mask: TextMask,
        places: Int[Array, "P K"],
        clips: Clips,
        seen: Bool[Array, "P"],
        keys: RowKeys | None = None,
    ) -> Float[Array, "P K D"]:
        """Return the states of which `logits` makes those of the hidden tokens.

        Args:
          words: tokens of the text tower, which did not see the hidden ones.
          mask: True where a token is real.
          places: of the hidden tokens.
          clips: of the same rows.
          seen: False hides the clip of a row: its text alone remains.
          keys: one for each row; turns dropout on.
        """
        shown = jnp.ones(clips.tokens.shape[:2], bool) if clips.mask is None else clips.mask
        context = Context(self.norm_video(clips.tokens), shown & seen[:, None])
        x = self.blocks(self.words(words.astype(self.dtype)), mask=mask, context=context, keys=keys)
        x = jnp.take_along_axis(x, places[..., None], axis=1)
        return self.norm(jax.nn.gelu(self.out(x)))

    def logits(self, states: Float[Array, "P K D"], *, table: Float[Array, "V D"]) -> Float[Array, "P K V"]:
        """Return logits over the vocabulary, float32; `table` holds the text tower's embeddings."""
        table = table[: self.vocab_size].astype(states.dtype)
        found = jnp.einsum("pkd,vd->pkv", states, table, preferred_element_type=jnp.float32)
        return found + self.bias[...][None, None]
