"""From int16 sound with padding to a normalised log-mel spectrogram and the mask of its real frames."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int16

from .spectrogram import log_mel

# About the mean and deviation of the log-mel power of speech and music at full scale 1: inputs are near N(0, 1).
_MEAN, _SPREAD = -7.0, 4.0
WINDOW, HOP = 400, 160
"""Samples of a frame and from frame to frame: 25 ms and 10 ms at 16 kHz."""


def sound_frames(
    audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None, mels: int
) -> tuple[Float[Array, "B frames F"], Bool[Array, "B frames"]]:
    """Compute the log-mel spectrogram of sound, zeros where frames are not real, and tell which are real.

    Args:
      audio: int16 at 16 kHz, full scale 32768, padded at the end; at least `WINDOW` samples.
      lengths: int32, real samples of each row; None = all are real. A sound shorter than one frame, but not empty, has
        one, filled with silence.
      mels: mel bins F.
    """
    rows, samples = audio.shape
    lengths = jnp.full((rows,), samples, jnp.int32) if lengths is None else lengths
    audio = jnp.where(jnp.arange(samples)[None] < lengths[:, None], audio, jnp.int16(0))
    x = (log_mel(audio, mels=mels) - jnp.float32(_MEAN)) / jnp.float32(_SPREAD)
    whole = jnp.where(lengths >= WINDOW, 1 + (lengths - WINDOW) // HOP, (lengths > 0).astype(lengths.dtype))
    real = jnp.arange(x.shape[1])[None] < whole[:, None]
    return jnp.where(real[..., None], x, jnp.float32(0)), real
