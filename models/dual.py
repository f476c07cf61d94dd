"""Towers for video, text and sound in one embedding space (CLIP, Radford et al. 2021)."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ..base.errors import UserError
from .fusion.interface import Features, Fusion
from .heads.joint import JointHead
from .heads.sides import Clips
from .layers.draws import RowKeys, fold, is_frozen
from .layers.names import named
from .layers.norm import unit_rows
from .layers.pooling import masked_mean
from .layers.projections import Projection, make_projection
from .shapes import Embedding, FrameFeatures, Scalar, Text, TextMask, Video
from .towers.outputs import VideoOutputs

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


class FusedEmbedding(NamedTuple):
    """What a fusion makes of rows.

    Attributes:
      embedding: float32 `[B,E]`, rows of unit length; zeros for a row that has none of the modalities.
      tokens: `[B,N,D]` of the fusion, for heads.
      mask: bool `[B,N]`, True where a token is real.
      losses: name -> float32 `[B]`, see `fusion.interface.Fused`.
      sides: modality -> its own embedding, of those that were asked for.
    """

    embedding: Embedding
    tokens: Float[Array, "B N D"]
    mask: Bool[Array, "B N"]
    losses: dict[str, Float[Array, "B"]]
    sides: dict[str, Embedding]


class DualTower(nnx.Module):
    """A video, a text and an audio tower, or two of them, projected into a joint space.

    A model with a fusion also embeds several modalities of a clip as one.

    It also holds the parameters of the losses: the temperature `log_scale` and, for the sigmoid loss, `bias`.
    """

    def __init__(
        self,
        *,
        video: Any = None,
        text: Any = None,
        audio: Any = None,
        fusion: Fusion | None = None,
        heads: Mapping[str, JointHead] | None = None,
        embed_dim: int,
        projections: Mapping[str, str] | None = None,
        initial_scale: float = 1 / 0.07,
        initial_bias: float | None = None,
        rngs: nnx.Rngs,
    ):
        """Join the towers.

        Args:
          video: a tower of `models/towers`; gives `[B,D]` for clips; or None.
          text: gives `[B,D]` for token ids, or None.
          audio: gives `[B,D]` for sound, or None.
          fusion: of several of the towers, or None.
          heads: name of `heads.joint.JOINT_HEADS` -> head that scores texts with clips; None = none.
          embed_dim: E.
          projections: "video", "text", "audio", "fusion" -> one of `layers.projections.PROJECTIONS`; "linear" where
            nothing is said, and "none" for a fusion of embeddings.
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
        if video is not None:
            self.video_projection = make_projection("video", kinds, width=video.width, embed_dim=embed_dim, rngs=rngs)
        if text is not None:
            self.text_projection = make_projection("text", kinds, width=text.width, embed_dim=embed_dim, rngs=rngs)
        self.log_scale = nnx.Param(jnp.asarray(math.log(initial_scale), jnp.float32))
        if audio is not None:
            self.audio_projection = make_projection("audio", kinds, width=audio.width, embed_dim=embed_dim, rngs=rngs)
        self.fusion = fusion
        if fusion is not None:
            if fusion.sees == "embeddings":
                kinds = {"fusion": "none", **kinds}
            given = {"width": fusion.width, "embed_dim": embed_dim, "rngs": rngs}
            self.fusion_projection = make_projection("fusion", kinds, **given)
        self.heads = nnx.Dict(dict(heads)) if heads else None
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
        if self.video is None:
            raise UserError("this model has no video tower; encode text and sound, or load another model")
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
        """Embed sound: int16 `[B,S]` -> float32 `[B,E]`, rows of unit length; `keys` turns dropout on.

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

    def encode_fused(
        self,
        inputs: Mapping[str, Array],
        *,
        present: Mapping[str, Bool[Array, "B"]] | None = None,
        sides: Collection[str] = (),
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> FusedEmbedding:
        """Embed several modalities of each row as one, by the model's fusion; each tower encodes its input once.

        Args:
          inputs: arrays by their names in batches: `video` (and `video_mask`, of precomputed features); `audio` and, if
            some of it is padding, `audio_samples`; `text` `[B,L]` and `text_mask`. A modality without an array is
            missing in all rows.
          present: modality -> which rows have it; all rows where nothing is said.
          sides: modalities of the fusion whose own embeddings are wanted, too.
          keys: one key for each row; turns dropout on, and the draws of the fusion.
          drop_patches: see `encode_video`.

        Raises:
          UserError: the model has no fusion, or there is no array of any of its modalities.
        """
        if self.fusion is None:
            raise UserError("this model has no fusion; add config.model.fusion, such as {'kind': 'attention', ...}")
        rows = next((inputs[side].shape[0] for side in self.fusion.modalities if side in inputs), None)
        if rows is None:
            raise UserError(f"nothing to fuse: wanted {' or '.join(self.fusion.modalities)}, got {sorted(inputs)}")
        features, own = {}, {}
        for side in self.fusion.modalities:
            there = (present or {}).get(side, jnp.ones((rows,), bool))
            if side not in inputs:
                features[side] = _absent(rows, width=self.fusion_widths()[side])
                continue
            vector, tokens, mask = self._features(side, inputs, keys=keys, drop_patches=drop_patches, own=side in sides)
            if side in sides or self.fusion.sees == "embeddings":
                own[side] = _embedding(vector, getattr(self, f"{side}_projection"))
            seen = own[side] if self.fusion.sees == "embeddings" else vector
            features[side] = Features(present=there, vector=seen, tokens=tokens, mask=mask)
        made = self.fusion(features, keys=_keys_of(self.fusion, keys, 3))
        embedding = _embedding(made.vector, self.fusion_projection)
        anything = jnp.any(made.mask, axis=1)[:, None]  # a bias of the projection must not stand for what is not there
        embedding = jnp.where(anything, embedding, jnp.float32(0))
        own = {side: own[side] for side in sides}
        return FusedEmbedding(embedding, made.tokens, made.mask, made.losses, own)

    def fusion_widths(self) -> dict[str, int]:
        """Return the width of what the fusion sees of each of its modalities."""
        assert self.fusion is not None
        joint = self.fusion.sees == "embeddings"
        return {side: self.embed_dim if joint else getattr(self, side).width for side in self.fusion.modalities}

    def _features(
        self, side: str, inputs: Mapping[str, Array], *, keys: RowKeys | None, drop_patches: bool, own: bool
    ) -> tuple[Array, Array | None, Array | None]:
        """Return a tower's vector and, if the fusion sees tokens, its tokens and their mask.

        Args:
          side: the modality.
          inputs: see `encode_fused`.
          keys: of the rows.
          drop_patches: see `encode_video`.
          own: the vector is wanted even if the fusion sees tokens.
        """
        assert self.fusion is not None
        tower, given = self._call(side, inputs, keys=keys, drop_patches=drop_patches)
        if self.fusion.sees != "tokens":
            return tower(inputs[side], **given), None, None
        return _vector_and_tokens(tower, inputs[side], side=side, given=given, own=own)

    def _call(
        self, side: str, inputs: Mapping[str, Array], *, keys: RowKeys | None, drop_patches: bool
    ) -> tuple[Any, dict[str, Any]]:
        """Return the tower of a modality, and its arguments besides the input; see `_features`."""
        tower, number = getattr(self, side), ("video", "text", "audio").index(side)
        given: dict[str, Any] = {"keys": _keys_of(tower, keys, number)}
        given |= {"drop_patches": drop_patches} if side == "video" else {}
        given |= {"mask": inputs[f"{side}_mask"]} if side != "audio" and f"{side}_mask" in inputs else {}
        given |= {"lengths": inputs.get("audio_samples")} if side == "audio" else {}
        return tower, given

    def encode_with_tokens(
        self, side: str, *, inputs: Mapping[str, Array], keys: RowKeys | None = None, drop_patches: bool = True
    ) -> tuple[Embedding, Float[Array, "B N D"]]:
        """Embed clips or texts, and return the tower's tokens, too, which the model's heads take.

        Args:
          side: "video" or "text".
          inputs: see `encode_fused`.
          keys: one for each row; turns dropout on.
          drop_patches: see `encode_video`.

        Returns:
          What `encode_video` or `encode_text` returns; and time tokens `[B,T,D]`, or tokens of words `[B,L,D]`.
        """
        if side == "video":
            embedding, made = self.encode_clips(inputs, keys=keys, drop_patches=drop_patches)
            return embedding, made.steps
        tower, given = self._call(side, inputs, keys=keys, drop_patches=drop_patches)
        vector, tokens, _ = _vector_and_tokens(tower, inputs[side], side=side, given=given, own=True)
        return _embedding(vector, getattr(self, f"{side}_projection")), tokens

    def encode_clips(
        self, inputs: Mapping[str, Array], *, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> tuple[Embedding, VideoOutputs]:
        """Embed clips, and return all that the video tower made of them; for the arguments see `encode_with_tokens`."""
        tower, given = self._call("video", inputs, keys=keys, drop_patches=drop_patches)
        made = tower.outputs(inputs["video"], **given)
        return _embedding(made.vector, self.video_projection), made

    def clips(self, tokens: Float[Array, "m T D"], *, mask: Bool[Array, "m T"] | None = None) -> Clips:
        """Return the time tokens of clips as heads take them: with their places in the joint space."""
        rows = tokens.reshape(-1, tokens.shape[-1])
        frames = rows if self.video_projection is None else self.video_projection(rows)
        mask = None if mask is None else of_steps(mask, steps=tokens.shape[1])
        return Clips(tokens, frames.astype(jnp.float32).reshape(*tokens.shape[:2], -1), mask)

    def video_features(self, video: Video, *, keys: RowKeys | None = None) -> FrameFeatures:
        """Return the video tower's time tokens `[B,T/tubelet,D]`, for downstream heads."""
        return self.video.features(video, keys=keys)


