"""The audio tower: a transformer over patches of the log-mel spectrogram."""

import math

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int16

from ...base.errors import UserError
from ..layers.basics import compute_dtype, linear, position_embedding
from ..layers.blocks import Blocks
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.spectrogram import log_mel

_MEAN, _SPREAD = (
    -7.0,
    4.0,
)  # about those of log-mel power of speech and music at full scale 1, so that inputs are near N(0, 1)
_WINDOW, _HOP = 400, 160  # samples: 25 ms and 10 ms at 16 kHz


class AudioTower(nnx.Module):
    """Audio spectrogram transformer (AST, Gong et al. 2021), with a mean over patches instead of a class token.

    The sound becomes a log-mel spectrogram of 10 ms frames, which is cut into patches of `patch` frames x `patch` mel
    bins without overlap; frames beyond the last whole patch are left out.
    """

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
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Build the tower.

        Args:
          audio_samples: samples S of a clip's sound at 16 kHz (`config.data.audio_seconds`).
          mels: mel bins F, a multiple of `patch`.
          patch: patch side, in frames of 10 ms and in mel bins.
          width: D.
          depth: blocks.
          heads: attention heads K.
          mlp_ratio: hidden width of the MLPs / D.
          activation: a name of `layers.ACTIVATIONS`.
          dropout: rate on the residual branches.
          remat: a policy of `models.layers.remat`.
          unroll: layers in one turn of the loop over them; 0 = all.
          dtype: compute dtype, float32 or bfloat16.
          rngs: where the initial values come from.

        Raises:
          UserError: sizes that do not divide, or sound too short for one patch.
        """
        times, bands = _places(audio_samples=audio_samples, mels=mels, patch=patch)
        self.audio_samples, self.mels, self.patch, self.times = audio_samples, mels, patch, times
        self.width, self.dtype = width, compute_dtype(dtype)
        self.embed = linear(patch * patch, width, dtype=self.dtype, rngs=rngs)
        self.position = position_embedding(times, bands, width=width)
        self.blocks = Blocks(
            width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            activation=activation,
            dropout=dropout,
            tower="audio",
            remat=remat,
            unroll=unroll,
            dtype=self.dtype,
            rngs=rngs,
        )

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embed", "position", "blocks/layers", "blocks/norm")

    def __call__(self, audio: Int16[Array, "B S"], *, keys: RowKeys | None = None) -> Float[Array, "B D"]:
        """Encode sound, int16 at 16 kHz with full scale 32768; `keys` turns dropout on."""
        if audio.shape[1] != self.audio_samples:
            raise UserError(
                f"sound of {audio.shape[1]} samples, the tower wants {self.audio_samples}; "
                "config.data.audio_seconds must be that of the checkpoint"
            )
        x = (log_mel(audio, mels=self.mels)[:, : self.times * self.patch] - _MEAN) / _SPREAD  # [B,frames,F]
        x = rearrange(x, "b (t p) (f q) -> b (t f) (p q)", p=self.patch, q=self.patch)
        x = self.embed(x.astype(self.dtype)) + self.position[...].astype(self.dtype)[None]  # [B,patches,D]
        return jnp.mean(self.blocks(named(x, "activation/audio/tokens"), keys=keys), axis=1)


def _places(*, audio_samples: int, mels: int, patch: int) -> tuple[int, int]:
    """Return how many whole patches lie along time and along frequency, or raise UserError if none or not whole."""
    if mels % patch:
        raise UserError(f"config.model.audio.mels={mels} must be a multiple of patch={patch}")
    needed = (patch - 1) * _HOP + _WINDOW
    if audio_samples < needed:
        raise UserError(
            f"sound of {audio_samples} samples is too short for one patch of {patch} frames of 10 ms; set "
            f"config.data.audio_seconds to at least {math.ceil(100 * needed / 16_000) / 100:.2f}"
        )
    return (1 + (audio_samples - _WINDOW) // _HOP) // patch, mels // patch
