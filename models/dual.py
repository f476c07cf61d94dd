"""The dual tower: video and text in one embedding space (CLIP, Radford et al. 2021)."""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ..configs.section import section
from .layers import linear, unit_rows
from .shapes import Embedding, FrameFeatures, Scalar, Text, TextMask, Video
from .text import TextTower
from .video import VideoTower

MAX_SCALE = 100.0
"""`scale = exp(log_scale)` never exceeds this (CLIP, section 2.5)."""


class DualTower(nnx.Module):
    """A video tower and a text tower with linear projections into a joint space, and the temperature `log_scale`."""

    def __init__(
        self, *, video: VideoTower, text: TextTower, embed_dim: int, initial_scale: float = 1 / 0.07, rngs: nnx.Rngs
    ):
        """Join two towers.

        Args:
          video: gives `[B,D]` for clips.
          text: gives `[B,D]` for token ids.
          embed_dim: E.
          initial_scale: `exp(log_scale)` at the start.
          rngs: where the projections' initial values come from.
        """
        self.video, self.text, self.embed_dim = video, text, embed_dim
        self.video_projection = linear(video.width, embed_dim, dtype=jnp.float32, bias=False, rngs=rngs)
        self.text_projection = linear(text.width, embed_dim, dtype=jnp.float32, bias=False, rngs=rngs)
        self.log_scale = nnx.Param(jnp.asarray(math.log(initial_scale), jnp.float32))

    @property
    def scale(self) -> Scalar:
        """The factor on cosines in the loss, `min(exp(log_scale), 100)`."""
        return jnp.exp(jnp.minimum(self.log_scale[...], jnp.asarray(math.log(MAX_SCALE), jnp.float32)))

    def encode_video(self, video: Video, *, rngs: nnx.Rngs | None = None) -> Embedding:
        """Embed clips: uint8 `[B,T,H,W,3]` -> float32 `[B,E]`, rows of unit length; `rngs` turns dropout on."""
        return unit_rows(self.video_projection(self.video(video, rngs=rngs).astype(jnp.float32)))

    def encode_text(self, text: Text, *, mask: TextMask, rngs: nnx.Rngs | None = None) -> Embedding:
        """Embed token ids: int `[B,L]` -> float32 `[B,E]`, rows of unit length; `rngs` turns dropout on."""
        return unit_rows(self.text_projection(self.text(text, mask=mask, rngs=rngs).astype(jnp.float32)))

    def video_features(self, video: Video, *, rngs: nnx.Rngs | None = None) -> FrameFeatures:
        """Return the video tower's time tokens `[B,T/tubelet,D]`, for downstream heads."""
        return self.video.features(video, rngs=rngs)


def build(
    *,
    video: dict[str, Any],
    text: dict[str, Any],
    embed_dim: int,
    initial_scale: float = 1 / 0.07,
    num_frames: int,
    context_length: int,
    vocab_size: int,
    rngs: nnx.Rngs,
) -> DualTower:
    """Build a dual tower from `config.model`.

    Args:
      video: arguments of `VideoTower` (`config.model.video`).
      text: arguments of `TextTower` (`config.model.text`).
      embed_dim: E.
      initial_scale: `exp(log_scale)` at the start.
      num_frames: T, from `config.data`.
      context_length: L, from `config.data`.
      vocab_size: V, from the tokenizer.
      rngs: where the initial values come from.

    Raises:
      UserError: an unknown key (named, with the nearest one) or sizes that do not fit.
    """
    return DualTower(
        video=section(VideoTower, video, name="model.video", num_frames=num_frames, rngs=rngs),
        text=section(
            TextTower, text, name="model.text", vocab_size=vocab_size, context_length=context_length, rngs=rngs
        ),
        embed_dim=embed_dim,
        initial_scale=initial_scale,
        rngs=rngs,
    )
