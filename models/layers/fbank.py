"""Kaldi's log-mel filter banks of int16 sound (Povey et al. 2011), as AST and other public models take them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int16

_WINDOW, _HOP, _FFT = 400, 160, 512  # samples: 25 ms and 10 ms at 16 kHz
_RATE, _LOW_HZ, _HIGH_HZ = 16_000, 20.0, 8_000.0
_PREEMPHASIS = 0.97
_FLOOR = 1.1920929e-07  # power under the logarithm: the smallest step of float32 at 1


@functools.lru_cache(maxsize=8)
def kaldi_filters(mels: int) -> np.ndarray:
    """Return triangular filters, float64 `[257, F]`: triangles in mel (m = 1127 ln(1 + f / 700)), not in Hz."""

    def to_mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127 * np.log(1 + np.asarray(hertz) / 700)

    edges = np.linspace(to_mel(_LOW_HZ), to_mel(_HIGH_HZ), mels + 2)
    bins = to_mel(np.arange(_FFT // 2 + 1) * _RATE / _FFT)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def kaldi_fbank(audio: Int16[Array, "b S"], *, mels: int = 128) -> Float[Array, "b frames F"]:
    """Compute Kaldi's filter banks at 16 kHz, without dither.

    Frames of 25 ms every 10 ms lie wholly within the sound: there are `1 + (S - 400) // 160`. Of each, the mean is
    subtracted, then 0.97 times the sample before; it is weighted with a symmetric Hann window.

    Args:
      audio: int16, full scale 32768 (taken as 1).
      mels: mel bins F between 20 Hz and 8 kHz.

    Returns:
      float32 natural logarithms of power, at least log(1.19e-7).

    Raises:
      ValueError: sound shorter than one frame.
    """
    if audio.shape[1] < _WINDOW:
        raise ValueError(f"{audio.shape[1]} samples are less than one frame of {_WINDOW}")
    places = np.arange(1 + (audio.shape[1] - _WINDOW) // _HOP)[:, None] * _HOP + np.arange(_WINDOW)
    x = audio.astype(jnp.float32)[:, places] / jnp.float32(32768)  # [b,frames,window]
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    before = jnp.concatenate([x[..., :1], x[..., :-1]], axis=-1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / (_WINDOW - 1))
    x = (x - jnp.float32(_PREEMPHASIS) * before) * jnp.asarray(hann, jnp.float32)[None, None]
    spectrum = jnp.fft.rfft(x, n=_FFT)  # [b,frames,257]
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    filters = jnp.asarray(kaldi_filters(mels), jnp.float32)
    mel = jnp.matmul(power, filters, precision=jax.lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(mel, jnp.float32(_FLOOR)))
