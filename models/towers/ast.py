"""The audio tower: a transformer over patches of the log-mel spectrogram."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ...base.errors import UserError
from ..layers.blocks import Blocks
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.options import block_options
from ..layers.pooling import masked_mean
from ..layers.positions import position_embedding
from ..layers.spectrogram import log_mel

# About the mean and deviation of the log-mel power of speech and music at full scale 1: inputs are near N(0, 1).
_MEAN, _SPREAD = -7.0, 4.0
_WINDOW, _HOP = 400, 160  # samples: 25 ms and 10 ms at 16 kHz


class AudioTower(nnx.Module):
    """Audio spectrogram transformer (AST, Gong et al. 2021), with a mean over patches instead of a class token.

    The sound becomes a log-mel spectrogram of 10 ms frames, which is cut into patches of `patch` frames x `patch` mel
    bins without overlap. Frames beyond the last whole patch of the real sound are left out, and so is padding: the
    result for a sound does not depend on how much of it follows. A sound shorter than one patch is padded to one.

    Args:
      audio_samples: samples S of a clip's sound at 16 kHz (`config.data.audio_seconds`).
      mels: mel bins F, a multiple of `patch`.
      patch: patch side, in frames of 10 ms and in mel bins.
      width: D.
      depth: blocks.
      heads: attention heads K.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      dropout: rate on the residual branches.
      block: further fields of `layers.options.BlockOptions`, such as `{"drop_path": 0.1}`.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not divide, a value out of its range, an unknown name, or sound too short for one patch.
    """

    mean_of_features = True
    """The vector of a sound is the mean of its real `features`."""

    def __init__(
        self,
        *,
        audio_samples: int,
        mels: int = 80,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        times, bands = _places(audio_samples=audio_samples, mels=mels, patch=patch)
        self.audio_samples, self.mels, self.patch, self.times = audio_samples, mels, patch, times
        self.width, self.dtype = width, compute_dtype(dtype)
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="audio", causal=False, rotary="none", cross_width=None, **own)
        self.embed = linear(patch * patch, width, dtype=self.dtype, rngs=rngs)
        self.position = position_embedding(times, bands, width=width)
        self.blocks = Blocks(options, depth=depth, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embed", "position", "blocks/layers", "blocks/norm")

    def __call__(
        self,
        audio: Int16[Array, "B S"],
        *,
        lengths: Int[Array, "B"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B D"]:
        """Encode sound into the mean over the patches of the real sound, float32; for the arguments see `features`."""
        x, mask = self._patches(audio, lengths=lengths, keys=keys)
        return masked_mean(x, mask=mask)

    def features(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "B N D"], Bool[Array, "B N"]]:
        """Encode sound into one token per patch.

        Args:
          audio: int16 at 16 kHz, full scale 32768, padded at the end.
          lengths: int32, real samples of each row, 0 ... S; None = all are real. A row of length 0 gives zeros.
          keys: one key for each row; turns dropout on.

        Returns:
          The tokens and which of them belong to real sound.
        """
        x, mask = self._patches(audio, lengths=lengths, keys=keys)
        return x, jnp.ones(x.shape[:2], bool) if mask is None else mask

    def _patches(
        self, audio: Array, *, lengths: Array | None, keys: RowKeys | None
    ) -> tuple[Float[Array, "B N D"], Bool[Array, "B N"] | None]:
        if audio.shape[1] != self.audio_samples:
            raise UserError(
                f"sound of {audio.shape[1]} samples, the tower wants {self.audio_samples}; "
                "config.data.audio_seconds must be that of the checkpoint"
            )
        mask = None
        if lengths is not None:
            audio = jnp.where(jnp.arange(audio.shape[1])[None] < lengths[:, None], audio, jnp.int16(0))
            mask = self._real(lengths)  # [B,patches]
        x = (log_mel(audio, mels=self.mels)[:, : self.times * self.patch] - _MEAN) / _SPREAD  # [B,frames,F]
        x = rearrange(x, "b (t p) (f q) -> b (t f) (p q)", p=self.patch, q=self.patch)
        x = self.embed(x.astype(self.dtype)).astype(jnp.float32) + self.position[...][None]  # [B,patches,D]
        return self.blocks(named(x.astype(self.dtype), "activation/audio/tokens"), mask=mask, keys=keys), mask

    def _real(self, lengths: Int[Array, "B"]) -> Bool[Array, "B patches"]:
        """Tell which patches lie wholly within the real sound; of a shorter sound, the first in time."""
        frames = jnp.where(lengths >= _WINDOW, 1 + (lengths - _WINDOW) // _HOP, 0)
        whole = jnp.maximum(frames // self.patch, (lengths > 0).astype(frames.dtype))  # [B]
        real = jnp.arange(self.times)[None] < whole[:, None]  # [B,times]
        return jnp.repeat(real, self.mels // self.patch, axis=1)


def _places(*, audio_samples: int, mels: int, patch: int) -> tuple[int, int]:
    """Return the number of whole patches along time and along frequency, or raise UserError if they do not fit."""
    if mels % patch:
        raise UserError(f"config.model.audio.mels={mels} must be a multiple of patch={patch}")
    needed = (patch - 1) * _HOP + _WINDOW
    if audio_samples < needed:
        raise UserError(
            f"sound of {audio_samples} samples is too short for one patch of {patch} frames of 10 ms; set "
            f"config.data.audio_seconds to at least {math.ceil(100 * needed / 16_000) / 100:.2f}"
        )
    return (1 + (audio_samples - _WINDOW) // _HOP) // patch, mels // patch
