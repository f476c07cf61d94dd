"""Mel spectrograms in decibels, as librosa and CLAP compute them: centred frames, two mel scales. Pure functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .spectrogram import mel_filters

MEL_SCALES = ("htk", "slaney")
"""Of the filters: HTK's with a height of 1 (torchaudio), or Slaney's with an area of 1 (librosa)."""
_FLOOR = 1e-10  # power under the logarithm: -100 dB
_LINEAR_HZ, _STEP_HZ, _LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27  # Slaney's Auditory Toolbox, 1998


@functools.lru_cache(maxsize=8)
def slaney_filters(*, sample_rate: int, fft: int, mels: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return triangular mel filters of equal area, float64 `[fft // 2 + 1, F]`, on Slaney's scale.

    It is linear below 1 kHz and logarithmic above. The arguments are those of `spectrogram.mel_filters`.
    """

    def to_mel(hertz: float) -> float:
        if hertz < _LINEAR_HZ:
            return hertz / _STEP_HZ
        return float(_LINEAR_HZ / _STEP_HZ + np.log(hertz / _LINEAR_HZ) / _LOG_STEP)

    mel, turn = np.linspace(to_mel(low_hz), to_mel(high_hz), mels + 2), _LINEAR_HZ / _STEP_HZ
    edges = np.where(mel < turn, mel * _STEP_HZ, _LINEAR_HZ * np.exp(_LOG_STEP * (np.maximum(mel, turn) - turn)))
    bins = np.arange(fft // 2 + 1)[:, None] * sample_rate / fft
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


def decibel_mel(
    sound: Float[Array, "b S"],
    *,
    sample_rate: int,
    window: int,
    hop: int,
    mels: int,
    low_hz: float,
    high_hz: float,
    scale: str = "slaney",
) -> Float[Array, "b frames F"]:
    """Compute mel spectrograms in decibels.

    Frame i is centred at sample `i * hop`; the sound is mirrored at its ends. There are `1 + S // hop` frames, each
    weighted with a periodic Hann window.

    Args:
      sound: float32, full scale 1, longer than half a window.
      sample_rate: Hz.
      window: samples of a frame, and length of its Fourier transform.
      hop: samples from frame to frame.
      mels: mel bins F.
      low_hz: lower edge of the first filter.
      high_hz: upper edge of the last.
      scale: one of `MEL_SCALES`.

    Returns:
      float32, `10 log10` of power, at least -100 dB.
    """
    x = jnp.pad(sound, ((0, 0), (window // 2, window // 2)), mode="reflect")
    places = np.arange(1 + sound.shape[1] // hop)[:, None] * hop + np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum = jnp.fft.rfft(x[:, places] * jnp.asarray(hann, jnp.float32)[None, None])  # [b,frames,window/2+1]
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    make = slaney_filters if scale == "slaney" else mel_filters
    filters = make(sample_rate=sample_rate, fft=window, mels=mels, low_hz=low_hz, high_hz=high_hz)
    mel = jnp.matmul(power, jnp.asarray(filters, jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return jnp.float32(10 / np.log(10)) * jnp.log(jnp.maximum(mel, jnp.float32(_FLOOR)))


def upsampled(sound: Float[Array, "b S"], *, factor: int) -> Float[Array, "b fS"]:
    """Raise the sample rate by a whole factor; no frequencies are added (a longer Fourier transform).

    Args:
      sound: float32.
      factor: at least 1.
    """
    if factor == 1:
        return sound
    spectrum = jnp.fft.rfft(sound)
    return jnp.fft.irfft(spectrum, n=factor * sound.shape[1]) * jnp.float32(factor)
