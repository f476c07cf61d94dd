"""Captioning: a causal decoder writes a text, token by token, while it sees a clip."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from ..decoder import TextDecoder
from ..layers.blocks import Context
from ..layers.dense import linear
from ..layers.draws import RowKeys
from ..layers.positions import sinusoids
from ..shapes import Text, TextMask
from .sides import Clips, Texts

TOWER = "heads.captioning"
"""Its place in `config.model`."""

SEES = ("times", "patches")
"""What a decoder sees of a clip: a token of each time step, or those of all its patches."""


class CaptionDecoder(nnx.Module):
    """A caption decoder beside the contrastive towers (CoCa, Yu et al. 2022), which attends to the clip's tokens.

    It has embeddings of its own for the text tower's tokens and for one more, which begins every text: all that the
    tokenizer puts around a text is written, too.

    Attributes:
      sees_words: False: it reads token ids, not the text tower's tokens.
      start_id: the token that begins every text.
      decoder: the decoder.
      sees: what it sees of a clip, one of `SEES`.
    """

    sees_words: ClassVar[bool] = False

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        video_width: int,
        patch_width: int | None = None,
        sees: str = "times",
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
          patch_width: of its tokens of patches; None = it has none.
          sees: "times", the time tokens; or "patches", the tokens of all patches of all time steps, which are more and
            know more of each place, each with the time token of its step and sinusoids of its place in time.
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
        self.start_id, self.sees = vocab_size, sees
        seen_width = width_of(sees, video_width=video_width, patch_width=patch_width)
        own = {"width": width, "depth": depth, "heads": heads, "dropout": dropout, "block": block}
        own |= {"remat": remat, "unroll": unroll, "dtype": dtype, "cross_width": seen_width}
        own |= {"context_length": context_length + 1, "start_token": True}
        self.decoder = TextDecoder(vocab_size=vocab_size, **own, rngs=rngs)
        self.norm_video = self.decoder.options.make_norm(width=seen_width, rngs=rngs)
        own = {"dtype": self.decoder.dtype, "rngs": rngs}
        self.of_step = linear(video_width, seen_width, **own) if sees == "patches" else None

    def context(self, clips: Clips) -> Context:
        """Return what the decoder attends to."""
        tokens, mask, steps = seen(clips, sees=self.sees)
        x = self.norm_video(tokens)
        if self.of_step is not None:
            around = of_steps(self.of_step(clips.tokens), count=x.shape[1] // steps)
            x = (x.astype(jnp.float32) + around + places_in_time(x, steps=steps)).astype(x.dtype)
        return Context(x, mask)

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


def width_of(sees: str, *, video_width: int, patch_width: int | None) -> int:
    """Return the width of the tokens that a decoder sees.

    Args:
      sees: one of `SEES`.
      video_width: of the video tower's time tokens.
      patch_width: of its tokens of patches; None = it has none.

    Raises:
      UserError: an unknown name, or a tower without patches.
    """
    field = f"config.model.{TOWER}.sees"
    if sees not in SEES:
        raise unknown(field, sees, SEES)
    if sees == "times":
        return video_width
    if patch_width is None or patch_width % 2:
        has = "has none" if patch_width is None else f"has them {patch_width} wide, an odd number"
        raise UserError(f"{field}='patches' needs tokens of patches, and the video tower {has}; set it to 'times'")
    return patch_width


def seen(clips: Clips, *, sees: str) -> tuple[Float[Array, "m M W"], Bool[Array, "m M"] | None, int]:
    """Return the tokens of clips that a decoder sees, step after step, their mask, and the number of time steps."""
    if sees == "times":
        return clips.tokens, clips.mask, clips.tokens.shape[1]
    assert clips.patches is not None
    steps, count = clips.patches.shape[1:3]
    mask = None if clips.mask is None else repeat(clips.mask, "m t -> m (t n)", n=count)
    return rearrange(clips.patches, "m t n w -> m (t n) w"), mask, steps


def of_steps(x: Float[Array, "m T W"], *, count: int) -> Float[Array, "m M W"]:
    """Repeat what belongs to time steps for each of their `count` patches."""
    return repeat(x, "m t w -> m (t n) w", n=count)


def places_in_time(x: Float[Array, "m M W"], *, steps: int) -> Float[Array, "1 M W"]:
    """Return sinusoids of the time steps of tokens, float32; each step has as many tokens."""
    places = jnp.asarray(sinusoids(steps, width=x.shape[2]), jnp.float32)
    return of_steps(places[None], count=x.shape[1] // steps)


def with_start(text: Text, *, mask: TextMask, start_id: int) -> tuple[Text, TextMask]:
    """Put a token before each text; returns ids and mask `[P,L+1]`."""
    begun = jnp.pad(text, ((0, 0), (1, 0)), constant_values=start_id)
    return begun, jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
