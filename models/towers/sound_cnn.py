"""Small sound towers on the log-mel spectrogram: a convolutional network, and LSTM or GRU."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ...base.errors import UserError
from ..layers.draws import RowKeys
from ..layers.norm import LayerNorm
from ..layers.pooling import masked_mean
from ..layers.recurrent import RecurrentStack, check_recurrent_pool, pool_recurrent
from ..layers.sound_input import WINDOW, sound_frames


class SoundCnnTower(nnx.Module):
    """Convolutions over time and frequency (in the manner of VGGish, Hershey et al. 2017); the mean over real frames.

    Each stage halves both axes: a 3 x 3 convolution with stride 2, a LayerNorm over the channels, ReLU. Padding is set
    to zero after each stage, so the result for a sound does not depend on how much of it follows.

    Args:
      audio_samples: samples S of a clip's sound at 16 kHz (`config.data.audio_seconds`), at least one frame of 400.
      mels: mel bins F.
      channels: of each stage; the last is the width D.
      remat: has no effect.
      unroll: has no effect.
      rngs: source of the initial values.

    Raises:
      UserError: no stage, or sound that is too short.
    """

    mean_of_features = True
    """The vector of a sound is the mean of its real `features`."""

    def __init__(
        self,
        *,
        audio_samples: int,
        mels: int = 80,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        remat: str = "none",
        unroll: int = 1,
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        if not channels:
            raise UserError("config.model.audio.channels must name at least one stage, such as (32, 64, 128)")
        _check_samples(audio_samples)
        self.audio_samples, self.mels, self.width, self.dtype = audio_samples, mels, channels[-1], jnp.float32
        sizes = [1, *channels]
        kind = {"kernel_size": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1)), "use_bias": False, "rngs": rngs}
        self.convolutions = nnx.List([nnx.Conv(a, b, **kind) for a, b in itertools.pairwise(sizes)])
        self.norms = nnx.List([LayerNorm(size, dtype=jnp.float32, rngs=rngs) for size in channels])

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        stages = range(len(self.norms))
        return tuple(f"{part}/{stage}" for stage in stages for part in ("convolutions", "norms"))

    def __call__(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B D"]:
        """Encode sound into float32 vectors; nothing is random.

        Args:
          audio: int16 at 16 kHz, full scale 32768, padded at the end.
          lengths: int32, real samples of each row, 0 ... S; None = all are real. A row of length 0 gives zeros.
          keys: not used.
        """
        x, real = self.features(audio, lengths=lengths, keys=keys)
        return masked_mean(x, mask=real)

    def features(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "B N D"], Bool[Array, "B N"]]:
        """Encode sound into one token per place in time, the mean over frequencies, and tell which are real.

        The arguments are those of `__call__`.
        """
        del keys
        x, real = sound_frames(_checked(audio, self.audio_samples), lengths=lengths, mels=self.mels)
        x = x[..., None]  # [B,frames,F,1]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            real = real[:, ::2]  # a place is real if its middle is
            x = jax.nn.relu(norm(convolution(x)))
            x = jnp.where(real[:, :, None, None], x, jnp.float32(0))
        return jnp.mean(x, axis=2), real


class SoundRecurrentTower(nnx.Module):
    """LSTM or GRU over the frames of the log-mel spectrogram, in float32; padding has no part in it.

    Args:
      audio_samples: samples S of a clip's sound at 16 kHz (`config.data.audio_seconds`), at least one frame of 400.
      mels: mel bins F.
      width: D; each of two directions has half of it.
      depth: recurrent layers.
      cell: "lstm" or "gru".
      bidirectional: go in both directions.
      pool: "mean" or "max" over the real frames, or "last", the state after the last step of each direction.
      remat: has no effect.
      unroll: has no effect.
      rngs: source of the initial values.

    Raises:
      UserError: a value out of its range, an unknown name, or sound that is too short.
    """

    def __init__(
        self,
        *,
        audio_samples: int,
        mels: int = 80,
        width: int = 256,
        depth: int = 2,
        cell: str = "lstm",
        bidirectional: bool = True,
        pool: str = "mean",
        remat: str = "none",
        unroll: int = 1,
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        check_recurrent_pool(pool, field="config.model.audio.pool")
        _check_samples(audio_samples)
        self.audio_samples, self.mels, self.width, self.dtype = audio_samples, mels, width, jnp.float32
        self.pool, self.bidirectional = pool, bidirectional
        kind = {"cell": cell, "depth": depth, "bidirectional": bidirectional, "field": "config.model.audio"}
        self.layers = RecurrentStack(mels, width, **kind, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("layers",)

    def __call__(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B D"]:
        """Encode sound into float32 vectors; the arguments are those of `SoundCnnTower`."""
        x, real = self.features(audio, lengths=lengths, keys=keys)
        return pool_recurrent(x, mask=real, pool=self.pool, bidirectional=self.bidirectional)

    def features(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "B N D"], Bool[Array, "B N"]]:
        """Encode sound into one token per frame, and tell which are real; for the arguments see `SoundCnnTower`."""
        del keys
        x, real = sound_frames(_checked(audio, self.audio_samples), lengths=lengths, mels=self.mels)
        return self.layers(x, mask=real), real


def _checked(audio: Array, samples: int) -> Array:
    if audio.shape[1] != samples:
        raise UserError(
            f"sound of {audio.shape[1]} samples, the tower wants {samples}; config.data.audio_seconds must be that of "
            "the checkpoint"
        )
    return audio


def _check_samples(samples: int) -> None:
    if samples < WINDOW:
        raise UserError(f"sound of {samples} samples is shorter than 25 ms; set config.data.audio_seconds")
