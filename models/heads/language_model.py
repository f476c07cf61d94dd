"""Captioning by a public language model: it is frozen, and gated layers between its blocks let it see a clip."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from ...base.section import section
from ..decoder import TextDecoder
from ..fusion.gated import Resampler
from ..fusion.interface import Tokens, chosen, joined
from ..gated_decoder import GatedDecoder
from ..layers.blocks import Context
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys, fold
from ..layers.options import block_options
from ..shapes import Text, TextMask
from .captioning import TOWER, of_steps, places_in_time, seen, width_of, with_start
from .sides import Clips, Texts

_RESAMPLER, _DECODER = range(2)  # numbers of the draws


class LanguageModelDecoder(nnx.Module):
    """A public language model as the caption decoder (Flamingo, Alayrac et al. 2022).

    The video tower's tokens, with sinusoids of their places in time, and the audio tower's tokens are projected to one
    width; a perceiver resampler turns them into a few latents, to which gated layers between the language model's
    blocks attend. At the start the gates are 0, and the logits those of the language model alone.

    Attributes:
      sees_words: False: it reads ids of the language model's own tokenizer.
      start_id: the token that begins every text.
      decoder: the language model with its gated layers.
      hears: whether it takes the tokens of sound.
      sees: what it sees of a clip, one of `captioning.SEES`.
    """

    sees_words: ClassVar[bool] = False

    def __init__(
        self,
        *,
        decoder: Mapping[str, Any],
        start_id: int,
        begins: bool,
        context_length: int,
        video_width: int,
        patch_width: int | None = None,
        sees: str = "times",
        audio_width: int | None = None,
        sound: bool = False,
        latents: int = 64,
        width: int | None = None,
        resampler_depth: int = 2,
        every: int = 1,
        heads: int | None = None,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Build the head.

        Args:
          decoder: arguments of the language model, a `models.decoder.TextDecoder`, as its source gives them.
          start_id: the token that begins every text.
          begins: the tokenizer puts it there itself.
          context_length: the most tokens of a caption, those around it included.
          video_width: of the video tower's time tokens.
          patch_width: of its tokens of patches; None = it has none.
          sees: the resampler takes "times", the time tokens, or "patches", those of all patches of all time steps, each
            with the time token of its step.
          audio_width: of the audio tower's tokens; None = there is no such tower.
          sound: latents are made of the sound, too.
          latents: tokens R to which a clip is resampled.
          width: of the latents; None = that of the language model.
          resampler_depth: layers of the resampler.
          every: blocks of the language model behind each gated layer, a divisor of their number.
          heads: attention heads of resampler and gated layers; None = those of the language model.
          dropout: rate on the residual branches of resampler and gated layers.
          block: further fields of `layers.options.BlockOptions` for both.
          remat: what the backward pass recomputes, a policy of `layers.remat`.
          unroll: layers in one iteration of the loop over them; 0 = all.
          dtype: compute dtype, float32 or bfloat16.
          rngs: source of the initial values.

        Raises:
          UserError: sizes that do not divide, a value out of its range, an unknown name, captions longer than the
            language model's context, or sound without an audio tower.
        """
        field = f"config.model.{TOWER}"
        if latents < 1 or resampler_depth < 1:
            raise UserError(f"{field}: latents={latents} and resampler_depth={resampler_depth} must be at least 1")
        if sound and audio_width is None:
            raise UserError(
                f"{field}.sound=True needs an audio tower; add config.model.audio and set config.data.audio_seconds"
            )
        longest = decoder["context_length"]
        if context_length + 1 > longest:
            raise UserError(
                f"config.data.context_length={context_length} tokens and the one that begins a caption do not fit into "
                f"the language model's context of {longest}; set it to {longest - 1} or less"
            )
        layers = {"remat": remat, "unroll": unroll, "dtype": dtype, "rngs": rngs}
        language_model = section(TextDecoder, dict(decoder), name=f"model.{TOWER}.decoder", **layers)
        own = language_model.options
        self.start_id, self.begins, self.hears, self.sees = start_id, begins, sound, sees
        self.width, self.dtype = own.width if width is None else width, compute_dtype(dtype)
        given = {"every": every, "heads": heads, "dropout": dropout, "block": block, "tower": TOWER}
        self.decoder = GatedDecoder(language_model, context_width=self.width, **given, rngs=rngs)
        options = {"width": self.width, "heads": own.heads if heads is None else heads, "dropout": dropout}
        options |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        made = block_options(block, tower=TOWER, **options)
        sizes = {"video": width_of(sees, video_width=video_width, patch_width=patch_width)}
        sizes |= {"audio": audio_width or 0} if sound else {}
        self.inputs = nnx.Dict({side: linear(n, self.width, dtype=self.dtype, rngs=rngs) for side, n in sizes.items()})
        patches = sees == "patches"
        self.of_step = linear(video_width, self.width, dtype=self.dtype, rngs=rngs) if patches else None
        kinds = 0.02 * jax.random.normal(rngs.params(), (len(sizes), self.width), jnp.float32)
        self.kinds = nnx.Param(kinds)
        self.resampler = Resampler(made, latents=latents, depth=resampler_depth, rngs=rngs)

    def context(self, clips: Clips, *, keys: RowKeys | None = None) -> Context:
        """Return the latents to which the decoder attends; `keys` turns dropout on.

        Raises:
          UserError: the head hears, and there is no sound.
        """
        if self.hears and clips.sound is None:
            raise UserError(
                f"config.model.{TOWER}.sound=True needs sound in the batches; set config.data.audio_seconds"
            )
        parts = [self._of_video(clips), *([self._of_sound(clips)] if self.hears else [])]
        return Context(*self.resampler(joined(parts), keys=keys))

    def _of_video(self, clips: Clips) -> Tokens:
        tokens, mask, steps = seen(clips, sees=self.sees)
        mask = jnp.ones(tokens.shape[:2], bool) if mask is None else mask
        x = self.inputs["video"](chosen(mask, tokens.astype(self.dtype)))
        if self.of_step is not None:
            around = self.of_step(clips.tokens.astype(self.dtype))
            x = x + of_steps(around, count=x.shape[1] // steps)
        return self._placed(x, mask=mask, steps=steps, number=0)

    def _of_sound(self, clips: Clips) -> Tokens:
        assert clips.sound is not None
        mask = jnp.ones(clips.sound.shape[:2], bool) if clips.sound_mask is None else clips.sound_mask
        x = self.inputs["audio"](chosen(mask, clips.sound.astype(self.dtype)))
        return self._placed(x, mask=mask, steps=x.shape[1], number=1)

    def _placed(self, x: Float[Array, "m M D"], *, mask: Bool[Array, "m M"], steps: int, number: int) -> Tokens:
        """Return tokens with their places in time and what tells their modality from others."""
        kind = self.kinds[...][None, number : number + 1]
        x = (x.astype(jnp.float32) + places_in_time(x, steps=steps) + kind).astype(x.dtype)
        return Tokens(chosen(mask, x), mask)

    def __call__(
        self, texts: Texts, *, clips: Clips, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "P L D"], Text, TextMask]:
        """Return states for the tokens of text p given clip p; see `captioning.CaptionDecoder`.

        Args:
          texts: with ids of the language model's tokenizer, and mask.
          clips: of the same rows.
          keys: one a pair; turns dropout on.

        Returns:
          States of which `decoder.logits` makes logits of the token after each place; the text from its begin token on,
          and its mask.
        """
        assert texts.ids is not None and texts.mask is not None
        text, mask = texts.ids, texts.mask
        if not self.begins:
            text, mask = with_start(text, mask=mask, start_id=self.start_id)
        context = self.context(clips, keys=fold(keys, _RESAMPLER))
        return self.decoder.states(text, mask=mask, context=context, keys=fold(keys, _DECODER)), text, mask
