"""Towers for video, text and sound in one embedding space (CLIP, Radford et al. 2021)."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ..base.errors import UserError, unknown
from .layers.dense import Dense, linear
from .layers.draws import RowKeys, fold, is_frozen
from .layers.names import named
from .layers.norm import LayerNorm, unit_rows
from .shapes import Embedding, FrameFeatures, Scalar, Text, TextMask, Video

MAX_SCALE = 100.0
"""`scale = exp(log_scale)` never exceeds this (CLIP, section 2.5)."""


@jax.custom_vjp
def capped(log_scale: Scalar) -> Scalar:
    """Return `min(log_scale, log 100)`, with a gradient that lets a value above the cap come down again.

    The minimum itself has no gradient above the cap, so a parameter that momentum carried over it would stay there for
    good. CLIP clips the parameter after each step. Here the gradient passes as if there were no cap, except that above
    the cap a gradient that would raise the parameter further (a negative one, under descent) becomes 0.
    """
    return jnp.minimum(log_scale, jnp.float32(math.log(MAX_SCALE)))


def _capped_forward(log_scale: Scalar) -> tuple[Scalar, Scalar]:
    return capped(log_scale), log_scale


def _capped_backward(log_scale: Scalar, gradient: Scalar) -> tuple[Scalar]:
    further_up = (log_scale >= jnp.float32(math.log(MAX_SCALE))) & (gradient < 0)
    return (jnp.where(further_up, jnp.float32(0), gradient),)


capped.defvjp(_capped_forward, _capped_backward)


class NormedProjection(nnx.Module):
    """A LayerNorm, then a linear map with a bias."""

    def __init__(self, *, width: int, embed_dim: int, rngs: nnx.Rngs):
        """Build the map `[B,D] -> [B,E]`."""
        self.norm = LayerNorm(width, dtype=jnp.float32, rngs=rngs)
        self.out = linear(width, embed_dim, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B E"]:
        """Project rows, in float32."""
        return self.out(self.norm(x))


PROJECTIONS = ("linear", "affine", "norm_affine", "none")
"""How a tower's vector gets into the joint space: a linear map (CLIP), with a bias (SigLIP's text), after a LayerNorm
(InternVideo2), or as it is (VideoPrism)."""


class DualTower(nnx.Module):
    """A video tower, a text tower and optionally an audio tower, projected into a joint space.

    It also holds the parameters of the losses: the temperature `log_scale` and, for the sigmoid loss, `bias`.
    """

    def __init__(
        self,
        *,
        video: Any,
        text: Any,
        audio: Any = None,
        embed_dim: int,
        projections: Mapping[str, str] | None = None,
        initial_scale: float = 1 / 0.07,
        initial_bias: float | None = None,
        rngs: nnx.Rngs,
    ):
        """Join the towers.

        Args:
          video: a tower of `models/towers`; gives `[B,D]` for clips.
          text: gives `[B,D]` for token ids.
          audio: gives `[B,D]` for sound, or None.
          embed_dim: E.
          projections: "video", "text", "audio" -> one of `PROJECTIONS`; "linear" where nothing is said.
          initial_scale: `exp(log_scale)` at the start, above 0 and at most `MAX_SCALE`.
          initial_bias: `bias` at the start (SigLIP: -10); None = there is none.
          rngs: source of the projections' initial values.

        Raises:
          UserError: an initial scale out of its range, or a projection that is unknown or cannot be left out.
        """
        if not 0 < initial_scale <= MAX_SCALE:
            raise UserError(
                f"config.model.initial_scale must be above 0 and at most {MAX_SCALE:g}, got {initial_scale}; "
                "CLIP starts at 14.3, SigLIP at 10"
            )
        self.video, self.text, self.audio, self.embed_dim = video, text, audio, embed_dim
        kinds = dict(projections or {})
        self.video_projection = _projection("video", kinds, width=video.width, embed_dim=embed_dim, rngs=rngs)
        self.text_projection = _projection("text", kinds, width=text.width, embed_dim=embed_dim, rngs=rngs)
        self.log_scale = nnx.Param(jnp.asarray(math.log(initial_scale), jnp.float32))
        if audio is not None:
            self.audio_projection = _projection("audio", kinds, width=audio.width, embed_dim=embed_dim, rngs=rngs)
        if initial_bias is not None:
            self.bias = nnx.Param(jnp.asarray(initial_bias, jnp.float32))

    @property
    def scale(self) -> Scalar:
        """The factor on cosines in the loss, `min(exp(log_scale), 100)`; above the cap see `capped` for its gradient.

        A loss of several terms reads it once, so that the cap acts on the summed gradient.
        """
        return jnp.exp(capped(self.log_scale[...]))

    def encode_video(
        self,
        video: Video | FrameFeatures,
        *,
        mask: Bool[Array, "B T"] | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> Embedding:
        """Embed clips: uint8 `[B,T,H,W,3]` -> float32 `[B,E]`, rows of unit length.

        Args:
          video: frames; for a tower that takes precomputed features, these, `[B,T,C]`.
          mask: of features, True where a row is real.
          keys: one for each row; turns dropout on, and patch dropout too unless `drop_patches` is False; not in a tower
            that is frozen as a whole.
          drop_patches: let patch dropout act.
        """
        real = {} if mask is None else {"mask": mask}
        x = self.video(video, keys=_keys_of(self.video, keys, 0), drop_patches=drop_patches, **real)
        return _embedding(x, self.video_projection)

    def encode_text(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Embedding:
        """Embed token ids: int `[B,L]` -> float32 `[B,E]`, rows of unit length; `keys` turns dropout on."""
        x = self.text(text, mask=mask, keys=_keys_of(self.text, keys, 1))
        return _embedding(x, self.text_projection)

    def encode_audio(
        self,
        audio: Int16[Array, "B S"],
        *,
        lengths: Int[Array, "B"] | None = None,
        keys: RowKeys | None = None,
    ) -> Embedding:
        """Embed sound: int16 `[B,S]` at 16 kHz -> float32 `[B,E]`, rows of unit length; `keys` turns dropout on.

        Args:
          audio: sound, padded at the end.
          lengths: int32, real samples of each row; None = all are real. Padding does not change the result; a row
            without real samples gives zeros.
          keys: one key for each row.

        Raises:
          UserError: the model has no audio tower.
        """
        if self.audio is None:
            raise UserError("this model has no audio tower; add config.model.audio and set config.data.audio_seconds")
        x = self.audio(audio, lengths=lengths, keys=_keys_of(self.audio, keys, 2))
        return _embedding(x, self.audio_projection)

    def video_features(self, video: Video, *, keys: RowKeys | None = None) -> FrameFeatures:
        """Return the video tower's time tokens `[B,T/tubelet,D]`, for downstream heads."""
        return self.video.features(video, keys=keys)


def _projection(
    side: str, kinds: Mapping[str, str], *, width: int, embed_dim: int, rngs: nnx.Rngs
) -> Dense | NormedProjection | None:
    kind = kinds.get(side, "linear")
    if kind not in PROJECTIONS:
        raise unknown(f"config.model.projections.{side}", kind, PROJECTIONS)
    if kind == "none":
        if width != embed_dim:
            raise UserError(
                f"config.model.projections.{side}='none' needs a tower of width embed_dim={embed_dim}, got {width}"
            )
        return None
    if kind == "norm_affine":
        return NormedProjection(width=width, embed_dim=embed_dim, rngs=rngs)
    return linear(width, embed_dim, dtype=jnp.float32, bias=kind == "affine", rngs=rngs)


def _embedding(x: Float[Array, "B D"], projection: Dense | NormedProjection | None) -> Embedding:
    return named(unit_rows(x if projection is None else projection(x)), "activation/embedding")


def _keys_of(tower: nnx.Module, keys: RowKeys | None, number: int) -> RowKeys | None:
    """Return a tower's own keys; None, with which it draws nothing, if it is frozen."""
    return None if is_frozen(tower) else fold(keys, number)
