"""Captioning: a causal decoder writes a text, token by token, while it sees a clip."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..decoder import TextDecoder
from ..layers.blocks import Context
from ..layers.draws import RowKeys
from ..shapes import Text, TextMask
from .sides import Clips, Texts

TOWER = "heads.captioning"
"""Its place in `config.model`."""


class CaptionDecoder(nnx.Module):
    """A caption decoder beside the contrastive towers (CoCa, Yu et al. 2022), which attends to the clip's time tokens.

    It has embeddings of its own for the text tower's tokens and for one more, which begins every text: all that the
    tokenizer puts around a text is written, too.

    Attributes:
      sees_words: False: it reads token ids, not the text tower's tokens.
      start_id: the token that begins every text.
      decoder: the decoder.
    """

    sees_words: ClassVar[bool] = False

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        video_width: int,
        width: int = 256,
        depth: int = 4,
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
          context_length: the most tokens of a text.
          video_width: of the video tower's time tokens.
          width: D of the blocks.
          depth: blocks, each with cross-attention to the clip.
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
        self.start_id = vocab_size
        own = {"width": width, "depth": depth, "heads": heads, "dropout": dropout, "block": block}
        own |= {"remat": remat, "unroll": unroll, "dtype": dtype, "cross_width": video_width}
        own |= {"context_length": context_length + 1, "start_token": True}
        self.decoder = TextDecoder(vocab_size=vocab_size, **own, rngs=rngs)
        self.norm_video = self.decoder.options.make_norm(width=video_width, rngs=rngs)

    def context(self, clips: Clips) -> Context:
        """Return what the decoder attends to."""
        return Context(self.norm_video(clips.tokens), clips.mask)

    def __call__(
        self, texts: Texts, *, clips: Clips, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "P L D"], Text, TextMask]:
        """Return states for the tokens of text p given clip p, and the text behind its start token with its mask.

        Args:
          texts: with ids and mask.
          clips: of the same rows.
          keys: one a pair; turns dropout on.

        Returns:
          States `[P,L+1,D]`, of which `decoder.logits` makes logits of the token after each place; ids `[P,L+1]` and
          their mask.
        """
        assert texts.ids is not None and texts.mask is not None
        text, mask = with_start(texts.ids, mask=texts.mask, start_id=self.start_id)
        return self.decoder.states(text, mask=mask, context=self.context(clips), keys=keys), text, mask


def with_start(text: Text, *, mask: TextMask, start_id: int) -> tuple[Text, TextMask]:
    """Put a token before each text; returns ids and mask `[P,L+1]`."""
    begun = jnp.pad(text, ((0, 0), (1, 0)), constant_values=start_id)
    return begun, jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