def _vector_and_tokens(
    tower: Any, x: Array, *, side: str, given: dict[str, Any], own: bool
) -> tuple[Array, Array, Array | None]:
    """Return a tower's vector (zeros unless it is `own` or comes with the tokens), its tokens and their mask."""
    if side == "text" and hasattr(tower, "vector_and_tokens"):
        return *tower.vector_and_tokens(x, **given), given.get("mask")
    if side == "video":
        made, mask = tower.outputs(x, **given), given.get("mask")
        return made.vector, made.steps, None if mask is None else of_steps(mask, steps=made.steps.shape[1])
    made = tower.tokens(x, **given) if side == "text" else tower.features(x, **given)
    tokens, mask = made if side == "audio" else (made, given.get("mask"))
    if getattr(tower, "mean_of_features", False):
        return masked_mean(tokens, mask=mask), tokens, mask
    vector = tower(x, **given) if own else jnp.zeros((tokens.shape[0], tower.width), jnp.float32)
    return vector, tokens, mask


def of_steps(mask: Bool[Array, "B T"], *, steps: int) -> Bool[Array, "B t"]:
    """Return the mask of time steps, each of which stands for several frames, from that of the frames."""
    return mask[:, :: mask.shape[1] // steps]


def _embedding(x: Float[Array, "B D"], projection: Projection | None) -> Embedding:
    return named(unit_rows(x if projection is None else projection(x)), "activation/embedding")


def _absent(rows: int, *, width: int) -> Features:
    """Return what a fusion sees of a modality that no row has."""
    nothing = jnp.zeros((rows,), bool)
    tokens = jnp.zeros((rows, 1, width), jnp.float32)
    return Features(present=nothing, vector=tokens[:, 0], tokens=tokens, mask=nothing[:, None])


def _keys_of(tower: nnx.Module, keys: RowKeys | None, number: int) -> RowKeys | None:
    """Return a tower's own keys; None, with which it draws nothing, if it is frozen."""
    return None if is_frozen(tower) else fold(keys, number)
